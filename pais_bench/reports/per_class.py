"""Which classes does each method help, and which does it hurt?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._external import named, notes
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table
from pais_bench.results import Results

ROW = ["network", "percent", "class"]


class Report:
    """Write per_class.csv (tidy), per_class.md and per_class.tex: classes by methods."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write mask AP in percent, means over the finished folds; a dash where none is, or no object."""
        others = results.external_classes.assign(method=named(results, results.external_classes))
        frame = pd.concat([one[[*ROW, "method", "AP"]] for one in (results.classes, others) if len(one)] or [others])
        frame = frame.assign(AP=frame["AP"].astype(float) * 100)
        means = frame.groupby([*ROW, "method"], sort=False)["AP"].agg(folds="count", AP="mean").reset_index()
        methods = [*study.methods, *dict.fromkeys(others["method"])]
        table = _table(study, means, methods, notes(results) if len(others) else [])
        return [
            write_csv(folder / "per_class.csv", means),
            *table.write(folder, "per_class", f"{study.name}:classes"),
        ]


def _table(study: Study, means: pd.DataFrame, methods: Sequence[str], told: Sequence[str]) -> Table:
    values = means.set_index([*ROW, "method"])["AP"].to_dict()
    heads = means[ROW].drop_duplicates().itertuples(index=False, name=None)
    rows = [
        [network, f"{percent:g} %", name, *(_text(values.get((network, percent, name, one))) for one in methods)]
        for network, percent, name in heads
    ]
    caption = (
        f"Mask AP (%) of the {study.told} by class on {study.dataset.label}, mean over the finished folds. "
        "Evaluator: pycocotools, COCO AP at IoU 0.50:0.95."
    )
    told = told if rows else ["No run is evaluated yet."]
    return Table(caption, ["network", "labels", "class", *methods], rows, 3, told)


def _text(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"
