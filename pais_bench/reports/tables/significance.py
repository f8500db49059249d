"""Tabulate the gains over supervised training with their intervals and p values."""

from __future__ import annotations

import math

import pandas as pd

from pais_bench.reports.cells import baseline
from pais_bench.reports.gains import LEVEL, TEST, gains
from pais_bench.reports.results import Results
from pais_bench.reports.table import Bold, Table, TableReport, signed
from pais_bench.study.study import Study


class Report(TableReport):
    """Write a row per network, percent and method."""

    title = "Significance of gains over supervised training"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the gains over the folds that have predictions of both methods."""
        return gains(study, results)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where there are too few predictions."""
        columns = ["network", "labels", "method", "folds", "gain", "95 % interval", "p (Holm)", "detectable"]
        caption = (
            f"Gain in mask AP (points) of the {study.printed} over the supervised run of the same network, percent and "
            f"fold on {study.dataset.label}. Interval and p: {TEST}; bold where p < {LEVEL:g}. Detectable: the true "
            "gain that a paired t test over these folds detects with power 0.8."
        )
        notes = []
        if baseline(study) is None:
            notes.append("The study has no supervised method, so there is no gain.")
        elif frame["gain"].isna().any():
            notes.append("–: no fold has predictions of both methods here, or too few folds.")
        return Table(caption, columns, [_row(row) for _, row in frame.iterrows()], 3, notes)


def _row(row: pd.Series) -> list[str]:
    cell = [row["network"], f"{row['percent']:g} %", row["method"], str(row["folds"])]
    if math.isnan(row["gain"]):
        return [*cell, "–", "–", "–", "–"]
    gain = signed(row["gain"])
    interval = "–" if math.isnan(row["low"]) else f"[{signed(row['low'])}, {signed(row['high'])}]"
    p = "–" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}"
    detectable = "–" if math.isnan(row["detectable"]) else f"{row['detectable']:.1f}"
    return [*cell, Bold(gain) if row["significant"] else gain, interval, p, detectable]
