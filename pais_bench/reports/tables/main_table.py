"""Tabulate mask AP by method and percent of labels, with the gain over supervised training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pais_bench.evaluation.significance import MIN_FOLDS
from pais_bench.reports.cells import baseline, bounds, cells, external_cells
from pais_bench.reports.external_rows import external_labels, source_notes
from pais_bench.reports.gains import LEVEL, TEST, gains
from pais_bench.reports.results import Results
from pais_bench.reports.table import (
    Bold,
    Table,
    TableReport,
    escape,
    latex_notes,
    latex_table,
    mean_and_deviation,
    signed,
)
from pais_bench.study.study import Study

FEW_FOLDS = (
    f"Nothing is bold: fewer than {MIN_FOLDS} folds do not tell a method from its trainings. The table significance "
    "has the intervals over images."
)


@dataclass(frozen=True)
class Cell:
    """Hold `12.3 ± 0.4 (+2.1)†`: mean and deviation, gain, the mark of missing folds; a dash without a finished run."""

    value: str
    gain: str = ""
    mark: str = ""
    bold: bool = False

    @property
    def suffix(self) -> str:
        """Return the text behind the value."""
        return (f"({self.gain})" if self.gain else "") + self.mark

    @property
    def text(self) -> str:
        """Return the text of the cell."""
        text = f"{self.value} {self.suffix}".rstrip()
        return Bold(text) if self.bold else text

    def latex(self) -> list[str]:
        """Return value and suffix as LaTeX prints them."""
        parts = [escape(self.value), escape(self.suffix)]
        return [rf"\textbf{{{part}}}" for part in parts] if self.bold else parts


@dataclass(frozen=True)
class MainTable(Table):
    """Hold the cells beside their texts, so that values end, and gains begin, on a vertical line."""

    title: str = ""
    cells: Sequence[Sequence[Cell]] = ()

    def latex(self, label: str) -> str:
        """Return a table environment in which each percent has two columns, of values and of gains."""
        percents = [rf" & \multicolumn{{2}}{{c}}{{{escape(percent)}}}" for percent in self.columns[2:]]
        tabular = [
            rf"\begin{{tabular}}{{ll{'r@{ }l' * len(percents)}}}",
            r"\toprule",
            rf"network & method{''.join(percents)} \\",
            *self._latex_rows(),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        head = [rf"\caption{{{escape(self.caption)}}}", rf"\label{{tab:{label}}}"]
        return latex_table(head, tabular, latex_notes(self.notes))

    def _latex_rows(self) -> list[str]:
        lines, previous = [], None
        for (network, method, *_), row_cells in zip(self.rows, self.cells, strict=True):
            if network != previous:
                lines.append(r"\midrule")
            label = "" if network == previous else network
            values = [part for cell in row_cells for part in cell.latex()]
            lines.append(" & ".join([escape(label), escape(method), *values]) + r" \\")
            previous = network
        return lines

    def plain(self) -> str:
        """Return the table as plain text."""
        widths = [max(len(cell.value) for cell in column) for column in zip(*self.cells, strict=True)]
        rows = [
            [*row[:2], *(f"{c.value.rjust(width)} {c.suffix}".rstrip() for c, width in zip(cells, widths, strict=True))]
            for row, cells in zip(self.rows, self.cells, strict=True)
        ]
        lines = [list(self.columns), *rows]
        sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = ["  ".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)).rstrip() for line in lines]
        texts.insert(1, "─" * max(map(len, texts)))
        return "\n".join([f"{self.title}\n", *texts, *(f"\n{note}" for note in self.notes)])


class Report(TableReport):
    """Write a row per network and method, and a column per percent."""

    title = "Mask AP by percent of labels"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the cells of the study, and below them those of other codebases, whose model is empty."""
        external = external_cells(study, results)
        own = cells(study, results)
        return pd.concat([own, external], ignore_index=True) if len(external) else own

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> MainTable:
        """Return the table; notes count the missing runs, and name the sources of other codebases."""
        numbers = gains(study, results)
        better = numbers[numbers["significant"].astype(bool) & (numbers["gain"] > 0)]
        bold = set(zip(better["network"], better["method"], better["percent"], strict=True))
        external = frame["model"] == ""
        frame = frame.assign(method=frame["method"].mask(external, external_labels(results, frame[external])))
        rows, all_cells = [], []
        for (network, method, _), group in frame.groupby(["network", "method", "family"], sort=False):
            known = {
                row["percent"]: _cell(row, (network, method, row["percent"]) in bold) for _, row in group.iterrows()
            }
            row_cells = [known.get(percent, Cell("–")) for percent in study.split.percents]
            rows.append([str(network), str(method), *(cell.text for cell in row_cells)])
            all_cells.append(row_cells)
        title = f"Mask AP (%) of the {study.printed} on {study.dataset.label}"
        tested = bool((numbers["folds"] >= MIN_FOLDS).any())
        caption = _caption(title, study, results, tested)
        columns = ["network", "method", *(f"{percent:g} %" for percent in study.split.percents)]
        notes = _notes(study, results)
        if (numbers["folds"] > 0).any() and not tested:
            notes.append(FEW_FOLDS)
        return MainTable(caption, columns, rows, 2, notes, title, all_cells)


def _cell(row: pd.Series, bold: bool) -> Cell:
    if pd.isna(row["AP"]):
        return Cell("–")
    gain = "" if pd.isna(row["gain"]) else signed(row["gain"])
    mark = "†" if row["folds"] < row["folds_expected"] else ""
    return Cell(mean_and_deviation(row["AP"], row["AP_std"]), gain, mark, bold)


def _caption(title: str, study: Study, results: Results, tested: bool) -> str:
    images = results.runs["images"].dropna().unique()
    folds = len(study.split.folds)
    noise = f", label noise: {study.split.label_noise.name}" if study.split.label_noise else ""
    sentences = [
        f"{title}{f' ({images[0]:.0f} images)' if len(images) == 1 else ''}, by percent of labelled images.",
        f"Splits: family {study.split.family}, {folds} fold{'s' if folds > 1 else ''}{noise}.",
        "Evaluator: pycocotools, COCO AP at IoU 0.50:0.95, at most 100 detections per image.",
    ]
    if folds > 1:
        sentences.append("Mean ± sample standard deviation over the folds.")
    if baseline(study):
        sentences.append("In parentheses: gain over the supervised run of the same network, percent and fold.")
    for label in bounds(study):
        sentences.append(f"{label} learns the held-out labels of unlabelled images: no method, but the bound of all.")
    if tested:
        sentences.append(f"Bold: better than supervised, p < {LEVEL:g}, from {MIN_FOLDS} folds on ({TEST}).")
    return " ".join(sentences)


def _notes(study: Study, results: Results) -> list[str]:
    notes, missing = [], int((results.runs["state"] != "done").sum())
    if missing:
        marks = "– no fold is finished, † some folds are not."
        notes.append(f"{missing} of {len(results.runs)} runs are missing: {marks}")
    if results.runs.loc[results.runs["state"] == "done", "segm_AP"].isna().any():
        notes.append("– although finished: AP is undefined, as the validation images have no object to find.")
    notes += source_notes(results)
    if others := set(results.external["family"]) - {study.split.family}:
        notes.append(
            f"Split families are mixed: {study.split.family} without ‡, {', '.join(sorted(others))} among ‡. Rows of "
            "different families were trained on different labelled images, so their difference is not that of the "
            "methods alone."
        )
    return notes + [study.note] * bool(study.note)
