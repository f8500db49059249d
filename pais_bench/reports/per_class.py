"""Which classes does each method help, and which does it hurt?"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table
from pais_bench.results import Results

ROW = ["network", "percent", "class"]


class Report:
    """Write per_class.csv (tidy), per_class.md and per_class.tex: classes by methods."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write mask AP in percent, means over the finished folds; a dash where none is, or no object."""
        frame = results.classes.assign(AP=results.classes["AP"].astype(float) * 100)
        means = frame.groupby([*ROW, "method"], sort=False)["AP"].agg(folds="count", AP="mean").reset_index()
        return [
            write_csv(folder / "per_class.csv", means),
            *_table(study, means).write(folder, "per_class", f"{study.name}:classes"),
        ]


def _table(study: Study, means: pd.DataFrame) -> Table:
    values = means.set_index([*ROW, "method"])["AP"].to_dict()
    heads = means[ROW].drop_duplicates().itertuples(index=False, name=None)
    rows = [
        [network, f"{percent:g} %", name, *(_text(values.get((network, percent, name, one))) for one in study.methods)]
        for network, percent, name in heads
    ]
    caption = (
        f"Mask AP (%) of the {study.told} by class on {study.dataset.label}, mean over the finished folds. "
        "Evaluator: pycocotools, COCO AP at IoU 0.50:0.95."
    )
    notes = [] if rows else ["No run is evaluated yet."]
    return Table(caption, ["network", "labels", "class", *study.methods], rows, 3, notes)


def _text(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1f}"
