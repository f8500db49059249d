"""Evaluate predictions with every metric of a study, each number under the name of its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pais_bench import plugins


@cache
def protocols() -> dict[str, str]:
    """Return the printed name of each protocol by its key in metrics.json; COCO's come first."""
    printed: dict[str, str] = {}
    for name in sorted(plugins.names("metrics"), key=lambda name: (name != "coco", name)):
        printed |= plugins.load("metrics", name).PROTOCOLS
    return printed


def evaluate(
    metrics: Sequence[str], ground_truth: dict[str, Any], records: Sequence[dict[str, Any]], root: Path | None = None
) -> dict[str, Any]:
    """Return the numbers of COCO result records by the keys of protocols() and per_class.

    ground_truth is the content of a COCO annotation file, root the folder of the dataset's raw data, where official
    ground truth may lie. Raises BenchError for an unknown metric, and for records that do not fit the ground truth.
    """
    numbers: dict[str, Any] = {}
    for name in metrics:
        metric = plugins.load("metrics", name)
        options = metric.options(root) if hasattr(metric, "options") else {}
        numbers |= metric.evaluate(ground_truth, records, **options)
    return numbers
