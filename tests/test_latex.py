"""Does LaTeX compile every table of whole, half-finished and empty grids?"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from test_reports import fabricate, half, make_study

from pais_bench import plugins
from pais_bench.config import DatasetChoice, Run
from pais_bench.reports import _table

pytestmark = pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here: TeX Live has it")


def compiled(folder: Path, tables: list[Path]) -> str:
    """Compile a paper of these tables, and give pdflatex's log."""
    inputs = "".join(rf"\input{{{path.stem}}}\clearpage" for path in tables)
    text = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}\end{{document}}"
    (folder / "paper.tex").write_text(text)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-1500:]
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


@pytest.mark.parametrize("progress", [lambda run: 1, half, lambda run: 0], ids=["whole", "half", "empty"])
def test_every_table_compiles(progress: Callable[[Run], float], tmp_path: Path) -> None:
    study = make_study(folds=(1, 2), networks=("small", "k_net"))
    study = study.model_copy(update={"dataset": DatasetChoice(name="shapes", label="my_shapes.v2")})
    results = fabricate(study, tmp_path / "results", progress)
    tables = []
    for name in plugins.names("reports"):
        report = plugins.load("reports", name).Report()
        if not hasattr(report, "redraw"):
            tables += [path for path in report.write(study, results, tmp_path) if path.suffix == ".tex"]
    assert {"main_table.tex", "per_class.tex", "significance.tex"} <= {path.name for path in tables}
    told = compiled(tmp_path, tables)
    assert "Missing character" not in told and "undefined" not in told


def test_signs_that_latex_knows_for_something_else_compile(tmp_path: Path) -> None:
    signs = r"50 % & $1 _a {b} ~c^2 #3 \d ± − – † | < > [x] * é"
    table = _table.Table(signs, [signs, "n"], [[signs, "[1]"], ["[a]", "**1 %**"], ["*", ""]], 1, [signs])
    table.write(tmp_path, "hostile", "a:b_c")
    told = compiled(tmp_path, [tmp_path / "hostile.tex"])
    assert "Missing character" not in told
