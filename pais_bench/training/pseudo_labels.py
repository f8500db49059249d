"""Turn a teacher's detections in weak views into weighted targets of strong views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pais_bench import geometry
from pais_bench.data.loader import BatchDataset
from pais_bench.errors import BenchError
from pais_bench.layers.network import Network
from pais_bench.layers.seeding import seed_sampling
from pais_bench.methods.base import MethodBase
from pais_bench.study.run import Run, Training
from pais_bench.training.method_checks import checked_keep, checked_targets
from pais_bench.training.networks import load_trained
from pais_bench.types import (
    Backend,
    BoxScorer,
    Instances,
    Keep,
    ScoringBackend,
    Size,
    SoftBackend,
    Targets,
    Unlabelled,
)

KEEP, ASSIGN_WEIGHTS = 1, 2
"""Added to the seed of an image for what these hooks draw."""


@torch.no_grad()
def detect(
    method: MethodBase, teacher: Backend, images: Sequence[Unlabelled], pad_to: Size, fabric: Fabric
) -> tuple[list[Instances], list[BoxScorer]]:
    """Return the teacher's detections in weak views that the method keeps, or the held-out labels that it learns.

    Where the method needs them, a scorer of boxes comes with each view, from the same pass of the backbone, or the
    detections have soft masks and class probabilities.
    """
    if method.learns_held_out_labels:
        device = fabric.device  # a batch has them on the CPU, for the log
        return [image.ground_truth.to(device) for image in images if image.ground_truth is not None], []
    views, keep = [image.weak.image for image in images], _seeded_keep(method, images)
    with fabric.autocast():
        if method.needs_box_scorer:
            assert isinstance(teacher, ScoringBackend)  # as require_functions sees to, below too
            return teacher.predict_with_scorers(views, pad_to, keep)
        if method.needs_soft_predictions:
            assert isinstance(teacher, SoftBackend)
            return teacher.predict_soft(views, pad_to, keep), []
        return teacher.predict(views, pad_to, keep), []


def _seeded_keep(method: MethodBase, images: Sequence[Unlabelled]) -> Keep:
    """Return the method's keep, seeded by each image in turn: a network asks it once a view, in their order."""
    keep, order = checked_keep(method), iter(images)

    def seeded(detections: Instances) -> Tensor:
        _seed_hook(detections, next(order, None), KEEP)
        return keep(detections)

    return seeded


def _seed_hook(detections: Instances, image: Unlabelled | None, offset: int = 0) -> None:
    """Seed what a hook draws about an image; the offset keeps its draws apart from those of other hooks."""
    if image is not None and image.seed is not None:
        seed_sampling(detections.scores.device, image.seed + offset)


def progress_at(step: int, training: Training) -> float:
    """Return the share 0..1 of the steps after the burn-in that are done before a step."""
    return max(step - training.burn_in, 0) / max(training.steps - training.burn_in, 1)


@torch.no_grad()
def refine(
    method: MethodBase,
    detections: Sequence[Instances],
    images: Sequence[Unlabelled],
    progress: float,
    fabric: Fabric,
) -> Sequence[Instances]:
    """Return the detections in weak views as the method changes them; what it draws depends on an image's seed alone.

    Boxes of other masks are tight. progress: see MethodBase.refine.
    """
    if not method.refines:
        return detections
    refined = []
    with fabric.autocast():
        for instances, image in zip(detections, images, strict=True):
            _seed_hook(instances, image)
            changed = method.refine(image.weak.image, instances, progress)
            if changed.masks is not instances.masks:
                changed = replace(changed, boxes=geometry.masks_to_boxes(changed.masks).to(instances.boxes))
            refined.append(changed)
    return refined


def merge_stuff(detections: Sequence[Instances], stuff: Sequence[int]) -> Sequence[Instances]:
    """Return the detections of views with at most one instance of each class of stuff, whose labels are given.

    Where there are several, the one with the best score stays, with the union of their masks and the largest mask IoU:
    stuff is one region, of many parts. Soft masks are joined by their largest values. Nothing else changes.
    """
    return [_merge_stuff(one, stuff) for one in detections] if stuff else detections


def _merge_stuff(instances: Instances, stuff: Sequence[int]) -> Instances:
    found, scores = instances.labels.tolist(), instances.scores.tolist()
    several = [[index for index, label in enumerate(found) if label == one] for one in stuff if found.count(one) > 1]
    if not several:
        return instances
    boxes, masks, mask_iou = instances.boxes.clone(), instances.masks.clone(), instances.mask_iou.clone()
    soft = instances.soft_masks and replace(instances.soft_masks, values=instances.soft_masks.values.clone())
    kept = set(range(len(found)))
    for group in several:
        best = max(group, key=scores.__getitem__)
        masks[best] = masks[group].any(0)
        boxes[best], mask_iou[best] = geometry.masks_to_boxes(masks[best][None])[0], mask_iou[group].max()
        if soft is not None:
            soft.values[best] = soft.values[group].amax(0)
        kept -= {*group} - {best}
    merged = replace(instances, boxes=boxes, masks=masks, mask_iou=mask_iou, soft_masks=soft)
    return merged[torch.tensor(sorted(kept), device=masks.device)]


@torch.no_grad()
def assign_weights(
    method: MethodBase,
    detections: Sequence[Instances],
    scorers: Sequence[BoxScorer],
    images: Sequence[Unlabelled],
    fabric: Fabric,
) -> list[Targets]:
    """Return the method's targets in the weak views; what the method draws about an image depends on its seed alone."""
    targets = []
    if not scorers:
        for instances, image in zip(detections, images, strict=True):
            _seed_hook(instances, image, ASSIGN_WEIGHTS)
            targets.append(checked_targets(method, method.assign_weights(instances), image.weak.size))
        return targets
    with fabric.autocast():
        for instances, scorer, image in zip(detections, scorers, images, strict=True):
            _seed_hook(instances, image)
            weighted = method.assign_weights_with_scorer(instances, scorer)
            targets.append(checked_targets(method, weighted, image.weak.size))
    return targets


def project_to_strong_views(targets: Sequence[Targets], images: Sequence[Unlabelled]) -> list[Targets]:
    """Return the targets of weak views in pixels of the strong views."""
    matrices = [image.strong.matrix @ torch.linalg.inv(image.weak.matrix) for image in images]
    return geometry.project_targets(targets, matrices, [image.strong.size for image in images])


def load_pretrained_teacher(run: Run, isthing: Sequence[bool], results: Path, fabric: Fabric) -> Network | None:
    """Return the frozen teacher network of the run that the study names; None where the run has no such teacher."""
    if run.teacher is None:
        return None
    teacher = load_trained(run.teacher, isthing, results / run.teacher.folder, "teacher-last")
    return teacher.to(fabric.device).requires_grad_(False).eval()


def prepare_method(
    method: MethodBase, teacher: Backend | None, class_names: Sequence[str], dataset: BatchDataset, fabric: Fabric
) -> None:
    """Show the method the labels and a pretrained teacher's detections, where it asks for them."""
    if method.calibration_images is None:
        return
    detections: list[Instances] = []
    if teacher is not None and method.calibration_images:
        views = dataset.unlabelled_sample(method.calibration_images)
        with torch.no_grad(), fabric.autocast():
            detections = [_without_masks(teacher.predict([view.image.to(fabric.device)])[0]) for view in views]
    method.prepare(detections, dataset.labels(), class_names)


def _without_masks(instances: Instances) -> Instances:
    """Return instances with masks bool[N,0,0]: those of all images would not fit into the memory of a device."""
    return replace(instances, masks=instances.masks.new_zeros((len(instances), 0, 0)))


def require_functions(run: Run, method: MethodBase, network: Backend) -> None:
    """Raise BenchError where the method needs a function of the network that it does not offer."""
    for needed, offers, what in (
        (method.needs_box_scorer, isinstance(network, ScoringBackend), "a box scorer"),
        (method.needs_soft_predictions, isinstance(network, SoftBackend), "soft predictions"),
    ):
        if needed and not offers:
            name, label = f"{run.network.backend}/{run.network.name}", run.network.label
            raise BenchError(
                f"methods.{run.method.label}: needs a network with {what}, which {name} has not; name the other "
                f"methods in networks.{label}.methods"
            )
