"""Turn a teacher's detections in weak views into weighted targets of strong views."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pais_bench import geometry
from pais_bench.data.loader import BatchDataset
from pais_bench.errors import BenchError
from pais_bench.layers.seeding import seed_sampling
from pais_bench.methods.base import MethodBase
from pais_bench.study.run import Run
from pais_bench.training.predict import load_trained
from pais_bench.types import Instances, Size, Targets, Unlabelled


@torch.no_grad()
def detect(teacher: Any, images: Sequence[Tensor], pad_to: Size, fabric: Fabric) -> list[Instances]:
    """Return the teacher's detections in weak views f32[3,h,w]."""
    with fabric.autocast():
        detections: list[Instances] = teacher.predict(images, pad_to)
    return detections


@torch.no_grad()
def assign_weights(
    method: MethodBase,
    teacher: Any,
    images: Sequence[Tensor],
    detections: Sequence[Instances],
    unlabelled: Sequence[Unlabelled],
    pad_to: Size,
    fabric: Fabric,
) -> list[Targets]:
    """Return the method's targets in the weak views; what the method draws about an image depends on its seed alone."""
    if not method.needs_box_scorer:
        return [method.assign_weights(instances) for instances in detections]
    targets = []
    with fabric.autocast():
        for instances, view, image in zip(detections, images, unlabelled, strict=True):
            seed_sampling(view.device, image.seed)
            targets.append(method.assign_weights_with_scorer(instances, TeacherScorer(teacher, view, pad_to)))
    return targets


def project_to_strong_views(targets: Sequence[Targets], images: Sequence[Unlabelled]) -> list[Targets]:
    """Return the targets of weak views in pixels of the strong views."""
    return [
        geometry.project_targets(target, one.strong.matrix @ torch.linalg.inv(one.weak.matrix), one.strong.size)
        for target, one in zip(targets, images, strict=True)
    ]


class TeacherScorer:
    """Score boxes f32[n,4] of one weak view with the teacher's box head, without a gradient."""

    def __init__(self, teacher: Any, image: Tensor, pad_to: Size) -> None:
        self.teacher, self.image, self.pad_to = teacher, image, pad_to

    @torch.no_grad()
    def __call__(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Return class probabilities f32[n,C+1], background first, and refined boxes f32[n,C,4]."""
        scored: tuple[Tensor, Tensor] = self.teacher.score([self.image], [boxes], self.pad_to)[0]
        return scored


def load_pretrained_teacher(
    run: Run, method: MethodBase, num_classes: int, dataset: BatchDataset, results: Path, fabric: Fabric
) -> Any:
    """Return the frozen teacher network of the run that the study names, and fit the method's thresholds to it.

    None where the run has no such teacher.
    """
    if run.teacher is None:
        return None
    teacher: Any = load_trained(run.teacher, num_classes, results / run.teacher.folder, "teacher-last")
    teacher = teacher.to(fabric.device).requires_grad_(False).eval()
    if method.calibration_images:
        views = dataset.unlabelled_sample(method.calibration_images)
        with torch.no_grad(), fabric.autocast():
            detections = [teacher.predict([view.image.to(fabric.device)])[0] for view in views]
        method.fit_thresholds(detections, dataset.labels(), num_classes)
    return teacher


def require_box_scorer(run: Run, method: MethodBase, network: Any) -> None:
    """Raise BenchError where the method needs `score` and the network does not offer it."""
    if method.needs_box_scorer and not callable(getattr(network, "score", None)):
        name = f"{run.network.backend}/{run.network.name}"
        raise BenchError(f"methods.{run.method.label}: needs a network with 'score', which {name} does not have")
