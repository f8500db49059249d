"""What is the AP of predictions on each draw of the images? Computed once, and kept beside them; imports no torch."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench import plugins, statistics
from pais_bench.result_files import of_file, read_records
from pais_bench.statistics import Floats
from pais_bench.store import Store, write_text

SEED = 0


class Draws:
    """Give mask AP on draws of a part's images, the same draws for all predictions, so that differences are paired."""

    def __init__(self, store: Store) -> None:
        """Keep the part; its records are read where something has to be computed."""
        self.store = store

    def of(self, predictions: Path) -> Floats:
        """Give AP as fractions f64[1+DRAWS], on the images and on draws of them; NaN where there is no object.

        Read from bootstrap.json beside the predictions, if it was made of this very content; else computed and written
        there. Raises BenchError for predictions that do not fit the images.
        """
        path = predictions.with_name(predictions.name.replace("predictions", "bootstrap"))
        key = {
            "protocol": "COCO mask AP",
            "predictions": hashlib.sha256(predictions.read_bytes()).hexdigest(),
            "images": self.store.digest,
            "draws": statistics.DRAWS,
            "seed": SEED,
        }
        known = _read(path)
        if {name: known.get(name) for name in key} != key:
            drawn = self._drawn(predictions)
            known = {**key, "AP": [None if np.isnan(ap) else ap for ap in drawn.tolist()]}
            write_text(path, json.dumps(known) + "\n")
        return np.array(known["AP"], dtype=np.float64)

    def _drawn(self, predictions: Path) -> Floats:
        coco, records = plugins.load("metrics", "coco"), read_records(predictions)
        with of_file(predictions):
            coco.check(self._truth, records)
        drawn: Floats = coco.bootstrap_ap(coco.match(self._truth, records), self._counts)
        return drawn

    @cached_property
    def _truth(self) -> dict[str, Any]:
        return self.store.coco_dict()

    @cached_property
    def _counts(self) -> Any:
        return statistics.draw(len(self.store.image_ids), seed=SEED)


def _read(path: Path) -> dict[str, Any]:
    """Give what was kept; nothing where it is absent or torn, as it can be computed again."""
    try:
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) and len(content.get("AP", ())) == 1 + statistics.DRAWS else {}
    except (FileNotFoundError, ValueError, TypeError):
        return {}
