"""Average the results of each cell of the grid, a network x method x percent, over its folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pandas as pd

from pais_bench.reports.external import UNKNOWN
from pais_bench.reports.external_rows import external_labels
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

COLUMNS = [
    *("dataset", "family", "model", "backend", "network", "method", "percent", "folds", "folds_expected"),
    *("AP", "AP_std", "gain", "AP50", "box_AP"),
]
METRICS = {"AP": "segm_AP", "AP50": "segm_AP50", "box_AP": "bbox_AP"}
PANOPTIC_MEANS = {"panoptic_PQ": "all classes", "panoptic_PQth": "things", "panoptic_PQst": "stuff"}
"""What each mean of panoptic quality is over, by the column of Results.runs."""


def baseline(study: Study) -> str | None:
    """Return the label of the method whose plugin is `supervised`, over which gains are stated."""
    return next(iter(_labels(study, "supervised")), None)


def bounds(study: Study) -> list[str]:
    """Return the labels of the methods whose plugin is `oracle`: they learn held-out labels, and compete with none."""
    return _labels(study, "oracle")


def _labels(study: Study, plugin: str) -> list[str]:
    return [label for label, method in study.methods.items() if method.name == plugin]


def cells(study: Study, results: Results) -> pd.DataFrame:
    """Return one row per network, method and percent, in the order of the study; AP and gain in percent 0..100.

    folds counts the finished ones of folds_expected. AP, AP50, box_AP are means over them, AP_std is the sample
    deviation (NaN below two folds). gain is the mean difference to the supervised run of the same network, percent and
    fold, over the folds that have both; NaN for the supervised method itself.
    """
    done = results.runs[results.runs["state"] == "done"]
    metrics, keys = _by_fold(done), [done[name].to_numpy() for name in ("network", "method", "percent")]
    groups = list(metrics.groupby(keys, sort=False))
    by_cell: defaultdict[Any, pd.DataFrame] = defaultdict(lambda: metrics[:0], groups)
    return pd.DataFrame([_cell(study, by_cell, *cell) for cell in study.cells()], columns=COLUMNS)


def _cell(
    study: Study, by_cell: Mapping[Any, pd.DataFrame], network: str, method: str, percent: float
) -> dict[str, Any]:
    """Return the row of a cell; by_cell is AP, AP50 and box_AP in percent by fold, of each cell."""
    by_fold, supervised = by_cell[network, method, percent], baseline(study)
    gains = (by_fold["AP"] - by_cell[network, supervised, percent]["AP"]).dropna()
    return {
        "dataset": study.dataset.label,
        "family": study.split.family,
        "model": study.report.model,
        "backend": study.networks[network].backend,
        "network": network,
        "method": method,
        "percent": percent,
        "folds": len(by_fold),
        "folds_expected": len(study.split.folds),
        **_means(by_fold),
        "gain": float("nan") if method == supervised else gains.mean(),
    }


def external_cells(study: Study, results: Results) -> pd.DataFrame:
    """Return rows as cells() does for predictions of other codebases, one per network, method, family and percent.

    model and backend are empty. The gain is over the supervised rows of the same network, family, percent and fold: the
    study's own, or external ones of the method `supervised`; NaN where the family is unknown.
    """
    rows = []
    for _, group in results.external.groupby(["network", "method", "family", "percent"], sort=False):
        header = {"dataset": study.dataset.label, "model": "", "backend": ""}
        header |= {name: group[name].iloc[0] for name in ("network", "method", "family", "percent")}
        by_fold = _by_fold(group[group["state"] == "done"])
        gains = (by_fold["AP"] - _supervised(study, results, group.iloc[0])["AP"]).dropna()
        gain = float("nan") if header["method"] == "supervised" else gains.mean()
        folds = {"folds": len(by_fold), "folds_expected": len(group)}
        rows.append({**header, **folds, **_means(by_fold), "gain": gain})
    return pd.DataFrame(rows, columns=COLUMNS)


def comparable(study: Study, results: Results) -> pd.DataFrame:
    """Return the finished runs, and the evaluated predictions of other codebases on the study's split family.

    The latter follow under their labels; the column external tells them apart.
    """
    external = results.external[results.external["family"] == study.split.family]
    external = external.assign(method=external_labels(results, external), external=True)
    runs = results.runs.assign(external=False)
    both = pd.concat([runs, external], ignore_index=True) if len(external) else runs
    return both[both["state"] == "done"]


def _supervised(study: Study, results: Results, row: pd.Series) -> pd.DataFrame:
    family, own = row["family"], results.runs[results.runs["method"] == baseline(study)]
    if family == study.split.family and (own["network"] == row["network"]).any():
        runs = own
    else:
        same_family = (results.external["family"] == family) & (family != UNKNOWN)
        runs = results.external[same_family & (results.external["method"] == "supervised")]
    same_cell = (runs["network"] == row["network"]) & (runs["percent"] == row["percent"])
    return _by_fold(runs[same_cell & (runs["state"] == "done")])


def _means(by_fold: pd.DataFrame) -> dict[str, Any]:
    return {**{name: by_fold[name].mean() for name in METRICS}, "AP_std": by_fold["AP"].std()}


def _by_fold(done: pd.DataFrame) -> pd.DataFrame:
    names = {column: name for name, column in METRICS.items()}
    return done.set_index("fold")[list(names)].rename(columns=names).astype(float) * 100


def fold_metrics(done: pd.DataFrame, network: str, method: str, percent: float) -> pd.DataFrame:
    """Return AP, AP50 and box_AP of a cell in percent, by fold."""
    # A frame of runs has a column per number of every evaluator, and a selection copies each.
    return _by_fold(done[["fold", *METRICS.values()]][in_cell(done, network, method, percent)])


def in_cell(frame: pd.DataFrame, network: str, method: str, percent: float) -> pd.Series:
    """Return which rows belong to a cell."""
    return (frame["network"] == network) & (frame["method"] == method) & (frame["percent"] == percent)
