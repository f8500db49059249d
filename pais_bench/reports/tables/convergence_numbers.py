"""Tabulate how fast the methods of a study train: steps to 90 % of supervised's final AP, and mean AP over training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pais_bench.errors import NothingToShow
from pais_bench.evaluation import significance
from pais_bench.evaluation.significance import Floats
from pais_bench.reports.cells import baseline
from pais_bench.reports.external_rows import NO_LOG
from pais_bench.reports.results import Results
from pais_bench.reports.table import Table, TableReport, interval, signed
from pais_bench.reports.teachers import teacher_note
from pais_bench.study.study import Study

FRACTION = 0.9
EXACT, AT_FIRST, NEVER = "", "≤", ">"
"""What a number of steps is: interpolated; an upper bound, as the first evaluation had the AP; a lower bound."""

Curve = tuple[Floats, Floats]
"""Steps and AP 0..100 of the evaluations of one training, at rising steps."""


class Report(TableReport):
    """Write a row per network, percent and method."""

    title = "Convergence in numbers"

    def frame(self, study: Study, results: Results) -> pd.DataFrame:
        """Return means over the trained folds, and mean differences to supervised over the folds that have both.

        steps is over the folds_with_target folds in which supervised has an AP above 0, evaluated on as many images. It
        is NaN where it is a bound in any: then bound says which, bound_folds in how many, bound_step the largest.
        steps_difference is NaN where any of both methods' steps is a bound. AP is in percent 0..100.
        Raises NothingToShow where no trained run has two evaluations.
        """
        curves, supervised = _curves(study, results), baseline(study)
        if not any(curves.values()):
            raise NothingToShow("no trained run has two evaluations in its log")
        rows = []
        for network, percent in itertools.product(study.networks, study.split.percents):
            for method in study.methods_of(network):
                header = {"network": network, "percent": percent, "method": method}
                own, references = curves.get((network, percent, method), {}), {}
                if (
                    supervised is not None
                    and len({_images(study, network, name) for name in (method, supervised)}) == 1
                ):
                    references = curves.get((network, percent, supervised), {})
                compared = {} if method == supervised else references
                rows.append({**header, "folds": len(own), **_steps(own, references, compared), **_area(own, compared)})
        return pd.DataFrame(rows)

    def table(self, study: Study, results: Results, frame: pd.DataFrame) -> Table:
        """Return the table; a dash where a number does not exist."""
        columns = ["network", "labels", "method", "folds", f"steps to {100 * FRACTION:g} %", "difference"]
        columns += ["mean AP", "difference in AP"]
        caption = (
            f"Convergence of the {study.report.model} on {study.dataset.label}, from the evaluations in the logs. "
            f"Steps to {100 * FRACTION:g} % of the mask AP that supervised of the same network, percent and fold has "
            "at its last evaluation, interpolated linearly between evaluations. Mean AP (%): area under the curve of "
            "mask AP over steps, from the first evaluation to the last, divided by these steps. Means over the trained "
            "folds; differences to supervised paired by fold, with 95 % t intervals."
        )
        notes = []
        if frame["bound"].ne(EXACT).any():
            notes.append(
                "Bounds are not averaged and have no difference: > the AP was not reached in so many steps, ≤ the "
                "first evaluation had it already."
            )
        if baseline(study) is None:
            notes.append("The study has no supervised method, so there are no steps and no differences.")
        if missing := int((frame["folds"] < len(study.split.folds)).sum()):
            notes.append(f"{missing} of {len(frame)} cells lack folds.")
        if len(results.external):
            notes.append(f"{NO_LOG}.")
        if note := teacher_note(study):
            notes.append(note)
        return Table(caption, columns, [_row(row) for row in frame.to_dict("records")], 3, notes)


def steps_to(curve: Curve, target: float) -> tuple[float, str]:
    """Return the step at which a curve first has an AP of target, and whether it is EXACT or a bound.

    Linear between evaluations. AT_FIRST: the first evaluation, which has it already | NEVER: the last, which all are
    below.
    """
    steps, ap = curve
    reached = np.flatnonzero(ap >= target)
    if not len(reached):
        return float(steps[-1]), NEVER
    last = int(reached[0])
    if last == 0:
        return float(steps[0]), AT_FIRST
    pair = slice(last - 1, last + 1)
    return float(np.interp(target, ap[pair], steps[pair])), EXACT


def mean_ap(curve: Curve) -> float:
    """Return the area under a curve divided by its steps, by the trapezoidal rule from its first to its last step."""
    steps, ap = curve
    return float(((ap[1:] + ap[:-1]) / 2 * np.diff(steps)).sum() / (steps[-1] - steps[0]))


def _images(study: Study, network: str, method: str) -> int | None:
    """Return on how many images a method is evaluated while training, None for all."""
    training = {**study.networks[network].training, **study.methods[method].training}
    images: int | None = training.get("evaluate_images", study.training.evaluate_images)
    return images


def _curves(study: Study, results: Results) -> dict[tuple[str, float, str], dict[int, Curve]]:
    """Return the curves of the trained runs by network, percent and method, then by fold."""
    trained = results.runs[results.runs["state"].isin(("done", "trained"))]
    points = results.curves[results.curves["model"] == study.report.model].dropna(subset=["AP"])
    by_run = {digest: group.sort_values("step") for digest, group in points.groupby("digest", sort=False)}
    curves: dict[tuple[str, float, str], dict[int, Curve]] = {}
    for _, run in trained.iterrows():
        curve = by_run.get(run["digest"])
        if curve is not None and len(curve) > 1:
            steps, ap = curve["step"].to_numpy(dtype=np.float64), 100 * curve["AP"].to_numpy(dtype=np.float64)
            curves.setdefault((run["network"], run["percent"], run["method"]), {})[run["fold"]] = (steps, ap)
    return curves


def _steps(own: Mapping[int, Curve], references: Mapping[int, Curve], compared: Mapping[int, Curve]) -> dict[str, Any]:
    """Return the steps to the target, which is of references, and their difference to those of compared."""
    targets = {fold: FRACTION * float(ap[-1]) for fold, (_, ap) in references.items() if ap[-1] > 0}
    folds = [fold for fold in own if fold in targets]
    found = {fold: steps_to(own[fold], targets[fold]) for fold in folds}
    before = {fold: steps_to(compared[fold], targets[fold]) for fold in folds if fold in compared}
    bounds = [bound for _, bound in found.values()]
    bound = next((bound for bound in (NEVER, AT_FIRST) if bound in bounds), EXACT)
    all_exact = {*bounds, *(bound for _, bound in before.values())} == {EXACT}
    return {
        "folds_with_target": len(folds),
        "steps": significance.over_folds([step for step, _ in found.values()] if bound == EXACT else []).mean,
        "bound": bound,
        "bound_folds": 0 if bound == EXACT else bounds.count(bound),
        "bound_step": max((step for step, kind in found.values() if kind == bound != EXACT), default=math.nan),
        **_difference("steps", [found[fold][0] - before[fold][0] for fold in before] if all_exact else []),
    }


def _area(own: Mapping[int, Curve], compared: Mapping[int, Curve]) -> dict[str, Any]:
    """Return the mean AP over training, and its difference over the folds whose curves begin and end together."""
    areas = significance.over_folds([mean_ap(curve) for curve in own.values()])
    pairs = [(curve, compared[fold]) for fold, curve in own.items() if fold in compared]
    differences = [
        mean_ap(new) - mean_ap(old) for new, old in pairs if np.array_equal(new[0][[0, -1]], old[0][[0, -1]])
    ]
    return {"mean_AP": areas.mean, "mean_AP_std": areas.sd, **_difference("mean_AP", differences)}


def _difference(name: str, differences: list[float]) -> dict[str, float]:
    over_folds = significance.over_folds(differences)
    return {f"{name}_difference": over_folds.mean, f"{name}_low": over_folds.low, f"{name}_high": over_folds.high}


def _row(row: Mapping[Any, Any]) -> list[str]:
    mean = "–" if math.isnan(row["mean_AP"]) else f"{row['mean_AP']:.1f}"
    return [
        *(row["network"], f"{row['percent']:g} %", row["method"], str(row["folds"]), _steps_text(row)),
        *(_difference_text(row, "steps", 0), mean, _difference_text(row, "mean_AP", 1)),
    ]


def _steps_text(row: Mapping[Any, Any]) -> str:
    folds, bounded = row["folds_with_target"], row["bound_folds"]
    if not bounded:
        return f"{row['steps']:.0f}" if folds else "–"
    return f"{row['bound']} {row['bound_step']:.0f}" + (f" in {bounded} of {folds} folds" if folds > 1 else "")


def _difference_text(row: Mapping[Any, Any], name: str, digits: int) -> str:
    difference = row[f"{name}_difference"]
    if math.isnan(difference):
        return "–"
    bounds = interval(row[f"{name}_low"], row[f"{name}_high"], digits)
    return signed(difference, digits) + ("" if bounds == "–" else f" {bounds}")
