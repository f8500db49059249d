"""By which protocols are a study's predictions measured? Each metric of its list, each number under its own name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pais_bench import plugins
from pais_bench.config import Study
from pais_bench.types import BenchError

PROTOCOLS = {
    "segm": "COCO mask AP",
    "bbox": "COCO box AP",
    "boundary": "COCO boundary AP",
    "cityscapes": "cityscapesScripts AP",
}
"""What metrics.json calls a protocol, and what it is called in print."""


def measure(study: Study, truth: dict[str, Any], records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give what every metric of the study says of COCO result records, by the names of PROTOCOLS and per_class.

    truth is the content of a COCO annotation file. Raises BenchError for a metric that measures no predictions.
    """
    found: dict[str, Any] = {}
    for name in study.metrics:
        metric = plugins.load("metrics", name)
        if not hasattr(metric, "evaluate"):
            raise BenchError(f"study '{study.name}': metric '{name}' measures no predictions; take it out of metrics")
        options = metric.options(study.dataset.root) if hasattr(metric, "options") else {}
        found |= metric.evaluate(truth, records, **options)
    return found
