"""How does a plain table of texts become Markdown and LaTeX?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pais_bench.reports._style import write

_TEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"${sign}$" for sign in "<>|"},
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
}

BAR = r"\|"
"""What stands for a bar within a cell of Markdown."""

LONG = 45
"""Signs above which the text of a cell stands below the table in LaTeX."""
PAGE = 45
"""Rows that fit a page."""

BOLD = "**"
"""What stands around a cell that is to be bold."""


@dataclass(frozen=True)
class Table:
    """Hold a caption, the heads of the columns, rows of cells, how many columns begin with text, and notes below."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int
    notes: Sequence[str] = ()

    def write(self, folder: Path, stem: str, label: str) -> list[Path]:
        """Write stem.md and stem.tex; label names the table in LaTeX."""
        return [write(folder / f"{stem}.md", self.markdown()), write(folder / f"{stem}.tex", self.latex(label))]

    def markdown(self) -> str:
        """Give a Markdown table between its caption and its notes."""
        rule = [":--"] * self.texts + ["--:"] * (len(self.heads) - self.texts)
        lines = (
            f"| {' | '.join(cell.replace('|', BAR) for cell in line)} |" for line in [self.heads, rule, *self.rows]
        )
        return "\n\n".join([self.caption, "\n".join(lines), *self.notes]) + "\n"

    def latex(self, label: str) -> str:
        """Give a table environment as wide as the text at most; of more than PAGE rows a longtable, page by page."""
        head = [rf"\caption{{{escape(self.caption)}}}", rf"\label{{tab:{label}}}"]
        kinds = "l" * self.texts + "r" * (len(self.heads) - self.texts)
        body, explained = self._short()
        top, rows = [r"\toprule", _line(self.heads), r"\midrule"], [*map(_line, body)]
        notes = note_lines([*self.notes, *explained])
        if len(rows) > PAGE:
            lines = ["% Needs \\usepackage{booktabs,longtable}", r"\begingroup\small"]
            lines += [rf"\begin{{longtable}}{{{kinds}}}", *head, r"\\", *top, r"\endfirsthead", *top, r"\endhead"]
            ends = [r"\bottomrule", r"\endfoot"]
            return "\n".join([*lines, *ends, *rows, r"\end{longtable}", *notes, r"\endgroup"]) + "\n"
        tabular = [rf"\begin{{tabular}}{{{kinds}}}", *top, *rows, r"\bottomrule", r"\end{tabular}"]
        return floating(head, tabular, notes)

    def _short(self) -> tuple[list[list[str]], list[str]]:
        """Give rows with a number for each text above LONG signs, and a note per column that says what they mean."""
        rows, notes = [list(row) for row in self.rows], []
        for column, name in enumerate(self.heads):
            long = list(dict.fromkeys(row[column] for row in rows if len(row[column]) > LONG))
            number = {text: f"({place})" for place, text in enumerate(long, start=1)}
            for row in rows:
                row[column] = number.get(row[column], row[column])
            if long:
                notes.append(f"{name}: {'; '.join(f'{place} {text}' for text, place in number.items())}.")
        return rows, notes


def floating(head: Sequence[str], tabular: Sequence[str], notes: Sequence[str]) -> str:
    """Give a table environment whose tabular shrinks to the width of the text, where it is wider."""
    start = ["% Needs \\usepackage{booktabs,graphicx}", r"\begin{table}[t]", r"\centering", *head, r"\par\smallskip"]
    fit = r"}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
    return "\n".join([*start, r"\sbox0{%", *tabular, fit, *notes, r"\end{table}"]) + "\n"


def note_lines(notes: Sequence[str]) -> list[str]:
    """Give the lines of notes below a table."""
    return [rf"\par\smallskip\footnotesize {escape(note)}" for note in notes]


def escape(text: str) -> str:
    """Give text as LaTeX prints it."""
    return "".join(_TEX.get(sign, sign) for sign in text)


def signed(value: float, digits: int = 1) -> str:
    """Give a number with its sign, and a minus that is as wide as a plus."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _line(cells: Sequence[str]) -> str:
    r"""Join cells; a bracket or a star that begins a row would belong to the \\ before it."""
    line = " & ".join(map(_cell, cells)) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line


def _cell(text: str) -> str:
    if text.startswith(BOLD) and text.endswith(BOLD):
        return rf"\textbf{{{escape(text[2:-2])}}}"
    return escape(text)
