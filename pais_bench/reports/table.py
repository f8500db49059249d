"""Write tables of texts as Markdown and LaTeX, and their numbers as CSV."""

from __future__ import annotations

import itertools
import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pais_bench.reports.report import Report, Section
from pais_bench.reports.results import Results
from pais_bench.reports.style import write_csv
from pais_bench.study.study import Study
from pais_bench.whole_file import write_text

_TEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"${char}$" for char in "<>|"},
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "≤": r"$\le$",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
}

_MARKDOWN = re.compile(r"[\\`*|~$]|<(?=[A-Za-z/!?])|&(?=#?\w+;)|\[(?=[^\]]*\][(\[:])|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown does not show as it is; it shows a `_` within a word, `<` before a number, brackets of an interval."""

MAX_CELL = 45
"""Characters above which the text of a cell stands below the table in LaTeX."""
MAX_ROWS = 45
"""Rows that fit a page."""
LINE_WIDTH = 345
"""Width in points of the text of LaTeX's article."""
SIZES = {"small": (4.7, 6), "footnotesize": (4.3, 4), "scriptsize": (4.0, 3), "tiny": (3.5, 2)}
"""Width in points of a digit of LaTeX's sizes for a longtable, and of the space on each side of a column."""


class Bold(str):
    """Mark the text of a cell as bold."""


@dataclass(frozen=True)
class Table:
    """Hold a caption, the column names, rows of cells, the number of leading text columns, and notes below."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Return a Markdown table between its caption and its notes."""
        rule = [":--"] * self.text_columns + ["--:"] * (len(self.columns) - self.text_columns)
        lines = (f"| {' | '.join(map(_markdown_cell, line))} |" for line in [self.columns, rule, *self.rows])
        notes = map(escape_markdown, self.notes)
        return "\n\n".join([escape_markdown(self.caption), "\n".join(lines), *notes]) + "\n"

    def latex(self, label: str) -> str:
        """Return a table environment as wide as the text at most; with more than MAX_ROWS rows a longtable."""
        head = [rf"\caption{{{escape(self.caption)}}}", rf"\label{{tab:{label}}}"]
        alignment = "l" * self.text_columns + "r" * (len(self.columns) - self.text_columns)
        body, explanations = self._shortened()
        notes = latex_notes([*self.notes, *explanations])
        if len(body) > MAX_ROWS:
            return self._longtable(head, alignment, body, notes)
        top, rows = [r"\toprule", _latex_row(self.columns), r"\midrule"], [*map(_latex_row, body)]
        tabular = [rf"\begin{{tabular}}{{{alignment}}}", *top, *rows, r"\bottomrule", r"\end{tabular}"]
        return latex_table(head, tabular, notes)

    def _longtable(
        self, head: Sequence[str], alignment: str, body: Sequence[Sequence[str]], notes: Sequence[str]
    ) -> str:
        """Return a longtable in the largest of SIZES that fits; where none does, long heads of numbers are turned."""
        heads = [*map(_latex_cell, self.columns)]
        widths = [max(map(len, column)) for column in zip(self.columns, *body, strict=True)]
        if _latex_width(widths, "tiny") > LINE_WIDTH:
            for column in range(self.text_columns, len(widths)):
                width = max(len(row[column]) for row in body)
                if width < widths[column]:
                    widths[column], heads[column] = width, rf"\rotatebox{{90}}{{{heads[column]}}}"
        lines = ["% Needs \\usepackage{booktabs,graphicx,longtable}", r"\begingroup\small\LTcapwidth=\linewidth"]
        for larger, size in itertools.pairwise(SIZES):
            fits = f"{_latex_width(widths, larger)}pt"
            lines.append(rf"\ifdim\linewidth<{fits}\{size}\tabcolsep={SIZES[size][1]}pt\fi")
        top, rows = [r"\toprule", _latex_line(heads), r"\midrule"], [*map(_latex_row, body)]
        lines += [rf"\begin{{longtable}}{{{alignment}}}", *head, r"\\", *top, r"\endfirsthead", *top, r"\endhead"]
        ends = [r"\bottomrule", r"\endfoot"]
        return "\n".join([*lines, *ends, *rows, r"\end{longtable}", *notes, r"\endgroup"]) + "\n"

    def _shortened(self) -> tuple[list[list[str]], list[str]]:
        """Return rows with a number for each text above MAX_CELL characters, and a note per column that lists them."""
        rows, notes = [list(row) for row in self.rows], []
        for column, name in enumerate(self.columns):
            long = list(dict.fromkeys(row[column] for row in rows if len(row[column]) > MAX_CELL))
            number = {text: f"({index})" for index, text in enumerate(long, start=1)}
            for row in rows:
                row[column] = number.get(row[column], row[column])
            if long:
                notes.append(f"{name}: {'; '.join(f'{index} {text}' for text, index in number.items())}.")
        return rows, notes


class TableReport(Report):
    """Write numbers as name.csv (tidy), and their table as name.md and name.tex."""

    def write(self, study: Study, results: Results, folder: Path) -> Section:
        """Write the three files."""
        frame = self.frame(study, results)
        table = self.table(study, results, frame)
        files = (
            write_csv(folder / f"{self.name}.csv", frame),
            write_text(folder / f"{self.name}.md", table.markdown()),
            write_text(folder / f"{self.name}.tex", table.latex(f"{study.name}:{self.name}")),
        )
        return Section(self.name, self.title, files, table, frame=frame)

    @abstractmethod
    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the numbers of the table, tidy; raise NothingToShow where there are none."""

    @abstractmethod
    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table of a frame."""


def latex_table(head: Sequence[str], tabular: Sequence[str], notes: Sequence[str]) -> str:
    """Return a table environment whose tabular shrinks to the width of the text, where it is wider."""
    start = ["% Needs \\usepackage{booktabs,graphicx}", r"\begin{table}[t]", r"\centering", *head, r"\par\smallskip"]
    fit = r"}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
    return "\n".join([*start, r"\sbox0{%", *tabular, fit, *notes, r"\end{table}"]) + "\n"


def latex_notes(notes: Sequence[str]) -> list[str]:
    """Return the lines of notes below a table."""
    return [rf"\par\smallskip\footnotesize {escape(note)}" for note in notes]


def escape(text: str) -> str:
    """Return text escaped for LaTeX."""
    return "".join(_TEX.get(char, char) for char in text)


def signed(value: float, digits: int = 1) -> str:
    """Return a number with its sign, and a minus that is as wide as a plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def mean_and_deviation(mean: float, deviation: float) -> str:
    """Return `12.3 ± 0.4`, without the deviation where it is NaN, and a dash where the mean is NaN."""
    if pd.isna(mean):
        return "–"
    return f"{mean:.1f}" + ("" if pd.isna(deviation) else f" ± {deviation:.1f}")


def interval(low: float, high: float, digits: int = 1) -> str:
    """Return `[−0.1, +2.3]`, and a dash where a bound is NaN."""
    return "–" if pd.isna(low) or pd.isna(high) else f"[{signed(low, digits)}, {signed(high, digits)}]"


def p_value(p: float) -> str:
    """Return a p value with three digits, `< 0.001` below what they show, and a dash where it is NaN.

    One that three digits would round to the level of 0.05 has a fourth, which tells on which side it is.
    """
    if pd.isna(p):
        return "–"
    if p < 0.0005:
        return "< 0.001"
    return f"{p:.4f}" if f"{p:.3f}" == "0.050" else f"{p:.3f}"


def escape_markdown(text: str) -> str:
    """Return text escaped for Markdown, also within a table."""
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _markdown_cell(text: str) -> str:
    escaped = escape_markdown(text)
    return f"**{escaped}**" if isinstance(text, Bold) else escaped


def _latex_width(widths: Sequence[int], size: str) -> int:
    """Return about how many points columns of so many characters need in one of SIZES."""
    points, space = SIZES[size]
    return math.ceil(sum(widths) * points + 2 * space * len(widths))


def _latex_row(cells: Sequence[str]) -> str:
    """Return a row of texts."""
    return _latex_line([*map(_latex_cell, cells)])


def _latex_line(cells: Sequence[str]) -> str:
    r"""Join cells; a bracket or a star that begins a row would belong to the \\ before it."""
    line = " & ".join(cells) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line


def _latex_cell(text: str) -> str:
    return rf"\textbf{{{escape(text)}}}" if isinstance(text, Bold) else escape(text)
