"""Predict images with a trained network, and evaluate networks while they train."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.data.loader import evenly_spread
from pais_bench.data.views import load_views
from pais_bench.errors import BenchError
from pais_bench.evaluation.coco.average_precision import evaluate_fast
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.layers.network import Network
from pais_bench.layers.pretrained import weights_unread
from pais_bench.study.base import parse
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.training.checkpoint import read_checkpoint
from pais_bench.training.distributed import gather_to_first
from pais_bench.training.original import to_original
from pais_bench.types import Backend, Instances, Size, View

BATCH_SIZE = 8
"""Images that are padded to one size and predicted together."""

Record = dict[str, Any]
Progress = Callable[[int], None]


def build_backend(run: Run, isthing: Sequence[bool]) -> Network:
    """Build the network of a run for classes of things and of stuff, in the order of labels.

    Raises BenchError for an option that is unknown or out of range.
    """
    name = f"{run.network.backend}/{run.network.name}"
    plugin = plugins.load("backends", name)
    options = parse(plugin.Options, run.network.options, f"networks.{run.network.label}.options")
    arguments = [len(isthing), options]
    if plugins.learns_stuff(name):
        arguments.append(stuff_labels(isthing))
    backend: Network = plugin.Backend(*arguments)
    return backend


def stuff_labels(isthing: Sequence[bool]) -> list[int]:
    """Return the labels of the classes that are stuff."""
    return [label for label, thing in enumerate(isthing) if not thing]


def load_trained(
    run: Run, isthing: Sequence[bool], folder: Path, checkpoint: ModelCheckpoint = "teacher-last"
) -> Network:
    """Build the network of a run with the weights that its training left in a folder.

    Files of pretrained weights need not be there. Raises BenchError where the run's own are missing: the best ones are
    kept only where the study evaluates them.
    """
    with weights_unread():
        backend = build_backend(run, isthing)
    model, _, moment = checkpoint.partition("-")
    path = folder / ("checkpoint.pt" if moment == "last" else f"best-{model}.pt")
    if moment == "best" and not path.exists():
        raise BenchError(f"{path}: missing; it is kept while training alone: remove the folder and train the run again")
    backend.load_state_dict(read_checkpoint(path, run)[model])
    return backend


def predict(
    backend: Backend, run: Run, store: Store, image_ids: Sequence[int], device: torch.device, workers: int = 0
) -> list[Record]:
    """Predict images at the test scale; return COCO result records in their original pixels."""
    batches = predict_batches([backend], run, store, _split_into_batches(image_ids), device, workers)
    return [record for (records,) in batches for record in records]


@torch.no_grad()
def predict_batches(
    networks: Sequence[Backend],
    run: Run,
    store: Store,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    workers: int,
    progress: Progress = lambda done: None,
) -> list[list[list[Record]]]:
    """Return for each batch of image ids, and each network, its COCO result records, as predict does.

    Worker processes read the images, once for all networks. progress is called with the number of predicted images
    after every batch, an empty one too.
    """
    categories = [category_id for category_id, _ in store.categories]
    found: list[list[list[Record]]] = []
    done = 0
    for batch, views in zip(batches, load_views(store, run.input, batches, workers, device), strict=True):
        found.append([_predict_batch(network, batch, views, store, categories) for network in networks])
        done += len(batch)
        progress(done)
    return found


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
        """Return whether one of the images has an object."""
        objects = self.store.objects()
        return bool(np.isin(objects.image_id[~objects.crowd], self.image_ids).any())

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
        batches, world = _split_into_batches(self.image_ids), fabric.world_size
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


def _split_into_batches(image_ids: Sequence[int]) -> list[Sequence[int]]:
    return [image_ids[start : start + BATCH_SIZE] for start in range(0, len(image_ids), BATCH_SIZE)]


def _predict_batch(
    network: Backend, batch: Sequence[int], views: Sequence[View], store: Store, categories: Sequence[int]
) -> list[Record]:
    detections = network.predict([view.image for view in views]) if batch else []
    records: list[Record] = []
    for image_id, view, instances in zip(batch, views, detections, strict=True):
        records += _records(image_id, view, instances, store.size(image_id), categories)
    return records


def _records(image_id: int, view: View, instances: Instances, size: Size, categories: Sequence[int]) -> list[Record]:
    original = to_original(instances, view, size)
    labels, scores = instances.labels.tolist(), instances.scores.tolist()
    return [
        {
            "image_id": image_id,
            "category_id": categories[labels[index]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": scores[index],
            "segmentation": mask,
        }
        for index, (x0, y0, x1, y1), mask in zip(original.kept, original.boxes.tolist(), original.masks, strict=True)
    ]
