"""Tabulate the gains over supervised training with their intervals and p values."""

from __future__ import annotations

import math

import pandas as pd

from pais_bench.evaluation.significance import MIN_FOLDS, SAMPLES
from pais_bench.reports.cells import baseline
from pais_bench.reports.gains import HOLM, LEVEL, gains
from pais_bench.reports.results import Results
from pais_bench.reports.table import Bold, Table, TableReport, interval, p_value, signed
from pais_bench.study.study import Study


class Report(TableReport):
    """Write a row per network, percent and method."""

    title = "Significance of gains over supervised training"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the gains over the folds that have predictions of both methods."""
        return gains(study, results)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where there are too few predictions."""
        columns = ["network", "labels", "method", "folds", "gain", "95 % over images", "p over images"]
        columns += ["95 % over folds and images", "p over folds and images", "detectable"]
        caption = (
            f"Gain in mask AP (points) of the {study.printed} over the supervised run of the same network, percent and "
            f"fold on {study.dataset.label}. Over images: paired bootstrap, {SAMPLES} samples; it covers the choice of "
            "images, with these very trainings. Over folds and images: two-level bootstrap with a t interval; it "
            f"covers other trainings too and rules bold: p < {LEVEL:g}, from {MIN_FOLDS} folds on. Each {HOLM}. "
            "Detectable: the true gain that a paired t test over these folds detects with power 0.8."
        )
        notes = []
        if baseline(study) is None:
            notes.append("The study has no supervised method, so there is no gain.")
        elif frame["gain"].isna().any():
            notes.append("–: no fold has predictions of both methods here, or too few folds.")
        if few := int(frame["folds"].between(1, MIN_FOLDS - 1).sum()):
            notes.append(f"{few} of {len(frame)} rows have fewer than {MIN_FOLDS} folds: none of them is bold.")
        return Table(caption, columns, [_row(row) for _, row in frame.iterrows()], 3, notes)


def _row(row: pd.Series) -> list[str]:
    cell = [row["network"], f"{row['percent']:g} %", row["method"], str(row["folds"])]
    if math.isnan(row["gain"]):
        return [*cell, *["–"] * 6]
    gain = signed(row["gain"])
    images = [interval(row["low_images"], row["high_images"]), p_value(row["p_images_holm"])]
    both = [interval(row["low"], row["high"]), p_value(row["p_holm"])]
    detectable = "–" if math.isnan(row["detectable"]) else f"{row['detectable']:.1f}"
    return [*cell, Bold(gain) if row["significant"] else gain, *images, *both, detectable]
