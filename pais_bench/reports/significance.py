"""Which gains over supervised training are more than luck? Paired bootstrap over images, corrected by Holm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pais_bench import plugins, statistics
from pais_bench.config import Study
from pais_bench.reports._cells import baseline
from pais_bench.reports._style import write_csv
from pais_bench.reports._table import BOLD, Table, signed
from pais_bench.results import Results

LEVEL = 0.05
COLUMNS = [
    *("network", "percent", "method", "folds", "gain", "low", "high", "p", "p_holm", "significant"),
    *("sd_folds", "detectable"),
]


class Report:
    """Write significance.csv, significance.md and significance.tex, a row per network, percent and method."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Compare the folds that have predictions of both, the method and supervised; a dash where none has."""
        gains = _gains(study, results)
        table = _table(study, gains)
        return [
            write_csv(folder / "significance.csv", gains),
            *table.write(folder, "significance", f"{study.name}:gains"),
        ]


class _Draws:
    """Give AP in percent of a run's predictions, f64[1+B], on the data and on the same draws of its images."""

    def __init__(self, study: Study, results: Results) -> None:
        self.results, self.truth = results, results.truth(study)
        self.counts = None if self.truth is None else statistics.draw(len(self.truth["images"]))
        self.known: dict[str, Any] = {}

    def of(self, folder: str) -> Any:
        if folder not in self.known:
            records = self.results.predictions(folder)
            self.known[folder] = None
            if records is not None and self.truth is not None and self.counts is not None:
                coco = plugins.load("metrics", "coco")
                self.known[folder] = 100 * coco.bootstrap_ap(coco.match(self.truth, records), self.counts)
        return self.known[folder]


def _gains(study: Study, results: Results) -> pd.DataFrame:
    """Give COLUMNS in percent; Holm corrects over the methods of a network and percent."""
    supervised, draws = baseline(study), _Draws(study, results)
    rows = []
    for network in study.networks:
        for percent in study.split.percents:
            here = results.runs[(results.runs["network"] == network) & (results.runs["percent"] == percent)]
            methods = [method for method in study.methods if supervised is not None and method != supervised]
            cells = [_gain(here, draws, method, str(supervised)) for method in methods]
            corrected = statistics.holm([cell["p"] for cell in cells])
            for method, cell, p in zip(methods, cells, corrected, strict=True):
                more = {"p_holm": p, "significant": bool(p < LEVEL)}
                rows.append({"network": network, "percent": percent, "method": method, **cell, **more})
            draws.known.clear()
    return pd.DataFrame(rows, columns=COLUMNS)


def _gain(runs: pd.DataFrame, draws: _Draws, method: str, supervised: str) -> dict[str, Any]:
    done = runs[runs["state"] == "done"]
    sides = [done[done["method"] == name].set_index("fold")["folder"] for name in (supervised, method)]
    shared = [fold for fold in sides[1].index if fold in sides[0].index]
    pairs = [(draws.of(sides[0][fold]), draws.of(sides[1][fold])) for fold in shared]
    pairs = [(old, new) for old, new in pairs if old is not None and new is not None]
    if not pairs:
        return {"folds": 0, **dict.fromkeys(("gain", "low", "high", "p", "sd_folds", "detectable"), math.nan)}
    found = statistics.difference([old for old, _ in pairs], [new for _, new in pairs])
    folds = statistics.over_folds([new[0] - old[0] for old, new in pairs])
    return {
        **{"folds": len(pairs), "gain": found.value, "low": found.low, "high": found.high, "p": found.p},
        **{"sd_folds": folds.sd, "detectable": statistics.minimum_detectable(folds.sd, len(pairs))},
    }


def _table(study: Study, gains: pd.DataFrame) -> Table:
    heads = ["network", "labels", "method", "folds", "gain", "95 % interval", "p (Holm)", "detectable"]
    rows = [_row(row) for _, row in gains.iterrows()]
    caption = (
        f"Gain in mask AP (points) of the {study.model} over the supervised run of the same network, percent and fold "
        f"on {study.dataset.label}. Interval and p: paired bootstrap over images, {statistics.DRAWS} draws; p "
        f"corrected by Holm over the methods of a network and percent; bold where p < {LEVEL:g}. Detectable: the true "
        "gain that a paired t test over these folds finds with power 0.8."
    )
    notes = []
    if baseline(study) is None:
        notes.append("The study has no supervised method, so there is no gain.")
    elif np.isnan(gains["gain"].astype(float)).any():
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
