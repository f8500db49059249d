"""Turn a teacher's detections in weak views into weighted targets of strong views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from pais_bench.types import BoxScorer, Instances, Size, Targets, Unlabelled


@torch.no_grad()
def detect(
    method: MethodBase, teacher: Any, images: Sequence[Tensor], pad_to: Size, fabric: Fabric
) -> tuple[list[Instances], list[BoxScorer]]:
    """Return the teacher's detections in weak views f32[3,h,w] that the method keeps.

    Where the method needs them, a scorer of boxes comes with each view, from the same pass of the backbone.
    """
    with fabric.autocast():
        if method.needs_box_scorer:
            detections, scorers = teacher.predict_with_scorers(images, pad_to, method.keep)
            return detections, scorers
        return teacher.predict(images, pad_to, method.keep), []


@torch.no_grad()
def assign_weights(
    method: MethodBase,
    detections: Sequence[Instances],
    scorers: Sequence[BoxScorer],
    images: Sequence[Unlabelled],
    fabric: Fabric,
) -> list[Targets]:
    """Return the method's targets in the weak views; what the method draws about an image depends on its seed alone."""
    if not scorers:
        return [method.assign_weights(instances) for instances in detections]
    targets = []
    with fabric.autocast():
        for instances, scorer, image in zip(detections, scorers, images, strict=True):
            seed_sampling(instances.scores.device, image.seed)
            targets.append(method.assign_weights_with_scorer(instances, scorer))
    return targets


def project_to_strong_views(targets: Sequence[Targets], images: Sequence[Unlabelled]) -> list[Targets]:
    """Return the targets of weak views in pixels of the strong views."""
    matrices = [image.strong.matrix @ torch.linalg.inv(image.weak.matrix) for image in images]
    return geometry.project_targets(targets, matrices, [image.strong.size for image in images])


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
            detections = [_without_masks(teacher.predict([view.image.to(fabric.device)])[0]) for view in views]
        method.fit_thresholds(detections, dataset.labels(), num_classes)
    return teacher


def _without_masks(instances: Instances) -> Instances:
    """Return instances with masks bool[N,0,0]: those of all images would not fit into the memory of a device."""
    return replace(instances, masks=instances.masks.new_zeros((len(instances), 0, 0)))


def require_box_scorer(run: Run, method: MethodBase, network: Any) -> None:
    """Raise BenchError where the method needs `predict_with_scorers` and the network does not offer it."""
    if method.needs_box_scorer and not callable(getattr(network, "predict_with_scorers", None)):
        name = f"{run.network.backend}/{run.network.name}"
        raise BenchError(f"methods.{run.method.label}: needs a network with a box scorer, which {name} has not")
