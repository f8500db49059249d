"""Evaluate predictions with every metric of a study, each number under the name of its protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.annotations.panoptic import is_thing, things_alone
from pais_bench.errors import BenchError
from pais_bench.evaluation.coco.check import checked_records, have_masks
from pais_bench.evaluation.metrics.base import MetricBase
from pais_bench.optional_packages import MissingPackage


@cache
def protocols(needed: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the printed name of each protocol by its key in metrics.json; COCO's come first.

    A metric of which a package is not installed has none here. Raises BenchError where that metric is needed, and where
    two protocols cannot be told apart.
    """
    printed: dict[str, str] = {}
    metric_of: dict[str, str] = {}
    for name in sorted(plugins.names("metrics"), key=lambda name: (name != "coco", name)):
        try:
            own = _load(name).protocols
        except MissingPackage:
            if name in needed:
                raise
            continue
        for key, label in own.items():
            for other, metric in metric_of.items():
                # Columns of a table are named KEY_NUMBER.
                if f"{key}_".startswith(f"{other}_") or f"{other}_".startswith(f"{key}_") or label == printed[other]:
                    raise BenchError(
                        f"metrics/{name}.py: its protocol '{key}' ({label}) is not told from '{other}' "
                        f"({printed[other]}) of metrics/{metric}.py; give it another key and name"
                    )
            printed[key], metric_of[key] = label, name
    return printed


def in_percent(fraction: float | None, digits: int = 1) -> str:
    """Return a number 0..1 as text in percent; a dash where it is undefined, None or NaN."""
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def require(metrics: Sequence[str], classes: Sequence[dict[str, Any]] | None = None) -> None:
    """Raise BenchError where a metric cannot be computed here, for want of a package, or for a dataset's classes.

    classes are the categories of a COCO annotation file; None where they are not known yet.
    """
    for name in metrics:
        metric: MetricBase = _load(name)()
        things = None if classes is None else [category for category in classes if is_thing(category)]
        metric.require(classes if metric.counts_stuff else things)


def evaluate(
    metrics: Sequence[str], ground_truth: dict[str, Any], records: Sequence[dict[str, Any]], root: Path | None = None
) -> dict[str, Any]:
    """Return the numbers of COCO result records by the keys of protocols() and per_class.

    ground_truth is the content of a COCO annotation file, root the folder of the dataset's raw data, where official
    ground truth may lie. Records are checked and their masks encoded here; those of boxes alone have box AP alone. AP
    is of things alone, PQ of stuff too. Raises BenchError for an unknown metric, for records that do not fit the ground
    truth, and for a metric of masks where there are none.
    """
    numbers: dict[str, Any] = {}
    records = checked_records(ground_truth, records)
    things = things_alone(ground_truth)
    classes = {category["id"] for category in things["categories"]}
    of_things = [record for record in records if record["category_id"] in classes]
    for name in metrics:
        metric: MetricBase = _load(name)(root)
        if metric.needs_masks and not have_masks(records):
            raise BenchError(f"the results are boxes alone, and metric '{name}' is of masks; leave it out")
        found = metric.evaluate(*((ground_truth, records) if metric.counts_stuff else (things, of_things)))
        numbers |= _checked(name, metric, found)
    return numbers


def _load(name: str) -> type[MetricBase]:
    metric: type[MetricBase] = plugins.load("metrics", name).Metric
    if not getattr(metric, "protocols", None):
        raise BenchError(f"metrics/{name}.py: Metric has no protocols; set the printed name of each by its key")
    return metric


def _checked(name: str, metric: MetricBase, numbers: object) -> dict[str, Any]:
    """Return what a metric's evaluate gave; raise BenchError where a table would leave it out, or cannot show it."""
    place = f"metrics/{name}.py: evaluate returned"
    if not isinstance(numbers, dict):
        raise BenchError(f"{place} {type(numbers).__name__}; give a mapping of numbers by the key of each protocol")
    known = {*metric.protocols, *(f"{key}_per_class" for key in metric.protocols)}
    known |= {"per_class"} if name == "coco" else set()
    for key, values in numbers.items():
        if key not in known:
            raise BenchError(f"{place} '{key}', which protocols does not name; known: {', '.join(metric.protocols)}")
        if not isinstance(values, dict):
            raise BenchError(f"{place} {type(values).__name__} for '{key}'; give a mapping of numbers by their names")
        for number, value in values.items():
            if value is not None and not (isinstance(value, (int, float)) and 0 <= value <= 1 + 1e-6):
                raise BenchError(f"{place} {value!r} as {number} of '{key}'; give a number 0..1, None where undefined")
    return numbers
