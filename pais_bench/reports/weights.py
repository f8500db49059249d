"""Which network of a run should be reported: teacher or student, after the last step or at its best evaluation?"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import Table
from pais_bench.results import Results

CELL = ["network", "method", "percent"]


class Report:
    """Write weights.csv (tidy), weights.md and weights.tex: a row per cell, a column per weights of the study."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write mask AP in percent, mean and sample deviation over the finished folds; a dash where none is."""
        frame = results.weights.assign(AP=results.weights["AP"].astype(float) * 100)
        cells = frame.groupby([*CELL, "weights"], sort=False)["AP"].agg(folds="count", AP="mean", AP_std="std")
        table = _table(study, cells.reset_index())
        return [
            write_csv(folder / "weights.csv", cells.reset_index()),
            *table.write(folder, "weights", f"{study.name}:weights"),
        ]


def _table(study: Study, cells: pd.DataFrame) -> Table:
    values = cells.set_index([*CELL, "weights"])[["AP", "AP_std"]].T.to_dict("list")
    rows = [
        [
            network,
            method,
            f"{percent:g} %",
            *(_text(values.get((network, method, percent, one))) for one in study.weights),
        ]
        for network, chosen in study.networks.items()
        for method in chosen.methods or study.methods
        for percent in study.split.percents
    ]
    caption = (
        f"Mask AP (%) on {study.dataset.label} by the weights that predict, mean ± sample standard deviation over the "
        f"folds. The other tables print {study.weights[0]}."
    )
    notes = []
    if any(one.endswith("best") for one in study.weights):
        notes.append(
            "best: chosen by the evaluations while training, which are on the images of this table; it flatters, and "
            "may be compared with best alone."
        )
    return Table(caption, ["network", "method", "labels", *study.weights], rows, 3, notes)


def _text(found: list[float] | None) -> str:
    if found is None or math.isnan(found[0]):
        return "–"
    return f"{found[0]:.1f}" + ("" if math.isnan(found[1]) else f" ± {found[1]:.1f}")
