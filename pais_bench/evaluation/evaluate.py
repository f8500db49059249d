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


@cache
def protocols() -> dict[str, str]:
    """Return the printed name of each protocol by its key in metrics.json; COCO's come first."""
    printed: dict[str, str] = {}
    for name in sorted(plugins.names("metrics"), key=lambda name: (name != "coco", name)):
        printed |= plugins.load("metrics", name).Metric.protocols
    return printed


def in_percent(fraction: float | None, digits: int = 1) -> str:
    """Return a number 0..1 as text in percent; a dash where it is undefined, None or NaN."""
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def require(metrics: Sequence[str], classes: Sequence[dict[str, Any]] | None = None) -> None:
    """Raise BenchError where a metric cannot be computed here, for want of a package, or for a dataset's classes.

    classes are the categories of a COCO annotation file; None where they are not known yet.
    """
    for name in metrics:
        metric: MetricBase = plugins.load("metrics", name).Metric()
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
        metric: MetricBase = plugins.load("metrics", name).Metric(root)
        if metric.needs_masks and not have_masks(records):
            raise BenchError(f"the results are boxes alone, and metric '{name}' is of masks; leave it out")
        numbers |= metric.evaluate(*((ground_truth, records) if metric.counts_stuff else (things, of_things)))
    return numbers
