"""Compute the gain of each method over supervised training and its significance, the same numbers for every table."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench.evaluation import significance
from pais_bench.evaluation.bootstrap_cache import BootstrapAP
from pais_bench.reports.cells import baseline
from pais_bench.reports.external_rows import external_labels
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

LEVEL = 0.05
NUMBERS = ("gain", "low", "high", "p", "sd_folds", "detectable")
COLUMNS = [
    *("network", "percent", "method", "folds", "gain", "low", "high", "p", "p_holm", "significant"),
    *("sd_folds", "detectable"),
]
TEST = (
    f"paired bootstrap over images, {significance.SAMPLES} samples, p corrected by Holm over the methods of a network "
    "and percent"
)


def gains(study: Study, results: Results) -> pd.DataFrame:
    """Return COLUMNS in percent 0..100, a row per network, percent and method but the supervised one.

    Methods of other codebases follow where network and split family are the study's. Numbers are over the folds that
    have predictions of both methods, NaN where there are none. Holm corrects over the methods of a network and percent.
    """
    supervised, store = baseline(study), results.validation(study)
    if supervised is None:
        return pd.DataFrame([], columns=COLUMNS)
    bootstrap = None if store is None else BootstrapAP(store)
    rows = []
    for network, percent in itertools.product(study.networks, study.split.percents):
        paths = _paths(study, results, network, percent)
        reference = paths.pop(supervised)
        numbers = {method: _gain(reference, predictions, bootstrap) for method, predictions in paths.items()}
        corrected = significance.holm([gain["p"] for gain in numbers.values()])
        for (method, gain), p in zip(numbers.items(), corrected, strict=True):
            test = {"p_holm": p, "significant": bool(p < LEVEL)}
            rows.append({"network": network, "percent": percent, "method": method, **gain, **test})
    return pd.DataFrame(rows, columns=COLUMNS)


def _paths(study: Study, results: Results, network: str, percent: float) -> dict[str, dict[int, Path]]:
    """Return the paths of the evaluated predictions by method and fold, whether they are present or not."""
    paths: dict[str, dict[int, Path]] = {method: {} for method in study.methods}
    external = results.external[results.external["family"] == study.split.family]
    external = external.assign(method=external_labels(results, external))
    for frame, path in ((results.runs, results.path), (external, results.external_path)):
        done = (frame["network"] == network) & (frame["percent"] == percent) & (frame["state"] == "done")
        for _, row in frame[done].iterrows():
            paths.setdefault(row["method"], {})[row["fold"]] = path(row["folder"])
    return paths


def _gain(old: dict[int, Path], new: dict[int, Path], bootstrap: BootstrapAP | None) -> dict[str, Any]:
    paths = [(old[fold], new[fold]) for fold in new if fold in old]
    present = [pair for pair in paths if all(path.exists() for path in pair)]
    if bootstrap is None or not present:
        return {"folds": 0, **dict.fromkeys(NUMBERS, math.nan)}
    first, second = ([100 * bootstrap.of(pair[index]) for pair in present] for index in (0, 1))
    difference = significance.difference(first, second)
    folds = significance.over_folds([new_ap[0] - old_ap[0] for old_ap, new_ap in zip(first, second, strict=True)])
    detectable = significance.minimum_detectable(folds.sd, len(present))
    numbers = (difference.value, difference.low, difference.high, difference.p, folds.sd, detectable)
    return {"folds": len(present), **dict(zip(NUMBERS, numbers, strict=True))}
