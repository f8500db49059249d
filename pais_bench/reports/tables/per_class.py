"""Tabulate mask AP per class and method."""

from __future__ import annotations

import pandas as pd

from pais_bench.reports.external_rows import external_labels, source_notes
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, mean_and_deviation
from pais_bench.study.study import Study

ROW = ["network", "percent", "class"]


class Report(TableReport):
    """Write a row per network, percent and class, and a column per method."""

    title = "Mask AP per class"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return mask AP in percent, means over the finished folds."""
        external = _external(results)
        present = [classes for classes in (results.classes, external) if len(classes)] or [external]
        classes = pd.concat([frame[[*ROW, "method", "AP"]] for frame in present])
        classes = classes.assign(AP=classes["AP"].astype(float) * 100)
        return classes.groupby([*ROW, "method"], sort=False)["AP"].agg(folds="count", AP="mean").reset_index()

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where no fold is finished, or the class has no object."""
        external = _external(results)
        methods = [*study.methods, *dict.fromkeys(external["method"])]
        values = frame.set_index([*ROW, "method"])["AP"].to_dict()
        nan = float("nan")
        rows = [
            [network, f"{percent:g} %", name]
            + [mean_and_deviation(values.get((network, percent, name, method), nan), nan) for method in methods]
            for network, percent, name in frame[ROW].drop_duplicates().itertuples(index=False, name=None)
        ]
        caption = (
            f"Mask AP (%) of the {study.printed} by class on {study.dataset.label}, mean over the finished folds. "
            "Evaluator: pycocotools, COCO AP at IoU 0.50:0.95."
        )
        notes = source_notes(results) if len(external) else []
        notes = notes if rows else ["No run is evaluated yet."]
        return Table(caption, ["network", "labels", "class", *methods], rows, 3, notes)


def _external(results: Results) -> pd.DataFrame:
    return results.external_classes.assign(method=external_labels(results, results.external_classes))
