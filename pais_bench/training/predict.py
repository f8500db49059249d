"""Predict images with a trained network, and evaluate networks while they train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pais_bench import geometry, plugins
from pais_bench.annotations.store import Store
from pais_bench.data import augment
from pais_bench.data.read import read_image
from pais_bench.errors import BenchError
from pais_bench.evaluation.coco.average_precision import evaluate_fast
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.study.base import parse
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.training.checkpoint import read_checkpoint
from pais_bench.types import Instances

Record = dict[str, Any]


def build_backend(run: Run, num_classes: int) -> nn.Module:
    """Build the network of a run; raise BenchError for an option that is unknown or out of range."""
    name = f"{run.network.backend}/{run.network.name}"
    plugin = plugins.load("backends", name)
    options = parse(plugin.Options, run.network.options, f"networks.{run.network.label}.options")
    backend: nn.Module = plugin.Backend(num_classes, options)
    return backend


def load_trained(run: Run, num_classes: int, folder: Path, checkpoint: ModelCheckpoint = "teacher-last") -> nn.Module:
    """Build the network of a run with the weights that its training left in a folder.

    Raises BenchError where they are missing: the best ones are kept only where the study evaluates them.
    """
    backend = build_backend(run, num_classes)
    model, _, moment = checkpoint.partition("-")
    path = folder / ("checkpoint.pt" if moment == "last" else f"best-{model}.pt")
    if moment == "best" and not path.exists():
        raise BenchError(f"{path}: missing; it is kept while training alone: remove the folder and train the run again")
    backend.load_state_dict(read_checkpoint(path, run)[model])
    return backend


@torch.no_grad()
def predict(
    backend: Any,
    run: Run,
    store: Store,
    image_ids: Sequence[int],
    device: torch.device,
    batch: int = 8,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Record]:
    """Predict images at the test scale; return COCO result records in their original pixels.

    progress is called with the number of predicted images after every batch.
    """
    categories = [category_id for category_id, _ in store.categories]
    records: list[Record] = []
    for start in range(0, len(image_ids), batch):
        batch_ids = image_ids[start : start + batch]
        views = [augment.test(read_image(store, image_id), run.input) for image_id in batch_ids]
        detections = backend.predict([view.image.to(device) for view in views])
        for image_id, view, instances in zip(batch_ids, views, detections, strict=True):
            original, _ = geometry.project(instances, torch.linalg.inv(view.matrix), store.size(image_id))
            records.extend(_records(image_id, original, categories))
        progress(start + len(batch_ids))
    return records


class Validation:
    """Evaluate networks on run.training.evaluate_images validation images, evenly spread; None: on all.

    The ground truth is prepared once, which is the larger half of an evaluation.
    """

    def __init__(self, run: Run, store: Store) -> None:
        """Choose the images."""
        self.run, self.store = run, store
        count = run.training.evaluate_images or len(store.image_ids)
        stride = max(1, len(store.image_ids) // count)
        self.image_ids = store.image_ids[::stride][:count]

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """Prepare the ground truth, at the first evaluation."""
        return GroundTruth.of(self.store.coco_dict(), self.image_ids)

    def evaluate(
        self, backend: Any, device: torch.device, progress: Callable[[int], None] = lambda done: None
    ) -> dict[str, Any]:
        """Return AP of a network as fractions 0..1, None where the images have no object."""
        records = predict(backend, self.run, self.store, self.image_ids, device, progress=progress)
        metrics = evaluate_fast(self.ground_truth, records)
        segm, bbox = metrics["segm"], metrics["bbox"]
        return {"segm_AP": segm["AP"], "segm_AP50": segm["AP50"], "bbox_AP": bbox["AP"], "images": len(self.image_ids)}


def _records(image_id: int, instances: Instances, categories: Sequence[int]) -> list[Record]:
    boxes = instances.boxes.tolist()
    return [
        {
            "image_id": image_id,
            "category_id": categories[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
            "segmentation": geometry.encode_mask(mask),
        }
        for (x0, y0, x1, y1), label, score, mask in zip(
            boxes, instances.labels.tolist(), instances.scores.tolist(), instances.masks, strict=True
        )
    ]
