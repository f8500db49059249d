"""What does a teacher say of a batch? It sees the weak views, the method weighs, and the strong views inherit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pais_bench import geometry, inference, shares
from pais_bench.config import Run, Weights
from pais_bench.data import Stream
from pais_bench.types import Batch, BenchError, Method, Score, Targets


@torch.no_grad()
def pseudo_label(method: Method, teacher: Any, batch: Batch, seeds: Sequence[int], fabric: Fabric) -> list[Targets]:
    """Ask the teacher for the weak views, and the method for the worth of what it says.

    What the method draws about an image follows from the image's seed.
    """
    weigh_scored = getattr(method, "weigh_scored", None)
    with fabric.autocast():
        images = [one.weak.image.to(fabric.device) for one in batch.unlabelled]
        seen = teacher.predict(images)
        if weigh_scored is None:
            return [method.weigh(instances) for instances in seen]
        pseudo = []
        for found, image, seed in zip(seen, images, seeds, strict=True):
            shares.seed_draws(image.device, seed)
            pseudo.append(weigh_scored(found, _asking(teacher, image)))
        return pseudo


def project(batch: Batch, pseudo: Sequence[Targets]) -> list[Targets]:
    """Take the targets of the weak views into the strong ones."""
    return [
        geometry.project_targets(targets, one.strong.matrix @ torch.linalg.inv(one.weak.matrix), one.strong.size)
        for one, targets in zip(batch.unlabelled, pseudo, strict=True)
    ]


def trained_teacher(run: Run, method: Method, classes: int, stream: Stream, results: Path, fabric: Fabric) -> Any:
    """Load the network of the run that is to be the teacher, and let the method set its thresholds by it."""
    if run.teacher is None:
        return None
    weights: Weights = "teacher-last" if run.teacher.model == "teacher" else "student-last"
    guide: Any = inference.load_trained(run.teacher, classes, results / run.teacher.folder, weights)
    guide = guide.to(fabric.device).requires_grad_(False).eval()
    if hasattr(method, "calibrate"):
        seen = stream.unlabelled_sample(method.calibration_images)  # type: ignore[attr-defined]
        with torch.no_grad(), fabric.autocast():
            found = [guide.predict([view.image.to(fabric.device)])[0] for view in seen]
        method.calibrate(found, stream.labels(), classes)
    return guide


def check_verbs(run: Run, method: Method, network: Any) -> None:
    """Raise BenchError where the method asks for a verb that the network does not have."""
    if hasattr(method, "weigh_scored") and not hasattr(network, "score"):
        name = f"{run.network.backend}/{run.network.name}"
        raise BenchError(f"methods.{run.method.label}: needs the verb 'score', which {name} does not have")


def _asking(teacher: Any, image: Tensor) -> Score:
    """Give the verb `score` of one image, without a gradient; the image is always padded as it is padded now."""
    size = shares.padded_size([image], 1)

    @torch.no_grad()
    def score(boxes: Tensor) -> tuple[Tensor, Tensor]:
        with shares.canvas(size):
            found: tuple[Tensor, Tensor] = teacher.score([image], [boxes])[0]
        return found

    return score
