"""Compile the LaTeX of every table of finished, unfinished and empty grids."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from test_reports import fabricate, half, make_study

from pais_bench import plugins
from pais_bench.errors import NothingToShow
from pais_bench.reports.table import Bold, Table, TableReport, escape
from pais_bench.study.run import Run
from pais_bench.study.study import DatasetChoice

needs_latex = pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here: TeX Live has it")
FAULTS = {"Missing character", "undefined", "Overfull", "too large for page"}


def compiled(folder: Path, tables: list[Path]) -> str:
    """Compile a paper of these tables, and return pdflatex's log."""
    inputs = "".join(rf"\input{{{path.stem}}}\clearpage" for path in tables)
    packages = r"\usepackage{booktabs,graphicx,longtable}"
    text = rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}"
    (folder / "paper.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-1500:]
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


@needs_latex
@pytest.mark.parametrize("progress", [lambda run: 1, half, lambda run: 0], ids=["finished", "half", "empty"])
def test_every_table_compiles(progress: Callable[[Run], float], tmp_path: Path) -> None:
    study = make_study(folds=(1, 2), networks=("small", "k_net"))
    study = study.model_copy(update={"dataset": DatasetChoice(name="shapes", label="my_shapes.v2")})
    results = fabricate(study, tmp_path / "results", progress)
    tables = []
    for name in plugins.names("reports"):
        report = plugins.load("reports", name).Report()
        if not isinstance(report, TableReport):
            continue
        with suppress(NothingToShow):
            tables += [path for path in report.write(study, results, tmp_path).files if path.suffix == ".tex"]
    assert {"main_table.tex", "per_class.tex", "significance.tex"} <= {path.name for path in tables}
    log = compiled(tmp_path, tables)
    assert not {fault for fault in FAULTS if fault in log}


@needs_latex
def test_special_characters_of_latex_compile(tmp_path: Path) -> None:
    text = r"50 % & $1 _a {b} ~c^2 #3 \d ± − – † | < > [x] * é `f`"
    table = Table(text, [text, "n"], [[text, "[1]"], ["[a]", Bold("1 %")], ["*", ""]], 1, [text])
    (tmp_path / "special.tex").write_text(table.latex("a:b_c"))
    assert "Missing character" not in compiled(tmp_path, [tmp_path / "special.tex"])


def test_comparison_signs_do_not_depend_on_the_font_encoding() -> None:
    assert escape("p < 0.05, a|b, c > d, `e`") == "p $<$ 0.05, a$|$b, c $>$ d, \\textasciigrave{}e\\textasciigrave{}"


def test_a_long_text_is_below_the_table_once() -> None:
    reason, other = "split family soft_teacher for unknown, backbone small", "x" * 46
    table = Table("c", ["paper", "why not"], [["1", reason], ["2", "–"], ["3", other], ["4", reason]], 0, ["n"])
    lines = table.latex("a").splitlines()
    assert [line for line in lines if line[:1].isdigit()] == [r"1 & (1) \\", r"2 & -- \\", r"3 & (2) \\", r"4 & (1) \\"]
    note = rf"\par\smallskip\footnotesize why not: (1) {escape(reason)}; (2) {other}."
    assert lines[-3:] == [r"\par\smallskip\footnotesize n", note, r"\end{table}"]
    assert f"| 4 | {reason} |" in table.markdown()


@needs_latex
def test_a_table_that_is_too_wide_or_too_long_stays_on_its_pages(tmp_path: Path) -> None:
    heads = [f"method number {number}" for number in range(12)]
    for name, columns, rows in (("wide", 12, 3), ("long", 3, 200), ("both", 12, 200), ("medium", 4, 200)):
        table = Table("A caption.", heads[:columns], [["word"] * columns] * rows, 1, ["A note."])
        (tmp_path / f"{name}.tex").write_text(table.latex(name))
    log = compiled(tmp_path, sorted(tmp_path.glob("*.tex")))
    assert not {fault for fault in FAULTS if fault in log}
    (pages,) = re.findall(r"Output written on paper.pdf \((\d+) pages", log)
    assert int(pages) >= 11, "two hundred rows need several pages"
    turned = {path.stem for path in tmp_path.glob("*.tex") if r"\rotatebox{90}{method number 3}" in path.read_text()}
    assert turned == {"both"}, "heads are turned where smaller letters are not enough"
