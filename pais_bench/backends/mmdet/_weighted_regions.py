"""How do the weights of Targets enter the losses of mmdet's two-stage networks? Mixins over its sampler and heads.

At unit weights each loss is mmdet's own. A region proposal knows no class, so its losses follow box_weight: where an
instance is; and background where none is.
"""

from __future__ import annotations

import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.task_modules.samplers import BaseSampler
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from pais_bench.losses import focal, mask_iou, quality_loss, region_mask_loss, weighted_mean
from pais_bench.quality import area_outside
from pais_bench.shares import mean_count, seed_draws

CARRIED = ("class_weight", "mask_weight", "box_weight", "area")


class SeededSampler(BaseSampler):
    """Draw each image's samples from a seed of its own, so that it does not matter which images are beside it."""

    def sample(self, assign_result, pred_instances, gt_instances, *args, **kwargs):
        """Give mmdet's own sample."""
        seed_draws(gt_instances.bboxes.device, gt_instances.seed)
        return super().sample(assign_result, pred_instances, gt_instances, *args, **kwargs)


class CarryingSampler(SeededSampler):
    """Hand each sampled region the weights of its instance, which mmdet would drop here."""

    def sample(self, assign_result, pred_instances, gt_instances, *args, **kwargs):
        """Give mmdet's own sample, with the fields CARRIED f32[positives] and the background."""
        result = super().sample(assign_result, pred_instances, gt_instances, *args, **kwargs)
        for name in CARRIED:
            setattr(result, name, gt_instances[name][result.pos_assigned_gt_inds])
        result.background = gt_instances.background
        return result


class WeightedProposals(AnchorHead):
    """Weigh the two losses of an anchor by the box_weight of its instance, and of one without by the background."""

    def get_targets(self, anchor_list, *args, **kwargs):
        """Give mmdet's own targets; what the losses are divided by is that of the whole step."""
        *targets, count = super().get_targets(anchor_list, *args, **kwargs)
        return *targets, mean_count(count, anchor_list[0][0].device)

    def _get_targets_single(self, flat_anchors, valid_flags, gt_instances, img_meta, *args, **kwargs):
        found = super()._get_targets_single(flat_anchors, valid_flags, gt_instances, img_meta, *args, **kwargs)
        labels, label_weights, targets, box_weights, positive, negative, sampled = found
        inside = anchor_inside_flags(
            flat_anchors, valid_flags, img_meta["img_shape"][:2], self.train_cfg["allowed_border"]
        ).nonzero()[:, 0]
        positive_places, weight = inside[positive], gt_instances.box_weight[sampled.pos_assigned_gt_inds]
        background = gt_instances.background
        label_weights[positive_places] *= weight
        label_weights[inside[negative]] *= 1.0 if callable(background) else background
        box_weights[positive_places] *= weight[:, None]
        return labels, label_weights, targets, box_weights, positive, negative, sampled


class WeightedBoxes(BBoxHead):
    """Weigh the class and box losses of each region by its instance."""

    focal_gamma = 0.0

    def get_targets(self, sampling_results, rcnn_train_cfg, concat=True):
        """Give mmdet's own targets, concatenated, with weights; positives come first in each image."""
        labels, label_weights, targets, box_weights = super().get_targets(sampling_results, rcnn_train_cfg, concat)
        weights = torch.cat([w for one in sampling_results for w in (one.class_weight, _background(one))])
        boxes = torch.cat(
            [w for one in sampling_results for w in (one.box_weight, torch.zeros_like(one.neg_priors[:, 0]))]
        )
        return labels, label_weights * weights, targets, box_weights * boxes[:, None]

    def loss(self, cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, *args, **kwargs):
        """Give mmdet's own losses, divided by the number of regions in the whole step.

        The class loss is made here, because mmdet divides it by the number of weights above 0, so that a weight of 0
        would raise the others.
        """
        count = mean_count(len(labels), labels.device)
        boxes = bbox_weights * (len(labels) / count)
        losses = super().loss(None, bbox_pred, rois, labels, label_weights, bbox_targets, boxes, *args, **kwargs)
        rows = focal(self.loss_cls(cls_score, labels, reduction_override="none"), self.focal_gamma)
        return losses | {"loss_cls": weighted_mean(rows, label_weights, count)}


class WeightedMasks(FCNMaskHead):
    """Weigh the mask loss of each region by its instance, and tell how good its mask is."""

    boundary_weight = 0.0

    def own(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Give the logits f32[n,28,28] of each region's class."""
        return logits[torch.arange(len(labels), device=logits.device), 0 if self.class_agnostic else labels]

    def loss_and_target(self, mask_preds, sampling_results, batch_gt_instances, rcnn_train_cfg):
        """Give mmdet's dict, whose losses also hold what the RoI head takes for those of quality.

        mask_preds are the logits f32[n,C,28,28], or those of every map that is trained, the one that predicts first.
        """
        truth = self.get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        labels = torch.cat([one.pos_gt_labels for one in sampling_results])
        maps = mask_preds if isinstance(mask_preds, tuple) else (mask_preds,)
        own = [self.own(logits, labels) for logits in maps]
        weight, area = (
            torch.cat([one[name] for one in map(vars, sampling_results)]) for name in ("mask_weight", "area")
        )
        outside = area_outside(area, torch.cat([one.pos_priors for one in sampling_results]), truth)
        probability, count = own[0].detach().sigmoid(), mean_count(len(labels), labels.device)
        loss = sum(region_mask_loss(logits, truth, weight, count, self.boundary_weight) for logits in own)
        losses = {
            "loss_mask": self.loss_mask.loss_weight * loss,
            "probability": probability,
            "iou": mask_iou(probability > 0.5, truth, outside),
            "count": count,
        }
        return {"loss_mask": losses, "mask_targets": truth}


class QualityRoIs(StandardRoIHead):
    """Predict the IoU of each mask, with a branch beside the mask head; and judge given boxes."""

    def score(self, x, boxes):
        """Give class probabilities f32[n,C+1], background first, and each class's box f32[n,C,4] of given boxes."""
        rois, counts = bbox2roi(boxes), [len(some) for some in boxes]
        found, head = self._bbox_forward(x, rois), self.bbox_head
        deltas = found["bbox_pred"].view(len(rois), -1, 4).expand(-1, head.num_classes, -1)
        places = rois[:, None, 1:].expand_as(deltas)
        refined = head.bbox_coder.decode(places.reshape(-1, 4), deltas.reshape(-1, 4)).view_as(deltas)
        probability = found["cls_score"].softmax(1).roll(1, 1)  # mmdet's background is last
        return list(zip(probability.split(counts), refined.split(counts), strict=True))

    def mask_loss(self, x, sampling_results, bbox_feats, batch_gt_instances):
        """Give mmdet's dict, with the loss of the branch."""
        found = super().mask_loss(x, sampling_results, bbox_feats, batch_gt_instances)
        losses = found["loss_mask"]
        logits = self.quality_head(found["mask_feats"], losses.pop("probability"))
        losses["loss_quality"] = quality_loss(logits, losses.pop("iou"), losses.pop("count"))
        return found

    def predict_mask(self, x, batch_img_metas, results_list, rescale=False):
        """Give mmdet's own masks, with the predicted IoU of each."""
        found = self._mask_forward(x, bbox2roi([one.bboxes for one in results_list]))
        logits, counts = found["mask_preds"], [len(one) for one in results_list]
        own = self.mask_head.own(logits, torch.cat([one.labels for one in results_list]))
        quality = self.quality_head(found["mask_feats"], own.sigmoid()).sigmoid().split(counts)
        results = self.mask_head.predict_by_feat(
            logits.split(counts), results_list, batch_img_metas, self.test_cfg, rescale=rescale
        )
        for one, probability in zip(results, quality, strict=True):
            one.quality = probability
        return results


def _background(sampled) -> Tensor:
    """Give the weight f32[n] of each region of an image that no instance claims."""
    boxes, background = sampled.neg_priors, sampled.background
    return background(boxes) if callable(background) else boxes.new_full((len(boxes),), background)
