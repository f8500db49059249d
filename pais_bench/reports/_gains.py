"""By how much does each method beat supervised training, and is it more than luck? The same numbers for every table."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench import statistics
from pais_bench.config import Study
from pais_bench.draws import Draws
from pais_bench.reports._cells import baseline
from pais_bench.reports._external import named
from pais_bench.results import Results

LEVEL = 0.05
COLUMNS = [
    *("network", "percent", "method", "folds", "gain", "low", "high", "p", "p_holm", "significant"),
    *("sd_folds", "detectable"),
]
TOLD = (
    f"paired bootstrap over images, {statistics.DRAWS} draws, p corrected by Holm over the methods of a network and "
    "percent"
)


def gains(study: Study, results: Results) -> pd.DataFrame:
    """Give COLUMNS in percent 0..100, a row per network, percent and method but the supervised one.

    Methods of other codebases follow where network and split family are the study's. Folds that have predictions of
    both count; NaN where none has. Holm corrects over the methods of a network and percent.
    """
    supervised, store = baseline(study), results.validation(study)
    if supervised is None:
        return pd.DataFrame([], columns=COLUMNS)
    draws = None if store is None else Draws(store)
    rows = []
    for network, percent in itertools.product(study.networks, study.split.percents):
        paths = _paths(study, results, network, percent)
        found = {method: _gain(paths[supervised], new, draws) for method, new in paths.items() if method != supervised}
        corrected = statistics.holm([one["p"] for one in found.values()])
        for (method, one), p in zip(found.items(), corrected, strict=True):
            more = {"p_holm": p, "significant": bool(p < LEVEL)}
            rows.append({"network": network, "percent": percent, "method": method, **one, **more})
    return pd.DataFrame(rows, columns=COLUMNS)


def _paths(study: Study, results: Results, network: str, percent: float) -> dict[str, dict[int, Path]]:
    """Give by method and fold where the evaluated predictions lie, whether they are there or not."""
    found: dict[str, dict[int, Path]] = {method: {} for method in study.methods}
    same = results.external[results.external["family"] == study.split.family]
    same = same.assign(method=named(results, same))
    for frame, path in ((results.runs, results.path), (same, results.external_path)):
        here = frame[(frame["network"] == network) & (frame["percent"] == percent)]
        for _, row in here[here["state"] == "done"].iterrows():
            found.setdefault(row["method"], {})[row["fold"]] = path(row["folder"])
    return found


def _gain(old: dict[int, Path], new: dict[int, Path], draws: Draws | None) -> dict[str, Any]:
    paths = [(old[fold], new[fold]) for fold in new if fold in old]
    pairs = [[100 * draws.of(path) for path in pair] for pair in paths if draws and all(one.exists() for one in pair)]
    if not pairs:
        return {"folds": 0, **dict.fromkeys(("gain", "low", "high", "p", "sd_folds", "detectable"), math.nan)}
    found = statistics.difference([one for one, _ in pairs], [two for _, two in pairs])
    folds = statistics.over_folds([two[0] - one[0] for one, two in pairs])
    return {
        **{"folds": len(pairs), "gain": found.value, "low": found.low, "high": found.high, "p": found.p},
        **{"sd_folds": folds.sd, "detectable": statistics.minimum_detectable(folds.sd, len(pairs))},
    }
