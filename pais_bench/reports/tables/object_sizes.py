"""Tabulate mask AP by the size of the objects, with their numbers."""

from __future__ import annotations

import itertools

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.evaluation.coco.matching import AREAS
from pais_bench.reports.cells import in_cell
from pais_bench.reports.error_analysis import analyses, axes, evaluated
from pais_bench.reports.external_rows import source_notes
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, mean_and_deviation
from pais_bench.study.study import Study

SIZES = [name for name in AREAS if name != "all"]
COLUMNS = {name: f"segm_AP{name[0]}" for name in SIZES}
"""The column of Results.runs by size."""


class Report(TableReport):
    """Write a row per network, percent and method, and a column per size."""

    title = "Mask AP by object size"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return mask AP in percent, mean and s.d. over the finished folds, and the number of objects, where known."""
        done = evaluated(results)
        if done.empty or not set(COLUMNS.values()) <= set(done):
            raise NothingToShow("no finished run has AP by object size")
        store = results.validation(study)
        known = None if store is None else next(analyses(results, store), None)
        rows = []
        for cell in itertools.product(*axes(study, done), SIZES):
            network, percent, method, size = cell
            values = done.loc[in_cell(done, network, method, percent), COLUMNS[size]].astype(float) * 100
            if len(values):
                numbers = {"folds": len(values), "AP": values.mean(), "sd": values.std()}
                objects = float("nan") if known is None else known.content["sizes"][size]
                rows.append(dict(zip(("network", "percent", "method", "size"), cell, strict=True)) | numbers)
                rows[-1]["objects"] = objects
        return pd.DataFrame(rows)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where there is no object of the size."""
        objects = frame.groupby("size")["objects"].first()
        columns = [name if pd.isna(objects[name]) else f"{name} ({objects[name]:.0f})" for name in SIZES]
        rows = [
            [
                str(network),
                f"{percent:g} %",
                str(method),
                *(mean_and_deviation(*cell.loc[name, ["AP", "sd"]]) for name in SIZES),
            ]
            for (network, percent, method), group in frame.groupby(["network", "percent", "method"], sort=False)
            for cell in [group.set_index("size")]
        ]
        caption = (
            f"Mask AP (%) of the {study.printed} on {study.dataset.label} by the area of the objects, mean ± sample "
            "s.d. over the finished folds: small up to 32² pixels, medium up to 96², large above; in parentheses their "
            "number. Evaluator: pycocotools."
        )
        notes = source_notes(results) if frame["method"].str.contains("‡").any() else []
        return Table(caption, ["network", "labels", "method", *columns], rows, 3, notes)
