"""How do the weights of Targets enter detectron2's losses? Mixins over its region proposals, heads and matcher.

At unit weights each loss is detectron2's own. A region proposal knows no class, so its losses follow box_weight: where
an instance is; and background where none is. detectron2 itself hands a sampled proposal every field of its instance
that begins with gt_, so the weights of the heads just arrive; those of the background are `backgrounds`, by image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import FastRCNNOutputLayers, StandardROIHeads, select_foreground_proposals
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Boxes, ImageList
from fvcore.nn import smooth_l1_loss
from torch import Tensor
from torch.nn import functional as F

from pais_bench.losses import focal, mask_iou, quality_loss, region_mask_loss, weighted_mean
from pais_bench.quality import area_outside
from pais_bench.shares import blanks, mean_count, seed_draws


class PaddedToTheStep(GeneralizedRCNN):
    """Pad views to the size of the largest in the step, wherever that is."""

    def preprocess_image(self, batched_inputs):
        """Give detectron2's own ImageList."""
        count, blank = len(batched_inputs), [{"image": one} for one in blanks([one["image"] for one in batched_inputs])]
        found = super().preprocess_image([*batched_inputs, *blank])
        return ImageList(found.tensor[:count], found.image_sizes[:count])


class RememberingMatcher(Matcher):
    """Remember which instance each anchor was matched with, image by image."""

    def __call__(self, match_quality_matrix):
        """Give detectron2's own matches and labels."""
        matches, labels = super().__call__(match_quality_matrix)
        self.matched.append(matches)
        return matches, labels


class WeightedProposals(RPN):
    """Weigh the two losses of an anchor by the box_weight of its instance, and of one without by the background.

    Anchors are sampled from the `seeds` of their images. The losses are divided by a number that is the same for all.
    """

    def _subsample_labels(self, label):
        seed_draws(label.device, next(self.next_seed))
        return super()._subsample_labels(label)

    def label_and_sample_anchors(self, anchors, gt_instances):
        """Label as detectron2 does, and remember each anchor's weight f32[B,R] for `losses`."""
        self.anchor_matcher.matched, self.next_seed = [], iter(self.seeds)
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        self.weights = torch.stack(
            [
                torch.where(label == 1, _of_instance(one, "gt_box_weight", matched), _number(background))
                for label, one, matched, background in zip(
                    labels, gt_instances, self.anchor_matcher.matched, self.backgrounds, strict=True
                )
            ]
        )
        return labels, boxes

    def losses(self, anchors, pred_objectness_logits, gt_labels, pred_anchor_deltas, gt_boxes):
        """Give loss_rpn_cls and loss_rpn_loc of the sampled anchors."""
        labels, place = torch.stack(gt_labels), Boxes.cat(anchors).tensor
        positive, sampled = labels == 1, labels >= 0
        aims = self.box2box_transform.get_deltas(
            place.expand(len(labels), -1, -1)[positive], torch.stack(gt_boxes)[positive]
        )
        distance = smooth_l1_loss(torch.cat(pred_anchor_deltas, 1)[positive], aims, self.smooth_l1_beta).sum(1)
        present = F.binary_cross_entropy_with_logits(
            torch.cat(pred_objectness_logits, 1)[sampled], labels[sampled].float(), reduction="none"
        )
        count = self.batch_size_per_image * len(labels)
        losses = {
            "loss_rpn_cls": (present * self.weights[sampled]).sum() / count,
            "loss_rpn_loc": (distance * self.weights[positive]).sum() / count,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}


class WeightedPredictor(FastRCNNOutputLayers):
    """Weigh the class and box losses of each region by its instance."""

    focal_gamma = 0.0

    def losses(self, predictions, proposals):
        """Give loss_cls and loss_box_reg."""
        logits, deltas = predictions
        labels = torch.cat([one.gt_classes for one in proposals])
        positive = labels < self.num_classes
        background = [
            _weights(b, one.proposal_boxes.tensor) for one, b in zip(proposals, self.backgrounds, strict=True)
        ]
        weight = torch.where(positive, _gather(proposals, "gt_class_weight"), torch.cat(background))
        rows = focal(F.cross_entropy(logits, labels, reduction="none"), self.focal_gamma)

        boxes = torch.cat([one.proposal_boxes.tensor for one in proposals])[positive]
        truth = torch.cat([_field(one, "gt_boxes", one.proposal_boxes).tensor for one in proposals])[positive]
        if deltas.shape[1] != 4:
            deltas = deltas.reshape(len(deltas), -1, 4)[
                torch.arange(len(labels), device=labels.device), labels % self.num_classes
            ]
        aims = self.box2box_transform.get_deltas(boxes, truth)
        distance = smooth_l1_loss(deltas[positive], aims, self.smooth_l1_beta).sum(1)
        count = mean_count(len(labels), labels.device)
        losses = {
            "loss_cls": weighted_mean(rows, weight, count),
            "loss_box_reg": (distance * _gather(proposals, "gt_box_weight")[positive]).sum() / count,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}


class QualityRoIs(StandardROIHeads):
    """Weigh the mask loss of each region by its instance, and predict the IoU of its mask.

    Regions are sampled from the `seeds` of their images.
    """

    boundary_weight = 0.0

    def label_and_sample_proposals(self, proposals, targets):
        """Label and sample as detectron2 does."""
        self.next_seed = iter(self.seeds)
        return super().label_and_sample_proposals(proposals, targets)

    def _sample_proposals(self, matched_idxs, matched_labels, gt_classes):
        seed_draws(matched_idxs.device, next(self.next_seed))
        return super()._sample_proposals(matched_idxs, matched_labels, gt_classes)

    def _forward_mask(self, features, instances):
        levels = [features[name] for name in self.mask_in_features]
        if not self.training:
            pooled = self.mask_pooler(levels, [one.pred_boxes for one in instances])
            mask_rcnn_inference(self.mask_head.layers(pooled), instances)
            masks = torch.cat([one.pred_masks for one in instances])[:, 0]
            quality = self.quality_head(pooled, masks).sigmoid().split([len(one) for one in instances])
            for one, probability in zip(instances, quality, strict=True):
                one.quality = probability
            return instances
        chosen, _ = select_foreground_proposals(instances, self.num_classes)
        pooled = self.mask_pooler(levels, [one.proposal_boxes for one in chosen])
        labels, maps = torch.cat([one.gt_classes for one in chosen]), self.mask_head.layers(pooled)
        own = [_of_class(logits, labels) for logits in (maps if isinstance(maps, tuple) else (maps,))]
        side = own[0].shape[-1]
        crops = [one.gt_masks.crop_and_resize(one.proposal_boxes.tensor, side) for one in chosen if len(one)]
        truth = torch.cat([*crops, own[0].new_zeros((0, side, side))]).to(own[0])
        rois = torch.cat([one.proposal_boxes.tensor for one in chosen])
        weight, count = _gather(chosen, "gt_mask_weight"), mean_count(len(labels), labels.device)
        loss = sum(region_mask_loss(logits, truth, weight, count, self.boundary_weight) for logits in own)
        probability = own[0].detach().sigmoid()
        iou = mask_iou(probability > 0.5, truth, area_outside(_gather(chosen, "gt_area"), rois, truth))
        return {
            "loss_mask": loss * self.mask_head.loss_weight,
            "loss_quality": quality_loss(self.quality_head(pooled, probability), iou, count),
        }

    def score(self, features, boxes):
        """Give class probabilities f32[n,C+1], background first, and each class's box f32[n,C,4] of given boxes."""
        levels = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(levels, [Boxes(some) for some in boxes])
        logits, deltas = self.box_predictor(self.box_head(pooled))
        refined = self.box_predictor.box2box_transform.apply_deltas(deltas, torch.cat(boxes))
        refined = refined.view(len(refined), -1, 4).expand(-1, self.num_classes, -1)
        counts, probability = [len(some) for some in boxes], logits.softmax(1).roll(1, 1)  # its background is last
        return list(zip(probability.split(counts), refined.split(counts), strict=True))


def _of_class(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the logits f32[n,h,w] of each region's class."""
    return logits[torch.arange(len(labels), device=labels.device), labels if logits.shape[1] > 1 else 0]


def _field(proposals, name, otherwise):
    """Give a field of an image's proposals; those of an image without instances have none that begins with gt_."""
    return proposals.get(name) if proposals.has(name) else otherwise


def _gather(proposals: Sequence, name: str) -> Tensor:
    """Give a field f32[n] of all proposals; 0 in images without instances."""
    return torch.cat([_field(one, name, one.proposal_boxes.tensor.new_zeros(len(one))) for one in proposals])


def _of_instance(truth, name: str, matched: Tensor) -> Tensor:
    """Look up each anchor's value; 0 in an image without instances."""
    values = truth.get(name)
    return values[matched] if len(values) else values.new_zeros(len(matched))


def _number(background) -> float:
    """Give the background's weight for region proposals: a function of boxes is for the heads."""
    return 1.0 if callable(background) else background


def _weights(background, boxes: Tensor) -> Tensor:
    """Give the weight f32[n] of each box that no instance claims."""
    return background(boxes) if callable(background) else boxes.new_full((len(boxes),), background)
