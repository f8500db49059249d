"""Which method is better, and by how much, at each percent of labels?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._cells import baseline, cells, external_cells
from pais_bench.reports._external import named, notes
from pais_bench.reports._gains import LEVEL, TOLD, gains
from pais_bench.reports._style import write, write_csv
from pais_bench.reports._table import BOLD, Table, escape, floating, note_lines, signed
from pais_bench.results import Results


class Report:
    """Write main_table.csv (tidy, one row a cell), main_table.md and main_table.tex (booktabs)."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write the three files; a cell without a finished run is a dash, and a footnote counts the missing runs."""
        table = _table(study, results)
        return [
            write_csv(folder / "main_table.csv", _tidy(study, results)),
            write(folder / "main_table.md", _markdown(table)),
            write(folder / "main_table.tex", _latex(table, study.name)),
        ]


def _tidy(study: Study, results: Results) -> pd.DataFrame:
    """Give the cells of the study, and below them those of other codebases, whose model is empty."""
    others = external_cells(study, results)
    return pd.concat([cells(study, results), others], ignore_index=True) if len(others) else cells(study, results)


def terminal_table(study: Study, results: Results) -> str:
    """Give the table as plain text, ready to print."""
    table = _table(study, results)
    rows = [[row.network, row.method, *_aligned(table, row)] for row in table.rows]
    lines = [["network", "method", *table.percents], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    texts.insert(1, "─" * max(map(len, texts)))
    return "\n".join([f"{table.title}\n", *texts, *(f"\n{note}" for note in table.notes)])


@dataclass(frozen=True)
class _Cell:
    value: str
    gain: str = ""
    mark: str = ""
    bold: bool = False

    @property
    def after(self) -> str:
        """Give what stands behind the value."""
        return (f"({self.gain})" if self.gain else "") + self.mark

    def __str__(self) -> str:
        text = f"{self.value} {self.after}".rstrip()
        return f"{BOLD}{text}{BOLD}" if self.bold else text

    def latex(self) -> tuple[str, str]:
        """Give value and gain as LaTeX prints them."""
        value, after = escape(self.value), escape(self.after)
        return (rf"\textbf{{{value}}}", rf"\textbf{{{after}}}") if self.bold else (value, after)


@dataclass(frozen=True)
class _Row:
    network: str
    method: str
    cells: list[_Cell]


@dataclass(frozen=True)
class _Table:
    title: str
    caption: str
    percents: list[str]
    rows: list[_Row]
    notes: list[str]


def _table(study: Study, results: Results) -> _Table:
    found = gains(study, results)
    better = found[found["significant"].astype(bool) & (found["gain"] > 0)]
    bold = set(zip(better["network"], better["method"], better["percent"], strict=True))
    others = external_cells(study, results)
    others = others.assign(method=named(results, others))
    rows = []
    for frame in (cells(study, results), others):
        for _, group in frame.groupby(["network", "method", "family"], sort=False):
            network, method = group["network"].iloc[0], group["method"].iloc[0]
            known = {
                row["percent"]: _cell(row, (network, method, row["percent"]) in bold) for _, row in group.iterrows()
            }
            rows.append(_Row(network, method, [known.get(percent, _Cell("–")) for percent in study.split.percents]))
    title = f"Mask AP (%) of the {study.told} on {study.dataset.label}"
    percents = [f"{percent:g} %" for percent in study.split.percents]
    tested = bool(found["p"].notna().any())
    return _Table(title, _caption(title, study, results, tested), percents, rows, _notes(study, results))


def _cell(row: pd.Series, bold: bool) -> _Cell:
    """Write `12.3 ± 0.4 (+2.1)†`: mean, spread where there is one, gain where there is one, mark of missing folds."""
    if math.isnan(row["AP"]):
        return _Cell("–")
    spread = "" if math.isnan(row["AP_std"]) else f" ± {row['AP_std']:.1f}"
    gain = "" if math.isnan(row["gain"]) else signed(row["gain"])
    return _Cell(f"{row['AP']:.1f}{spread}", gain, "†" if row["folds"] < row["folds_asked"] else "", bold)


def _caption(title: str, study: Study, results: Results, tested: bool) -> str:
    images = results.runs["images"].dropna().unique()
    folds = len(study.split.folds)
    spoilt = f", labels spoilt: {study.split.corruption.name}" if study.split.corruption else ""
    told = [
        f"{title}{f' ({images[0]:.0f} images)' if len(images) == 1 else ''}, by percent of labelled images.",
        f"Splits: family {study.split.family}, {folds} fold{'s' if folds > 1 else ''}{spoilt}.",
        "Evaluator: pycocotools, COCO AP at IoU 0.50:0.95, at most 100 detections per image.",
    ]
    if folds > 1:
        told.append("Mean ± sample standard deviation over the folds.")
    if baseline(study):
        told.append("In parentheses: gain over the supervised run of the same network, percent and fold.")
    if tested:
        told.append(f"Bold: better than supervised, p < {LEVEL:g} ({TOLD}).")
    return " ".join(told)


def _notes(study: Study, results: Results) -> list[str]:
    told, missing = [], int((results.runs["state"] != "done").sum())
    if missing:
        told.append(f"{missing} of {len(results.runs)} runs are missing: – no fold is finished, † some folds are not.")
    told += notes(results)
    if others := set(results.external["family"]) - {study.split.family}:
        told.append(
            f"Split families are mixed: {study.split.family} without ‡, {', '.join(sorted(others))} among ‡. Rows of "
            "different families have seen different labelled images, and their difference is not that of the methods "
            "alone."
        )
    return told


def _aligned(table: _Table, row: _Row) -> list[str]:
    """Pad a row's cells so that values end, and gains begin, in the same column of text."""
    texts = []
    for column, cell in enumerate(row.cells):
        values = max(len(other.cells[column].value) for other in table.rows)
        texts.append(f"{cell.value.rjust(values)} {cell.after}".rstrip())
    return texts


def _markdown(table: _Table) -> str:
    rows = [[row.network, row.method, *map(str, row.cells)] for row in table.rows]
    return Table(table.caption, ["network", "method", *table.percents], rows, 2, table.notes).markdown()


def _latex(table: _Table, name: str) -> str:
    """Write a table environment; each percent is two columns, so that values end and gains begin on a line."""
    heads = "".join(rf" & \multicolumn{{2}}{{c}}{{{escape(percent)}}}" for percent in table.percents)
    tabular = [
        rf"\begin{{tabular}}{{ll{'r@{ }l' * len(table.percents)}}}",
        r"\toprule",
        rf"network & method{heads} \\",
        *_latex_rows(table),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    head = [rf"\caption{{{escape(table.caption)}}}", rf"\label{{tab:{name}}}"]
    return floating(head, tabular, note_lines(table.notes))


def _latex_rows(table: _Table) -> list[str]:
    lines, network = [], None
    for row in table.rows:
        if row.network != network:
            lines.append(r"\midrule")
        label = row.network if row.network != network else ""
        values = [part for cell in row.cells for part in cell.latex()]
        lines.append(" & ".join([escape(label), escape(row.method), *values]) + r" \\")
        network = row.network
    return lines
