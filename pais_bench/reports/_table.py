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
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "†": r"$^{\dagger}$",
    "‡": r"$^{\ddagger}$",
}

BAR = r"\|"
"""What stands for a bar within a cell of Markdown."""

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
        """Give a table environment that needs booktabs."""
        lines = [
            "% Needs \\usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{escape(self.caption)}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{'l' * self.texts}{'r' * (len(self.heads) - self.texts)}}}",
            r"\toprule",
            _line(self.heads),
            r"\midrule",
            *map(_line, self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\smallskip\footnotesize {escape(note)}" for note in self.notes),
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


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
