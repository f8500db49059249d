"""Which method is better, and by how much, at each percent of labels?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._cells import baseline, cells
from pais_bench.reports._style import write, write_csv
from pais_bench.reports._table import Table, escape
from pais_bench.results import Results


class Report:
    """Write main_table.csv (tidy, one row a cell), main_table.md and main_table.tex (booktabs)."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write the three files; a cell without a finished run is a dash, and a footnote counts the missing runs."""
        table = _table(study, results)
        return [
            write_csv(folder / "main_table.csv", cells(study, results)),
            write(folder / "main_table.md", _markdown(table)),
            write(folder / "main_table.tex", _latex(table, study.name)),
        ]


def terminal_table(study: Study, results: Results) -> str:
    """Give the table as plain text, ready to print."""
    table = _table(study, results)
    rows = [[row.network, row.method, *_aligned(table, row)] for row in table.rows]
    lines = [["network", "method", *table.percents], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    texts.insert(1, "─" * max(map(len, texts)))
    return "\n".join([f"{table.title}\n", *texts, *([f"\n{table.footnote}"] if table.footnote else [])])


@dataclass(frozen=True)
class _Cell:
    value: str
    gain: str

    def __str__(self) -> str:
        return f"{self.value} {self.gain}".rstrip()


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
    footnote: str


def _table(study: Study, results: Results) -> _Table:
    by_row = cells(study, results).groupby(["network", "method"], sort=False)
    rows = [
        _Row(network, method, [_cell(row) for _, row in group.iterrows()])
        for network in study.networks
        for method in study.methods
        for group in [by_row.get_group((network, method))]
    ]
    title = f"Mask AP (%) of the {study.model} on {study.dataset.label}"
    percents = [f"{percent:g} %" for percent in study.split.percents]
    return _Table(title, _caption(title, study, results), percents, rows, _footnote(results))


def _cell(row: pd.Series) -> _Cell:
    """Write `12.3 ± 0.4 (+2.1)†`: mean, spread where there is one, gain where there is one, mark of missing folds."""
    if math.isnan(row["AP"]):
        return _Cell("–", "")
    spread = "" if math.isnan(row["AP_std"]) else f" ± {row['AP_std']:.1f}"
    gain = "" if math.isnan(row["gain"]) else f"({row['gain']:+.1f})".replace("-", "−")
    return _Cell(f"{row['AP']:.1f}{spread}", gain + ("†" if row["folds"] < row["folds_asked"] else ""))


def _caption(title: str, study: Study, results: Results) -> str:
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
    return " ".join(told)


def _footnote(results: Results) -> str:
    missing = int((results.runs["state"] != "done").sum())
    if not missing:
        return ""
    return f"{missing} of {len(results.runs)} runs are missing: – no fold is finished, † some folds are not."


def _aligned(table: _Table, row: _Row) -> list[str]:
    """Pad a row's cells so that values end, and gains begin, in the same column of text."""
    texts = []
    for column, cell in enumerate(row.cells):
        values = max(len(other.cells[column].value) for other in table.rows)
        texts.append(f"{cell.value.rjust(values)} {cell.gain}".rstrip())
    return texts


def _markdown(table: _Table) -> str:
    rows = [[row.network, row.method, *map(str, row.cells)] for row in table.rows]
    notes = [table.footnote] if table.footnote else []
    return Table(table.caption, ["network", "method", *table.percents], rows, 2, notes).markdown()


def _latex(table: _Table, name: str) -> str:
    """Write a table environment; each percent is two columns, so that values end and gains begin on a line."""
    heads = "".join(rf" & \multicolumn{{2}}{{c}}{{{escape(percent)}}}" for percent in table.percents)
    lines = [
        "% Needs \\usepackage{booktabs}",
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{escape(table.caption)}}}",
        rf"\label{{tab:{name}}}",
        rf"\begin{{tabular}}{{ll{'r@{ }l' * len(table.percents)}}}",
        r"\toprule",
        rf"network & method{heads} \\",
        *_latex_rows(table),
        r"\bottomrule",
        r"\end{tabular}",
        *([rf"\par\smallskip\footnotesize {escape(table.footnote)}"] if table.footnote else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_rows(table: _Table) -> list[str]:
    lines, network = [], None
    for row in table.rows:
        if row.network != network:
            lines.append(r"\midrule")
        label = row.network if row.network != network else ""
        values = [part for cell in row.cells for part in (cell.value, cell.gain)]
        lines.append(" & ".join(escape(text) for text in (label, row.method, *values)) + r" \\")
        network = row.network
    return lines
