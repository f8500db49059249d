"""Does LaTeX compile every table of whole, half-finished and empty grids?"""

from __future__ import annotations

import re
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


FAULTS = {"Missing character", "undefined", "Overfull", "too large for page"}


def compiled(folder: Path, tables: list[Path]) -> str:
    """Compile a paper of these tables, and give pdflatex's log."""
    inputs = "".join(rf"\input{{{path.stem}}}\clearpage" for path in tables)
    packages = r"\usepackage{booktabs,graphicx,longtable}"
    text = rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}"
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
    assert not FAULTS & {fault for fault in FAULTS if fault in told}


def test_signs_that_latex_knows_for_something_else_compile(tmp_path: Path) -> None:
    signs = r"50 % & $1 _a {b} ~c^2 #3 \d ± − – † | < > [x] * é"
    table = _table.Table(signs, [signs, "n"], [[signs, "[1]"], ["[a]", "**1 %**"], ["*", ""]], 1, [signs])
    table.write(tmp_path, "hostile", "a:b_c")
    told = compiled(tmp_path, [tmp_path / "hostile.tex"])
    assert "Missing character" not in told


def test_a_sign_is_printed_as_it_is_written_whatever_the_font_encoding() -> None:
    assert _table.escape("p < 0.05, a|b, c > d") == "p $<$ 0.05, a$|$b, c $>$ d"


def test_a_long_text_stands_below_the_table_once() -> None:
    reason, other = "split family soft_teacher for unknown, backbone small", "x" * 46
    table = _table.Table("c", ["paper", "why not"], [["1", reason], ["2", "–"], ["3", other], ["4", reason]], 0, ["n"])
    told = table.latex("a").splitlines()
    assert [line for line in told if line[:1].isdigit()] == [r"1 & (1) \\", r"2 & -- \\", r"3 & (2) \\", r"4 & (1) \\"]
    note = rf"\par\smallskip\footnotesize why not: (1) {_table.escape(reason)}; (2) {other}."
    assert told[-3:] == [r"\par\smallskip\footnotesize n", note, r"\end{table}"]
    assert f"| 4 | {reason} |" in table.markdown()


def test_a_table_that_is_too_wide_or_too_long_stays_on_its_pages(tmp_path: Path) -> None:
    heads = [f"method number {number}" for number in range(12)]
    for name, columns, rows in (("wide", 12, 3), ("long", 3, 200)):
        table = _table.Table("A caption.", heads[:columns], [["word"] * columns] * rows, 1, ["A note."])
        table.write(tmp_path, name, name)
    told = compiled(tmp_path, [tmp_path / "wide.tex", tmp_path / "long.tex"])
    assert not FAULTS & {fault for fault in FAULTS if fault in told}
    (pages,) = re.findall(r"Output written on paper.pdf \((\d+) pages", told)
    assert int(pages) >= 5, "two hundred rows are more than one page, and none is lost"
