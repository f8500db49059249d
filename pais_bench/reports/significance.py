"""Which gains over supervised training are more than luck? Paired bootstrap over images, corrected by Holm."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._cells import baseline
from pais_bench.reports._gains import LEVEL, TOLD, gains
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import BOLD, Table, signed
from pais_bench.results import Results


class Report:
    """Write significance.csv, significance.md and significance.tex, a row per network, percent and method."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Compare the folds that have predictions of both, the method and supervised; a dash where none has."""
        found = gains(study, results)
        table = _table(study, found)
        return [
            write_csv(folder / "significance.csv", found),
            *table.write(folder, "significance", f"{study.name}:gains"),
        ]


def _table(study: Study, found: pd.DataFrame) -> Table:
    heads = ["network", "labels", "method", "folds", "gain", "95 % interval", "p (Holm)", "detectable"]
    rows = [_row(row) for _, row in found.iterrows()]
    caption = (
        f"Gain in mask AP (points) of the {study.told} over the supervised run of the same network, percent and fold "
        f"on {study.dataset.label}. Interval and p: {TOLD}; bold where p < {LEVEL:g}. Detectable: the true gain that a "
        "paired t test over these folds finds with power 0.8."
    )
    notes = []
    if baseline(study) is None:
        notes.append("The study has no supervised method, so there is no gain.")
    elif np.isnan(found["gain"].astype(float)).any():
        notes.append("–: no fold has predictions of both methods here, or too few folds.")
    return Table(caption, heads, rows, 3, notes)


def _row(row: pd.Series) -> list[str]:
    start = [row["network"], f"{row['percent']:g} %", row["method"], str(row["folds"])]
    if math.isnan(row["gain"]):
        return [*start, "–", "–", "–", "–"]
    gain = signed(row["gain"])
    interval = "–" if math.isnan(row["low"]) else f"[{signed(row['low'])}, {signed(row['high'])}]"
    p = "–" if math.isnan(row["p_holm"]) else f"{row['p_holm']:.3f}"
    detectable = "–" if math.isnan(row["detectable"]) else f"{row['detectable']:.1f}"
    return [*start, f"{BOLD}{gain}{BOLD}" if row["significant"] else gain, interval, p, detectable]
