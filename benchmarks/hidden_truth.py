"""Train a method with the hidden labels in the place of one part of its pseudo-labels: which fault of them costs what.

    python benchmarks/hidden_truth.py chicken_parts --percent 10 --fold 1 --network mask_rcnn \
        --method pais --part classes --part missed

A pseudo-label stands for the object that its mask overlaps best, by half or more; each object is taken once, by the
highest score. Parts: classes and masks (with boxes) of pseudo-labels that stand for an object become its own; mask_iou
gives the method, which filters by the predicted one, the true IoU to weight by; false leaves out those that stand for
none; missed adds the objects that none stands for, at weight 1; unseen gives regions
on such objects, which are taught as background, no class loss; recall leaves out the images of which fewer than half of
the objects are found. Without a part the method is as it is.
--proposal-background sets the weight of unmatched anchors of unlabelled images apart from that of regions, for methods
whose background is not 1. Prints mask AP and AP50 of the teacher after the last step, on all validation images, as
tables of the study have them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torchvision.ops import box_iou

from pais_bench.backends.torchvision import _weighted_rpn
from pais_bench.cli import context, prepared
from pais_bench.training import step
from pais_bench.training.trainer import Trainer
from pais_bench.training.validation import Validation
from pais_bench.types import Instances, Targets, Unlabelled

PARTS = ("classes", "masks", "mask_iou", "false", "missed", "unseen", "recall")


def main() -> None:
    """Train one run and print its last evaluation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    context.add_run(parser)
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="may be given several times")
    parser.add_argument("--proposal-background", type=float, help="of torchvision/mask_rcnn (default: the method's)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    context.quieten_fabric()
    study, results = context.read_study(arguments), arguments.results
    run, stores = context.find_run(study, arguments), prepared.open_stores(study, results)
    split = context.read_checked_split(run.dataset, run.split, results, stores["train"])
    changes = sorted(arguments.part)
    if (weight := arguments.proposal_background) is not None:
        changes.append(f"proposals {weight:g}")
        _weighted_rpn.boxless_background = lambda background: background if background == 1 else weight
    folder = results / "hidden_truth" / ("+".join(changes) or "none") / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    put_hidden_labels(arguments.part)
    fabric = Fabric(accelerator="auto", devices=1, precision=run.training.precision)
    trainer = Trainer(run, stores, split, folder, fabric, results, burn_in=prepared.find_burn_in(study, run, results))
    trainer.dataset.held_out_labels = True
    trainer.fit()
    whole = run.model_copy(update={"training": run.training.model_copy(update={"evaluate_images": None})})
    with fabric.autocast():
        last = Validation(whole, stores["val"]).evaluate({"teacher": trainer.models.teacher}, fabric)["teacher"]
    name = f"{run.dataset} {run.split.stem} {run.method.label} {'+'.join(changes) or 'as it is'}"
    print(f"{name}: {100 * last['segm_AP']:.1f} / {100 * last['segm_AP50']:.1f}", flush=True)


def put_hidden_labels(parts: Sequence[str]) -> None:
    """Put parts of the hidden labels in the place of those of pseudo-labels, in every step."""
    assign = step.assign_weights

    def with_truth(
        method: Any, detections: Any, scorers: Any, images: Sequence[Unlabelled], fabric: Fabric
    ) -> list[Targets]:
        truths = [image.ground_truth and image.ground_truth.to(fabric.device) for image in images]
        if "mask_iou" in parts:
            detections = [with_true_iou(one, truth) for one, truth in zip(detections, truths, strict=True)]
        targets = assign(method, detections, scorers, images, fabric)
        return [put(one, truth, parts) if truth else one for one, truth in zip(targets, truths, strict=True)]

    step.assign_weights = with_truth  # type: ignore[assignment]


def put(targets: Targets, truth: Instances, parts: Sequence[str]) -> Targets:
    """Return targets of one view with parts of the truth, in pixels of the same view."""
    instances = targets.instances
    of, missed = stand_for(instances, truth)
    matched = of >= 0
    if "recall" in parts and len(missed) > int(matched.sum()):
        return replace(select(targets, torch.zeros_like(matched)), background=0.0)
    taken = truth[of.clamp(min=0)] if len(truth) else instances
    if "classes" in parts:
        instances = replace(instances, labels=torch.where(matched, taken.labels, instances.labels))
    if "masks" in parts:
        masks = torch.where(matched[:, None, None], taken.masks, instances.masks)
        instances = replace(instances, masks=masks, boxes=torch.where(matched[:, None], taken.boxes, instances.boxes))
    targets = replace(targets, instances=instances)
    if "false" in parts:
        targets = select(targets, matched)
    if "unseen" in parts and len(missed):
        targets = replace(targets, background=partial(unseen, missed.boxes, targets.background))
    return append(targets, missed) if "missed" in parts else targets


def stand_for(instances: Instances, truth: Instances) -> tuple[Tensor, Instances]:
    """Return the object i64[N] that each pseudo-label stands for, -1 for none, and the objects that none stands for."""
    iou = pairwise_iou(instances, truth)
    of = torch.full((len(instances),), -1, device=iou.device)
    free = torch.ones(len(truth), dtype=torch.bool, device=iou.device)
    for index in instances.scores.argsort(descending=True).tolist() if len(truth) else ():
        overlap, best = (iou[index] * free).max(0)
        if overlap >= 0.5:
            of[index], free[best] = best, False
    return of, truth[free]


def with_true_iou(instances: Instances, truth: Instances | None) -> Instances:
    """Return instances with the IoU of their masks and the objects that these overlap best, 0 for none, as mask_iou."""
    if truth is None or not len(truth):
        return replace(instances, mask_iou=torch.zeros_like(instances.mask_iou))
    return replace(instances, mask_iou=pairwise_iou(instances, truth).max(1).values)


def pairwise_iou(instances: Instances, truth: Instances) -> Tensor:
    """Return the IoU f32[N,M] of masks."""
    first, second = (one.masks.flatten(1).float() for one in (instances, truth))
    common = first @ second.T
    return common / (first.sum(1)[:, None] + second.sum(1) - common).clamp(min=1)


def select(targets: Targets, index: Tensor) -> Targets:
    """Return targets with the instances at an index bool[N]."""
    weights = {name: getattr(targets, name)[index] for name in ("class_weight", "mask_weight", "box_weight")}
    return replace(targets, instances=targets.instances[index], **weights)


def append(targets: Targets, others: Instances) -> Targets:
    """Return targets with further instances of weight 1."""
    names = ("boxes", "labels", "masks", "scores", "mask_iou")
    joined = {name: torch.cat((getattr(targets.instances, name), getattr(others, name))) for name in names}
    one = others.scores.new_ones(len(others))
    weights = {name: torch.cat((getattr(targets, name), one)) for name in ("class_weight", "mask_weight", "box_weight")}
    return replace(targets, instances=Instances(**joined), **weights)


def unseen(objects: Tensor, background: Any, boxes: Tensor) -> Tensor:
    """Return the background weight of boxes: 0 where they overlap an object by 0.3 or more."""
    weight = background(boxes) if callable(background) else boxes.new_full((len(boxes),), background)
    return torch.where((box_iou(boxes, objects) >= 0.3).any(1), 0.0, weight)


if __name__ == "__main__":
    main()
