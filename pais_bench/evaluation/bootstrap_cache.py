"""Compute the AP of predictions on bootstrap samples of the images once, and keep it beside the predictions."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.annotations.store import Store, write_text
from pais_bench.evaluation import significance
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.check import checked_records
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.results_file import named_in_errors, read_records
from pais_bench.evaluation.significance import Floats, Ints

SEED = 0


class BootstrapAP:
    """Return mask AP on bootstrap samples of a subset's images: the same samples for all predictions, so paired."""

    def __init__(self, store: Store) -> None:
        """Keep the subset; its annotations are read at the first computation."""
        self.store = store

    def of(self, predictions: Path) -> Floats:
        """Return AP 0..1 as f64[1+SAMPLES], on the images and on samples of them; NaN where there is no object.

        Read from bootstrap.json beside the predictions, if it belongs to their present content; else computed and
        written there. Raises BenchError for predictions that do not fit the images.
        """
        path = predictions.with_name(predictions.name.replace("predictions", "bootstrap"))
        key = {
            "protocol": "COCO mask AP",
            "predictions": hashlib.sha256(predictions.read_bytes()).hexdigest(),
            "images": self.store.digest,
            "samples": significance.SAMPLES,
            "seed": SEED,
        }
        cached = _read(path)
        if {name: cached.get(name) for name in key} != key:
            cached = {**key, "AP": [None if np.isnan(ap) else ap for ap in self._compute(predictions).tolist()]}
            write_text(path, json.dumps(cached) + "\n")
        return np.array(cached["AP"], dtype=np.float64)

    def _compute(self, predictions: Path) -> Floats:
        records = read_records(predictions)
        with named_in_errors(predictions):
            records = checked_records(self._content, records)
        return bootstrap_ap(match(self._ground_truth, records), self._counts)

    @cached_property
    def _content(self) -> dict[str, Any]:
        return self.store.coco_dict()

    @cached_property
    def _ground_truth(self) -> GroundTruth:
        return GroundTruth.of(self._content)

    @cached_property
    def _counts(self) -> Ints:
        return significance.bootstrap_counts(len(self.store.image_ids), seed=SEED)


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a cache; nothing where it is absent or damaged, as it can be computed again."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content if isinstance(content, dict) and len(content.get("AP", ())) == 1 + significance.SAMPLES else {}
    except (FileNotFoundError, ValueError, TypeError):
        return {}
