"""What does a trained network see? Checkpoint -> COCO result records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pais_bench import augment, geometry, plugins
from pais_bench.checkpoint import read_checkpoint
from pais_bench.config import Run, Weights, parse
from pais_bench.data import read_stored
from pais_bench.store import Store
from pais_bench.types import BenchError, Instances

Record = dict[str, Any]


def build_backend(run: Run, classes: int) -> nn.Module:
    """Build the network of a run; raise BenchError for an option that is unknown or out of range."""
    name = f"{run.network.backend}/{run.network.name}"
    plugin = plugins.load("backends", name)
    options = parse(plugin.Options, run.network.options, f"networks.{run.network.label}.options")
    backend: nn.Module = plugin.Backend(classes, options)
    return backend


def load_trained(run: Run, classes: int, folder: Path, weights: Weights = "teacher-last") -> nn.Module:
    """Build the network of a run with weights that its training left in a folder.

    Raises BenchError where they are not there: the best ones are kept only where the study asked for them.
    """
    backend = build_backend(run, classes)
    model, _, moment = weights.partition("-")
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
    """Predict images at the test scale and give COCO results in their original pixels."""
    categories = [number for number, _ in store.categories]
    records: list[Record] = []
    for start in range(0, len(image_ids), batch):
        chosen = image_ids[start : start + batch]
        views = [augment.test(read_stored(store, image_id), run.views) for image_id in chosen]
        found = backend.predict([view.image.to(device) for view in views])
        for image_id, view, instances in zip(chosen, views, found, strict=True):
            original, _ = geometry.project(instances, torch.linalg.inv(view.matrix), store.size(image_id))
            records.extend(_records(image_id, original, categories))
        progress(start + len(chosen))
    return records


class Validation:
    """Measure networks on run.training.evaluate_images validation images, evenly spread; None: on all.

    Their truth is prepared once, which is the larger half of an evaluation.
    """

    def __init__(self, run: Run, store: Store) -> None:
        """Choose the images."""
        self.run, self.store = run, store
        wanted = run.training.evaluate_images or len(store.image_ids)
        stride = max(1, len(store.image_ids) // wanted)
        self.image_ids = store.image_ids[::stride][:wanted]

    @cached_property
    def truth(self) -> Any:
        """Prepare the truth, at the first evaluation."""
        return plugins.load("metrics", "coco").Truth.of(self.store.coco_dict(), self.image_ids)

    def measure(
        self, backend: Any, device: torch.device, progress: Callable[[int], None] = lambda done: None
    ) -> dict[str, Any]:
        """Give AP of a network as fractions 0..1, None where the images have no object."""
        records = predict(backend, self.run, self.store, self.image_ids, device, progress=progress)
        found = plugins.load("metrics", "coco").evaluate_fast(self.truth, records)
        segm, bbox = found["segm"], found["bbox"]
        return {"segm_AP": segm["AP"], "segm_AP50": segm["AP50"], "bbox_AP": bbox["AP"], "images": len(self.image_ids)}


def _records(image_id: int, instances: Instances, categories: Sequence[int]) -> list[Record]:
    boxes = instances.boxes.tolist()
    return [
        {
            "image_id": image_id,
            "category_id": categories[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": score,
            "segmentation": geometry.encode(mask),
        }
        for (x0, y0, x1, y1), label, score, mask in zip(
            boxes, instances.labels.tolist(), instances.scores.tolist(), instances.masks, strict=True
        )
    ]
