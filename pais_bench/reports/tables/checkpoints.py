"""Compare the checkpoints of a run: teacher and student, after the last step and at their best evaluation."""

from __future__ import annotations

import pandas as pd

from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, mean_and_deviation
from pais_bench.study.study import Study

CELL = ["network", "method", "percent"]


class Report(TableReport):
    """Write a row per cell of the grid and a column per evaluated checkpoint."""

    title = "Mask AP by checkpoint"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return mask AP in percent, mean and sample deviation over the finished folds."""
        percent = results.checkpoints.assign(AP=results.checkpoints["AP"].astype(float) * 100)
        cells = percent.groupby([*CELL, "checkpoint"], sort=False)["AP"]
        return cells.agg(folds="count", AP="mean", AP_std="std").reset_index()

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a cell without a finished fold is a dash."""
        values = frame.set_index([*CELL, "checkpoint"])[["AP", "AP_std"]].T.to_dict("list")
        nothing = [float("nan")] * 2
        rows = [
            [network, method, f"{percent:g} %"]
            + [mean_and_deviation(*values.get((network, method, percent, name), nothing)) for name in study.checkpoints]
            for network, method, percent in study.cells()
        ]
        caption = (
            f"Mask AP (%) on {study.dataset.label} by the checkpoint that predicts, mean ± sample standard deviation "
            f"over the folds. The other tables print {study.checkpoints[0]}."
        )
        notes = []
        if any(name.endswith("best") for name in study.checkpoints):
            notes.append(
                "best: selected by the evaluations during training, which use the images of this table, so it is "
                'optimistically biased; compare it only with other "best" numbers.'
            )
        return Table(caption, ["network", "method", "labels", *study.checkpoints], rows, 3, notes)
