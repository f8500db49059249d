"""What did each cell of the grid, a network x method x percent, reach over its folds?"""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from pais_bench.config import Study
from pais_bench.results import Results

METRICS = {"AP": "segm_AP", "AP50": "segm_AP50", "box_AP": "bbox_AP"}


def baseline(study: Study) -> str | None:
    """Give the label of the method whose plugin is `supervised`, over which a gain is stated."""
    return next((label for label, method in study.methods.items() if (method.name or label) == "supervised"), None)


def cells(study: Study, results: Results) -> pd.DataFrame:
    """Give one row per network, method and percent, in the order of the study; AP and gain in percent 0..100.

    folds counts the finished ones of folds_asked. AP, AP50, box_AP are means over them, AP_std is the sample deviation
    (NaN below two folds). gain is the mean difference to the supervised run of the same network, percent and fold, over
    the folds that have both; NaN for the supervised method itself.
    """
    done = results.runs[results.runs["state"] == "done"]
    grid = itertools.product(study.networks, study.methods, study.split.percents)
    return pd.DataFrame([_cell(study, done, network, method, percent) for network, method, percent in grid])


def _cell(study: Study, done: pd.DataFrame, network: str, method: str, percent: float) -> dict[str, Any]:
    ours = folds(done, network, method, percent)
    supervised = baseline(study)
    paired = (ours["AP"] - folds(done, network, supervised, percent)["AP"]).dropna()
    return {
        "dataset": study.dataset.label,
        "family": study.split.family,
        "model": study.model,
        "backend": study.networks[network].backend,
        "network": network,
        "method": method,
        "percent": percent,
        "folds": len(ours),
        "folds_asked": len(study.split.folds),
        "AP": ours["AP"].mean(),
        "AP_std": ours["AP"].std(),
        "gain": float("nan") if method == supervised else paired.mean(),
        "AP50": ours["AP50"].mean(),
        "box_AP": ours["box_AP"].mean(),
    }


def folds(done: pd.DataFrame, network: str, method: str | None, percent: float) -> pd.DataFrame:
    """Give AP, AP50 and box_AP in percent by fold."""
    chosen = (done["network"] == network) & (done["method"] == method) & (done["percent"] == percent)
    names = {column: name for name, column in METRICS.items()}
    return done[chosen].set_index("fold")[list(names)].rename(columns=names) * 100
