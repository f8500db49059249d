"""Weight torchvision's region-proposal and RoI losses by the instance that each anchor or region is matched to.

At unit weights each loss is torchvision's own. A region proposal knows no class, so its losses follow box_weight, and
background where it is unmatched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from pais_bench.backends.base import RoIOptions
from pais_bench.layers.losses import weighted_mean
from pais_bench.layers.roi_losses import (
    area_outside_roi,
    background_weights,
    class_loss,
    mask_losses,
    matched_values,
    proposal_background,
)
from pais_bench.layers.seeding import seed_sampling
from pais_bench.types import LossNormalizer, Targets


class Supervision(NamedTuple):
    """Hold what torchvision hands to its heads as `targets`: those of a batch, and the normaliser of its losses."""

    targets: Sequence[Targets]
    normalizer: LossNormalizer


class SeededSampler(BalancedPositiveNegativeSampler):
    """Sample each image's anchors or regions from the seed of its targets."""

    seeds: Sequence[int | None] = ()

    def __call__(self, matched_idxs):
        """Return masks u8[n] of the sampled positives and of the negatives, one of each per image."""
        samples = []
        for labels, seed in zip(matched_idxs, self.seeds, strict=True):
            seed_sampling(labels.device, seed)
            samples.append(super().__call__([labels]))
        positive, negative = zip(*samples, strict=True)
        return [mask for (mask,) in positive], [mask for (mask,) in negative]


class WeightedRPN(RegionProposalNetwork):
    """Weight both losses of an anchor by the box_weight of its instance, or by the background where it has none."""

    def __init__(self, *args, batch_size_per_image: int, positive_fraction: float, **kwargs) -> None:
        super().__init__(
            *args, batch_size_per_image=batch_size_per_image, positive_fraction=positive_fraction, **kwargs
        )
        self.fg_bg_sampler = SeededSampler(batch_size_per_image, positive_fraction)

    def assign_targets_to_anchors(self, anchors, supervision):
        """Match as torchvision does; keep each anchor's weight and the normaliser for compute_loss, its next call."""
        labels, boxes, weights = [], [], []
        for anchor, target in zip(anchors, supervision.targets, strict=True):
            instances = target.instances
            matched, positive = self._match(instances.boxes, anchor)
            label = positive.float()
            label[matched == self.proposal_matcher.BETWEEN_THRESHOLDS] = -1.0
            labels.append(label)
            boxes.append(matched_values(instances.boxes, matched))
            weight = matched_values(target.box_weight, matched)
            weights.append(torch.where(positive, weight, proposal_background(target.background)))
        self.fg_bg_sampler.seeds = [target.seed for target in supervision.targets]
        self.anchor_weight, self.normalizer = torch.cat(weights), supervision.normalizer
        return labels, boxes

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        """Return the objectness and box losses of the sampled anchors."""
        positive, negative = (torch.cat(masks).nonzero()[:, 0] for masks in self.fg_bg_sampler(labels))
        sampled = torch.cat((positive, negative))
        normalizer = self.normalizer(len(sampled))
        distance = F.smooth_l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], beta=1 / 9, reduction="none"
        )
        rows = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="none"
        )
        box = (distance.sum(1) * self.anchor_weight[positive]).sum() / normalizer
        return weighted_mean(rows, self.anchor_weight[sampled], normalizer), box

    def _match(self, boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matched index i64[n] (negative: none) and whether there is one, bool[n]."""
        matcher = self.proposal_matcher
        if len(boxes):
            matched = matcher(box_iou(boxes, anchors))
        else:
            matched = torch.full((len(anchors),), matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        return matched, matched >= 0


class WeightedRoIHeads(RoIHeads):
    """Weight the class, box and mask losses of each region by its instance, and predict the IoU of each mask."""

    def __init__(self, *args, mask_iou_head: nn.Module, roi: RoIOptions, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.fg_bg_sampler = SeededSampler(kwargs["batch_size_per_image"], kwargs["positive_fraction"])
        self.mask_iou_head, self.roi = mask_iou_head, roi

    def forward(self, features, proposals, image_shapes, supervision=None):
        """Return (results, losses), as torchvision's own."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, supervision)
        return self._results(features, proposals, image_shapes), {}

    def score(self, features, boxes, image_shapes):
        """Return class probabilities f32[n,C+1], background first, and each class's box f32[n,C,4] of given boxes."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))
        counts = [len(image) for image in boxes]
        refined = self.box_coder.decode(deltas, boxes)[:, 1:]
        return list(zip(logits.softmax(1).split(counts), refined.split(counts), strict=True))

    def _losses(self, features, proposals, image_shapes, supervision):
        targets, normalizer = supervision
        self.fg_bg_sampler.seeds = [target.seed for target in targets]
        samples = [
            {"boxes": target.instances.boxes, "labels": target.instances.labels + 1, "masks": target.instances.masks}
            for target in targets
        ]
        proposals, matched, labels, deltas = self.select_training_samples(proposals, samples)
        logits, box = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        losses = self._box_losses(logits, box, labels, torch.cat(deltas), matched, proposals, supervision)

        positive = [label > 0 for label in labels]
        rois = [roi[mask] for roi, mask in zip(proposals, positive, strict=True)]
        owners = [owner[mask] for owner, mask in zip(matched, positive, strict=True)]
        classes = torch.cat(labels)[torch.cat(positive)]
        mask_features, maps = self._mask_maps(features, rois, image_shapes)
        own_class = [logits[torch.arange(len(classes), device=classes.device), classes] for logits in maps]
        masks, size = [target.instances.masks for target in targets], own_class[0].shape[-1]
        crops = [project_masks_on_boxes(m, r, o, size) for m, r, o in zip(masks, rois, owners, strict=True)]
        area = _gather([mask.flatten(1).sum(1).float() for mask in masks], owners)
        losses["mask"], losses["mask_iou"] = mask_losses(
            own_class,
            torch.cat(crops),
            _gather([target.mask_weight for target in targets], owners),
            self.roi.boundary_weight,
            area_outside_roi(area, torch.cat(rois), torch.cat(crops)),
            lambda probability: self.mask_iou_head(mask_features, probability),
            normalizer(len(classes)),
        )
        return losses

    def _box_losses(self, logits, box, labels, deltas, matched, proposals, supervision):
        """Return the class and box losses of the sampled regions."""
        targets, labels = supervision.targets, torch.cat(labels)
        positive = labels > 0
        background = [background_weights(t.background, roi) for t, roi in zip(targets, proposals, strict=True)]
        weight = torch.where(positive, _gather([t.class_weight for t in targets], matched), torch.cat(background))
        box_weight = _gather([target.box_weight for target in targets], matched)[positive]
        rows = torch.arange(len(logits), device=logits.device)[positive]
        own_class = box.reshape(len(box), -1, 4)[rows, labels[positive]]
        distance = F.smooth_l1_loss(own_class, deltas[positive], beta=1 / 9, reduction="none").sum(1)
        normalizer = supervision.normalizer(len(labels))
        return {
            "class": class_loss(logits, labels, weight, self.roi.focal_gamma, normalizer),
            "box": (distance * box_weight).sum() / normalizer,
        }

    def _results(self, features, proposals, image_shapes):
        logits, box = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        boxes, scores, labels = self.postprocess_detections(logits, box, proposals, image_shapes)
        mask_features, (mask_logits, *_) = self._mask_maps(features, boxes, image_shapes)
        masks = maskrcnn_inference(mask_logits, labels)
        counts = [len(image) for image in boxes]
        mask_iou = self.mask_iou_head(mask_features, torch.cat(masks)[:, 0]).sigmoid().split(counts)
        keys = ("boxes", "scores", "labels", "masks", "mask_iou")
        return [
            dict(zip(keys, image, strict=True)) for image in zip(boxes, scores, labels, masks, mask_iou, strict=True)
        ]

    def _mask_maps(self, features, boxes, image_shapes):
        """Return the mask features and the logits of every map that is trained, the one that predicts first."""
        mask_features = self.mask_head(self.mask_roi_pool(features, boxes, image_shapes))
        maps = self.mask_predictor(mask_features)
        return mask_features, maps if isinstance(maps, tuple) else (maps,)


def _gather(values: Sequence[Tensor], matched: Sequence[Tensor]) -> Tensor:
    """Return the value of each region's instance, over all images."""
    return torch.cat([matched_values(value, index) for value, index in zip(values, matched, strict=True)])
