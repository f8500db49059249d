"""Tabulate mask AP per class and method."""

from __future__ import annotations

from collections import Counter

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
        """Return mask AP in percent, means over the finished folds, and the number of objects; NaN where not known."""
        external = _external(results)
        present = [classes for classes in (results.classes, external) if len(classes)] or [external]
        classes = pd.concat([frame[[*ROW, "method", "AP"]] for frame in present])
        classes = classes.assign(AP=classes["AP"].astype(float) * 100)
        means = classes.groupby([*ROW, "method"], sort=False)["AP"].agg(folds="count", AP="mean").reset_index()
        return means.assign(objects=means["class"].map(_objects(study, results)).astype(float))

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where no fold is finished, or the class has no object."""
        external = _external(results)
        methods = [*study.methods, *dict.fromkeys(external["method"])]
        values = frame.set_index([*ROW, "method"])["AP"].to_dict()
        nan = float("nan")
        objects = _objects(study, results)
        rows = [
            [network, f"{percent:g} %", name, *([str(objects.get(name, 0))] if objects else [])]
            + [mean_and_deviation(values.get((network, percent, name, method), nan), nan) for method in methods]
            for network, percent, name in frame[ROW].drop_duplicates().itertuples(index=False, name=None)
        ]
        caption = (
            f"Mask AP (%) of the {study.printed} by class on {study.dataset.label}, mean over the finished folds. "
            "Evaluator: pycocotools, COCO AP at IoU 0.50:0.95."
        )
        notes = source_notes(results) if len(external) else []
        notes = notes if rows else ["No run is evaluated yet."]
        head = ["network", "labels", "class", *(["objects"] if objects else [])]
        return Table(caption, [*head, *methods], rows, 3, notes)


def _objects(study: Study, results: Results) -> dict[str, int]:
    """Return the number of objects of each class, crowd regions left out; nothing where the dataset is not here."""
    store = results.validation(study)
    if store is None:
        return {}
    objects, names = store.objects(), dict(store.categories)
    counts = Counter(objects.category_id[~objects.crowd].tolist())
    return {names[number]: count for number, count in counts.items()}


def _external(results: Results) -> pd.DataFrame:
    return results.external_classes.assign(method=external_labels(results, results.external_classes))
