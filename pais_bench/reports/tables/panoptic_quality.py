"""Tabulate panoptic quality per class and method, and its means over things, stuff and all classes."""

from __future__ import annotations

import itertools

import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.reports.cells import PANOPTIC_MEANS
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, mean_and_deviation
from pais_bench.study.study import Study

ROW = ["network", "percent", "class"]


class Report(TableReport):
    """Write a row per network, percent and mean or class, and a column per method."""

    title = "Panoptic quality"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return PQ in percent, mean and s.d. over the finished folds; raise NothingToShow where none is measured."""
        runs = results.runs[results.runs["state"] == "done"]
        present = [
            runs.rename(columns={column: "PQ"}).assign(**{"class": name})
            for column, name in PANOPTIC_MEANS.items()
            if column in runs
        ]
        if not present:
            raise NothingToShow("the study does not measure panoptic quality; add 'panoptic' to its metrics")
        rows = pd.concat([frame[[*ROW, "method", "PQ"]] for frame in (*present, results.panoptic_classes)])
        rows = rows.assign(PQ=rows["PQ"].astype(float) * 100)
        grouped = rows.groupby([*ROW, "method"], sort=False)["PQ"]
        return grouped.agg(folds="count", PQ="mean", sd="std").reset_index()

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where no fold is finished, or neither truth nor predictions have the class."""
        values = frame.set_index([*ROW, "method"])[["PQ", "sd"]].apply(tuple, axis=1).to_dict()
        names, nan = list(dict.fromkeys(frame["class"])), (float("nan"), float("nan"))
        cells = itertools.product(study.networks, study.split.percents, names)
        rows = [
            [network, f"{percent:g} %", name, *(mean_and_deviation(*values.get(key, nan)) for key in keys)]
            for network, percent, name in cells
            for keys in [[(network, percent, name, method) for method in study.methods]]
            if not values.keys().isdisjoint(keys)
        ]
        caption = (
            f"Panoptic quality (%) of the {study.printed} on {study.dataset.label}, mean ± sample s.d. over the "
            "finished folds. Evaluator: cityscapesscripts, on maps merged from the predicted instances."
        )
        return Table(caption, ["network", "labels", "class", *study.methods], rows, 3)
