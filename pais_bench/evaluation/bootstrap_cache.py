"""Compute the AP of predictions on bootstrap samples of the images once, and keep it beside the predictions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.evaluation import significance
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.results_cache import ResultsCache
from pais_bench.evaluation.significance import Floats, Ints

SEED = 0


class BootstrapAP(ResultsCache):
    """Return mask AP on bootstrap samples of a subset's images: the same samples for all predictions, so paired."""

    stem = "bootstrap"
    key = {"protocol": "COCO mask AP", "samples": significance.SAMPLES, "seed": SEED}

    def of(self, predictions: Path) -> Floats:
        """Return AP 0..1 as f64[1+SAMPLES], on the images and on samples of them; NaN where there is no object.

        Kept in bootstrap.json. Raises BenchError for predictions that do not fit the images.
        """
        return np.array(self.content(predictions)["AP"], dtype=np.float64)

    def compute(self, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the key AP, with None in place of NaN."""
        values = bootstrap_ap(match(self.ground_truth, records), self._counts)
        return {"AP": [None if np.isnan(ap) else ap for ap in values.tolist()]}

    def is_whole(self, content: dict[str, Any]) -> bool:
        """Return whether there is an AP for every sample."""
        return len(content.get("AP", ())) == 1 + significance.SAMPLES

    @cached_property
    def _counts(self) -> Ints:
        return significance.bootstrap_counts(len(self.store.image_ids), seed=SEED)
