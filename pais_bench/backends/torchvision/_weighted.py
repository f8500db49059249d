"""How do the weights of Targets enter torchvision's losses? Its region proposals and heads, instance by instance.

At unit weights each loss is torchvision's own. A region proposal knows no class, so its losses follow box_weight: where
an instance is; and background where none is. Weights of 0 make an ignored region.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import box_iou

from pais_bench.losses import focal, mask_iou, quality_loss, region_mask_loss, weighted_mean
from pais_bench.quality import area_outside
from pais_bench.shares import mean_count, seed_draws


class SeededSampler(BalancedPositiveNegativeSampler):
    """Draw each image's samples from a seed of its own, so that it does not matter which images are beside it."""

    seeds: Sequence[int | None] = ()

    def __call__(self, matched_idxs):
        """Give masks of the sampled positives and negatives, u8[n] an image."""
        drawn = []
        for labels, seed in zip(matched_idxs, self.seeds, strict=True):
            seed_draws(labels.device, seed)
            drawn.append(super().__call__([labels]))
        positive, negative = zip(*drawn, strict=True)
        return [one for (one,) in positive], [one for (one,) in negative]


class WeightedProposals(RegionProposalNetwork):
    """Weigh the two losses of an anchor by the box_weight of its instance, and of one without by the background."""

    def assign_targets_to_anchors(self, anchors, targets):
        """Match as torchvision does, and remember each anchor's weight for compute_loss."""
        labels, boxes, weights = [], [], []
        for anchor, target in zip(anchors, targets, strict=True):
            matched, positive = _match(self.proposal_matcher, target["boxes"], anchor)
            label = positive.float()
            label[matched == self.proposal_matcher.BETWEEN_THRESHOLDS] = -1.0
            labels.append(label)
            boxes.append(_of_instance(target["boxes"], matched))
            background = 1.0 if callable(target["background"]) else target["background"]
            weights.append(torch.where(positive, _of_instance(target["box_weight"], matched), background))
        self.anchor_weight = torch.cat(weights)
        return labels, boxes

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        """Give the objectness and box losses of the sampled anchors."""
        positive, negative = (torch.cat(chosen).nonzero()[:, 0] for chosen in self.fg_bg_sampler(labels))
        sampled = torch.cat((positive, negative))
        weight = self.anchor_weight
        count = mean_count(len(sampled), sampled.device)
        box = F.smooth_l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], beta=1 / 9, reduction="none"
        )
        present = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="none"
        )
        return weighted_mean(present, weight[sampled], count), (box.sum(1) * weight[positive]).sum() / count


class WeightedRoIHeads(RoIHeads):
    """Weigh the class, box and mask losses of each RoI by its instance, and predict the IoU of each mask."""

    focal_gamma = 0.0
    boundary_weight = 0.0

    def forward(self, features, proposals, image_shapes, targets=None):
        """Give (results, losses), as torchvision's own."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._results(features, proposals, image_shapes), {}

    def _losses(self, features, proposals, image_shapes, targets):
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, box = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        background = [_background(t["background"], roi) for t, roi in zip(targets, proposals, strict=True)]
        losses = _class_and_box_losses(
            logits, box, labels, torch.cat(deltas), matched, targets, torch.cat(background), self.focal_gamma
        )

        positive = [label > 0 for label in labels]
        rois = [roi[chosen] for roi, chosen in zip(proposals, positive, strict=True)]
        owners = [owner[chosen] for owner, chosen in zip(matched, positive, strict=True)]
        classes = torch.cat(labels)[torch.cat(positive)]
        mask_features, maps = self._masks(features, rois, image_shapes)
        own = [logit[torch.arange(len(classes), device=classes.device), classes] for logit in maps]
        masks, size = [target["masks"] for target in targets], own[0].shape[-1]
        crops = [project_masks_on_boxes(m, r, o, size) for m, r, o in zip(masks, rois, owners, strict=True)]
        truth = torch.cat(crops)
        area = _gather([mask.flatten(1).sum(1).float() for mask in masks], owners)
        outside = area_outside(area, torch.cat(rois), truth)
        weight = _gather([target["mask_weight"] for target in targets], owners)
        count = mean_count(len(weight), weight.device)
        losses["mask"] = sum(region_mask_loss(logit, truth, weight, count, self.boundary_weight) for logit in own)

        probability = own[0].detach().sigmoid()
        iou = mask_iou(probability > 0.5, truth, outside)
        losses["quality"] = quality_loss(self.quality_head(mask_features, probability), iou, count)
        return losses

    def _results(self, features, proposals, image_shapes):
        logits, box = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        boxes, scores, labels = self.postprocess_detections(logits, box, proposals, image_shapes)
        mask_features, (mask_logits, *_) = self._masks(features, boxes, image_shapes)
        masks = maskrcnn_inference(mask_logits, labels)
        quality = self.quality_head(mask_features, torch.cat(masks)[:, 0]).sigmoid().split([len(box) for box in boxes])
        keys = ("boxes", "scores", "labels", "masks", "quality")
        return [
            dict(zip(keys, result, strict=True)) for result in zip(boxes, scores, labels, masks, quality, strict=True)
        ]

    def _masks(self, features, boxes, image_shapes):
        """Give the mask features and the logits of every map that is trained, the one that predicts first."""
        mask_features = self.mask_head(self.mask_roi_pool(features, boxes, image_shapes))
        maps = self.mask_predictor(mask_features)
        return mask_features, maps if isinstance(maps, tuple) else (maps,)

    def score(self, features, boxes, image_shapes):
        """Give class probabilities f32[n,C+1], background first, and each class's box f32[n,C,4] of given boxes."""
        logits, deltas = self.box_predictor(self.box_head(self.box_roi_pool(features, boxes, image_shapes)))
        counts = [len(box) for box in boxes]
        refined = self.box_coder.decode(deltas, boxes)[:, 1:]
        return list(zip(logits.softmax(1).split(counts), refined.split(counts), strict=True))


def _background(background, boxes: Tensor) -> Tensor:
    """Give the weight f32[n] of each box that no instance claims."""
    return background(boxes) if callable(background) else boxes.new_full((len(boxes),), background)


def _class_and_box_losses(logits, box, labels, deltas, matched, targets, background, gamma):
    rows, labels = torch.arange(len(logits), device=logits.device), torch.cat(labels)
    positive = labels > 0
    class_weight = torch.where(positive, _gather([target["class_weight"] for target in targets], matched), background)
    box_weight = _gather([target["box_weight"] for target in targets], matched)[positive]
    own = box.reshape(len(box), -1, 4)[rows[positive], labels[positive]]
    distance = F.smooth_l1_loss(own, deltas[positive], beta=1 / 9, reduction="none").sum(1)
    loss = focal(F.cross_entropy(logits, labels, reduction="none"), gamma)
    count = mean_count(len(labels), labels.device)
    return {"class": weighted_mean(loss, class_weight, count), "box": (distance * box_weight).sum() / count}


def _match(matcher, truth: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Give the matched index i64[n] (negative: none) and whether there is one, bool[n]."""
    matched = (
        matcher(box_iou(truth, boxes))
        if len(truth)
        else torch.full((len(boxes),), matcher.BELOW_LOW_THRESHOLD, device=boxes.device)
    )
    return matched, matched >= 0


def _of_instance(values: Tensor, matched: Tensor) -> Tensor:
    """Look up each match's value; 0 where an image has no instance."""
    if len(values) == 0:
        return values.new_zeros((len(matched), *values.shape[1:]))
    return values[matched.clamp(min=0)]


def _gather(values: Sequence[Tensor], matched: Sequence[Tensor]) -> Tensor:
    return torch.cat([_of_instance(value, index) for value, index in zip(values, matched, strict=True)])
