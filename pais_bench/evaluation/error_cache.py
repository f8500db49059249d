"""Analyse the errors of predictions once, and keep the analysis beside the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pais_bench.evaluation.coco.errors import BACKGROUND, KINDS, RIGHT, analyse
from pais_bench.evaluation.results_cache import ResultsCache


class ErrorAnalysis(ResultsCache):
    """Return what coco/errors.py tells of predictions on a subset's images; kept in errors.json."""

    stem = "errors"
    key = {"protocol": f"TIDE of COCO masks, IoU {RIGHT:g} and {BACKGROUND:g}"}

    def compute(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the analysis of checked records."""
        return analyse(self.ground_truth, records)

    def is_whole(self, content: dict[str, Any]) -> bool:
        """Return whether there is the gain of every kind, and a count for every image."""
        counts = content["by_image"] if isinstance(content.get("by_image"), dict) else {}
        return set(content.get("dAP", ())) == set(KINDS) and all(
            len(counts.get(name, ())) == len(self.store.image_ids) for name in ("id", "objects", "found", "false")
        )
