"""By which protocols are a study's predictions measured? Each metric of its list, each number under its own name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.types import BenchError


@cache
def protocols() -> dict[str, str]:
    """Give what metrics.json calls each protocol of the shelf, and what it is called in print; COCO's come first."""
    shelf = sorted(plugins.names("metrics"), key=lambda name: (name != "coco", name))
    found: dict[str, str] = {}
    for name in shelf:
        found |= getattr(plugins.load("metrics", name), "PROTOCOLS", {})
    return found


def measure(
    metrics: Sequence[str], truth: dict[str, Any], records: Sequence[dict[str, Any]], root: Path | None = None
) -> dict[str, Any]:
    """Give what the metrics say of COCO result records, by the names of protocols() and per_class.

    truth is the content of a COCO annotation file, root the folder of the dataset's raw data, where official truth may
    lie. Raises BenchError for a metric that measures no predictions.
    """
    found: dict[str, Any] = {}
    for name in metrics:
        metric = plugins.load("metrics", name)
        if not hasattr(metric, "evaluate"):
            raise BenchError(f"metrics: '{name}' measures no predictions; take it out of the list")
        options = metric.options(root) if hasattr(metric, "options") else {}
        found |= metric.evaluate(truth, records, **options)
    return found
