"""What did each cell of the grid, a network x method x percent, reach over its folds?"""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

from pais_bench.config import Study
from pais_bench.external import UNKNOWN
from pais_bench.results import Results

COLUMNS = ["network", "method", "percent", "folds", "folds_asked", "AP", "AP_std", "gain", "AP50", "box_AP"]
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
    rows = [_cell(study, done, network, method, percent) for network, method, percent in grid]
    return pd.DataFrame(rows, columns=["dataset", "family", "model", "backend", *COLUMNS])


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
        **_means(ours),
        "gain": float("nan") if method == supervised else paired.mean(),
    }


def external_cells(study: Study, results: Results) -> pd.DataFrame:
    """Give the like of cells for predictions of other codebases, a row per network, method, family and percent.

    The gain is over the supervised rows of the same network, family, percent and fold: the study's own, or external
    ones of the method `supervised`. An unknown family is the same as no other.
    """
    rows = []
    for _, group in results.external.groupby(["network", "method", "family", "percent"], sort=False):
        about = {"dataset": study.dataset.label, "model": "", "backend": ""}
        about |= {name: group[name].iloc[0] for name in ("network", "method", "family", "percent")}
        ours = _in_percent(group[group["state"] == "done"])
        paired = (ours["AP"] - _supervised(study, results, group.iloc[0])["AP"]).dropna()
        gain = float("nan") if about["method"] == "supervised" else paired.mean()
        rows.append({**about, "folds": len(ours), "folds_asked": len(group), **_means(ours), "gain": gain})
    return pd.DataFrame(rows, columns=["dataset", "family", "model", "backend", *COLUMNS])


def _supervised(study: Study, results: Results, row: pd.Series) -> pd.DataFrame:
    family, ours = row["family"], results.runs[results.runs["method"] == baseline(study)]
    if family == study.split.family and (ours["network"] == row["network"]).any():
        found = ours
    else:
        same = (results.external["family"] == family) & (family != UNKNOWN)
        found = results.external[same & (results.external["method"] == "supervised")]
    here = (found["network"] == row["network"]) & (found["percent"] == row["percent"])
    return _in_percent(found[here & (found["state"] == "done")])


def _means(ours: pd.DataFrame) -> dict[str, Any]:
    means = {name: ours[name].mean() for name in METRICS}
    return {**means, "AP_std": ours["AP"].std()}


def _in_percent(done: pd.DataFrame) -> pd.DataFrame:
    """Give AP, AP50 and box_AP in percent by fold."""
    names = {column: name for name, column in METRICS.items()}
    return done.set_index("fold")[list(names)].rename(columns=names).astype(float) * 100


def folds(done: pd.DataFrame, network: str, method: str | None, percent: float) -> pd.DataFrame:
    """Give AP, AP50 and box_AP in percent by fold."""
    chosen = (done["network"] == network) & (done["method"] == method) & (done["percent"] == percent)
    return _in_percent(done[chosen])
