"""Compute the gain of each method over supervised training and its significance, the same numbers for every table."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench.evaluation import significance
from pais_bench.evaluation.bootstrap_cache import BootstrapAP
from pais_bench.reports.cells import baseline, bounds, comparable
from pais_bench.reports.external_rows import MARK
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

LEVEL = 0.05
NUMBERS = ("gain", "low", "high", "p", "low_images", "high_images", "p_images", "sd_folds", "detectable")
COLUMNS = [
    *("network", "percent", "method", "folds", "gain", "low", "high", "p", "p_holm", "significant"),
    *("low_images", "high_images", "p_images", "p_images_holm", "sd_folds", "detectable"),
]
HOLM = "p corrected by Holm over the methods of a network and percent"
TEST = f"two-level bootstrap of folds and images with a t interval, {HOLM}"


def gains(study: Study, results: Results) -> pd.DataFrame:
    """Return COLUMNS in percent 0..100, a row per network, percent and method but supervised and oracle.

    Methods of other codebases follow where network and split family are the study's. Numbers are over the folds that
    have predictions of both methods, NaN where there are none. low, high, p are of the two-level bootstrap, which rules
    what is significant, from MIN_FOLDS folds on; those of _images are of the one over images. Holm corrects over the
    methods of a network and percent, those that are still to be trained among them.
    """
    supervised, store = baseline(study), results.validation(study)
    if supervised is None:
        return pd.DataFrame([], columns=COLUMNS)
    bootstrap, done = None if store is None else BootstrapAP(store), comparable(study, results)
    rows = []
    for network, percent in itertools.product(study.networks, study.split.percents):
        cell = done[(done["network"] == network) & (done["percent"] == percent)]
        paths: dict[str, dict[int, Path]] = {method: {} for method in study.methods_of(network)}
        paths |= _paths(results, cell)
        reference = paths.pop(supervised, {})
        for bound in bounds(study):
            paths.pop(bound, None)
        numbers = {method: _gain(reference, predictions, bootstrap) for method, predictions in paths.items()}
        corrected, on_images = (
            significance.holm([gain[name] for gain in numbers.values()], len(numbers)) for name in ("p", "p_images")
        )
        for (method, gain), p, p_images in zip(numbers.items(), corrected, on_images, strict=True):
            significant = gain["folds"] >= significance.MIN_FOLDS and bool(p < LEVEL)
            test = {"p_holm": p, "p_images_holm": p_images, "significant": significant}
            rows.append({"network": network, "percent": percent, "method": method, **gain, **test})
    return pd.DataFrame(rows, columns=COLUMNS)


def _paths(results: Results, cell: pd.DataFrame) -> dict[str, dict[int, Path]]:
    """Return the paths of the evaluated predictions by method and fold, whether they are present or not.

    cell has the rows of comparable() of a network and percent. The supervised runs of other codebases are left out:
    they are references, as the study's own is.
    """
    paths: dict[str, dict[int, Path]] = {}
    for _, row in cell.iterrows():
        if row["external"] and row["method"].startswith(f"supervised{MARK}"):
            continue
        path = results.external_path if row["external"] else results.path
        paths.setdefault(row["method"], {})[row["fold"]] = path(row["folder"])
    return paths


def _gain(old: dict[int, Path], new: dict[int, Path], bootstrap: BootstrapAP | None) -> dict[str, Any]:
    paths = [(old[fold], new[fold]) for fold in new if fold in old]
    present = [pair for pair in paths if all(path.exists() for path in pair)]
    if bootstrap is None or not present:
        return {"folds": 0, **dict.fromkeys(NUMBERS, math.nan)}
    first, second = ([100 * bootstrap.of(pair[index]) for pair in present] for index in (0, 1))
    both, images = significance.two_level(first, second), significance.difference(first, second)
    folds = significance.over_folds([new_ap[0] - old_ap[0] for old_ap, new_ap in zip(first, second, strict=True)])
    detectable = significance.minimum_detectable(folds.sd, len(present))
    intervals = (both.low, both.high, both.p, images.low, images.high, images.p)
    numbers = (both.value, *intervals, folds.sd, detectable)
    return {"folds": len(present), **dict(zip(NUMBERS, numbers, strict=True))}
