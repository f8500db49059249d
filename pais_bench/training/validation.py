"""Evaluate networks on validation images while they train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from pais_bench.annotations.store import Store
from pais_bench.data.loader import evenly_spread
from pais_bench.evaluation.coco.average_precision import evaluate_fast
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.study.run import Run
from pais_bench.training.distributed import gather_to_first
from pais_bench.training.predict import Progress, Record, predict_batches, split_into_batches
from pais_bench.types import Backend


class Validation:
    """Evaluate networks on run.training.evaluate_images validation images, evenly spread; None: on all.

    The ground truth is prepared once, which is the larger half of an evaluation.
    """

    def __init__(self, run: Run, store: Store) -> None:
        """Choose the images."""
        self.run, self.store = run, store
        count = run.training.evaluate_images or len(store.image_ids)
        self.image_ids = [store.image_ids[index] for index in evenly_spread(len(store.image_ids), count)]

    @property
    def has_objects(self) -> bool:
        """Return whether one of the images has an object that AP counts: a thing that is no crowd region."""
        objects = self.store.objects()
        counted = ~objects.crowd & np.isin(objects.category_id, self.store.thing_ids)
        return bool(np.isin(objects.image_id[counted], self.image_ids).any())

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """Prepare the ground truth, at the first evaluation."""
        return GroundTruth.of(self.store.coco_dict(), self.image_ids)

    def evaluate(
        self, networks: Mapping[str, Backend], fabric: Fabric, workers: int = 0, progress: Progress = lambda done: None
    ) -> dict[str, dict[str, Any]]:
        """Return AP of each network as fractions 0..1, None where the images have no object; on other ranks nothing.

        Collective; see predict.
        """
        found = self.predict(list(networks.values()), fabric, workers, progress)
        return {name: self._score(records) for name, records in zip(networks, found, strict=True)} if found else {}

    def predict(
        self, networks: Sequence[Backend], fabric: Fabric, workers: int = 0, progress: Progress = lambda done: None
    ) -> list[list[Record]]:
        """Return the records of each network on the first rank, nothing on the others.

        Collective: ranks share the batches, whole ones, because what is padded together decides the last digits, and
        all call progress equally often.
        """
        batches, world = split_into_batches(self.image_ids), fabric.world_size
        share = batches[fabric.global_rank :: world]
        share += [()] * (math.ceil(len(batches) / world) - len(share))
        shares = gather_to_first(
            predict_batches(networks, self.run, self.store, share, fabric.device, workers, progress)
        )
        if shares is None:
            return []
        in_order = [shares[batch % world][batch // world] for batch in range(len(batches))]
        return [[record for found in in_order for record in found[index]] for index in range(len(networks))]

    def _score(self, records: Sequence[Record]) -> dict[str, Any]:
        metrics = evaluate_fast(self.ground_truth, records)
        segm, bbox = metrics["segm"], metrics["bbox"]
        return {"segm_AP": segm["AP"], "segm_AP50": segm["AP50"], "bbox_AP": bbox["AP"], "images": len(self.image_ids)}
