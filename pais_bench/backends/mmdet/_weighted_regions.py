"""Weight the losses of mmdet's two-stage networks by the instance that each anchor or region is matched to.

At unit weights each loss is mmdet's own. A region proposal knows no class, so its losses follow box_weight, and
background where it is unmatched. The classes here extend those that a config names (_config.Extension).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.prior_generators import anchor_inside_flags
from mmdet.models.task_modules.samplers import BaseSampler
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from torch import Tensor

from pais_bench.backends.mmdet._samples import to_instances
from pais_bench.geometry import nonzero_each
from pais_bench.layers.losses import focal, weighted_mean
from pais_bench.layers.mask_iou_head import MaskIoUHead
from pais_bench.layers.noise_tolerant_head import NoiseTolerantPredictor
from pais_bench.layers.precision import to_full_precision
from pais_bench.layers.roi_losses import area_outside_roi, background_weights, boxless_background, mask_losses
from pais_bench.layers.seeding import seed_sampling
from pais_bench.types import Keep, LossNormalizer


class SeededSampler(BaseSampler):
    """Sample each image's anchors or regions from the seed of its targets."""

    def sample(self, assign_result, pred_instances, gt_instances, *args, **kwargs):
        """Return mmdet's own sample."""
        seed_sampling(gt_instances.bboxes.device, gt_instances.seed)
        return super().sample(assign_result, pred_instances, gt_instances, *args, **kwargs)


class RegionSampler(SeededSampler):
    """Keep the image's instances, which have the weights, with the regions that are sampled for the heads."""

    def sample(self, assign_result, pred_instances, gt_instances, *args, **kwargs):
        """Return mmdet's own sample, with gt_instances."""
        result = super().sample(assign_result, pred_instances, gt_instances, *args, **kwargs)
        result.gt_instances = gt_instances
        return result


class WeightedRPN(AnchorHead):
    """Weight both losses of an anchor by the box_weight of its instance, or by the background where it has none."""

    normalizer: LossNormalizer  # of the batch in `loss`, as in the heads below; Backend.loss sets it

    def forward_single(self, x):
        """Return mmdet's own maps, in full precision: half of it would move a box by pixels."""
        return tuple(to_full_precision(maps) for maps in super().forward_single(x))

    def get_targets(self, anchor_list, *args, **kwargs):
        """Return mmdet's own targets, and what the losses are divided by instead of the number of sampled anchors."""
        *targets, count = super().get_targets(anchor_list, *args, **kwargs)
        return *targets, self.normalizer(count)

    def _get_targets_single(self, flat_anchors, valid_flags, gt_instances, img_meta, *args, **kwargs):
        targets = super()._get_targets_single(flat_anchors, valid_flags, gt_instances, img_meta, *args, **kwargs)
        labels, label_weights, deltas, delta_weights, positive, negative, sampled = targets
        # mmdet counts the positive and the negative among the anchors inside the image.
        inside = anchor_inside_flags(
            flat_anchors, valid_flags, img_meta["img_shape"][:2], self.train_cfg["allowed_border"]
        ).nonzero()[:, 0]
        weight = gt_instances.box_weight[sampled.pos_assigned_gt_inds]
        label_weights[inside[positive]] *= weight
        label_weights[inside[negative]] *= boxless_background(gt_instances.background)
        delta_weights[inside[positive]] *= weight[:, None]
        return labels, label_weights, deltas, delta_weights, positive, negative, sampled


class WeightedBBoxHead(BBoxHead):
    """Weight the class and box losses of each region by its instance."""

    normalizer: LossNormalizer

    def __init__(self, *args, focal_gamma: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.focal_gamma = focal_gamma

    def forward(self, x):
        """Return mmdet's own class logits and deltas, in full precision."""
        return tuple(to_full_precision(values) for values in super().forward(x))

    def get_targets(self, sampling_results, rcnn_train_cfg, concat=True):
        """Return mmdet's own targets, concatenated, with weights; positive regions come first in each image."""
        labels, label_weights, deltas, delta_weights = super().get_targets(sampling_results, rcnn_train_cfg, concat)
        class_weights, box_weights = [], []
        for sampled in sampling_results:
            background = background_weights(sampled.gt_instances.background, sampled.neg_priors)
            class_weights += [_matched(sampled, "class_weight"), background]
            box_weights += [_matched(sampled, "box_weight"), torch.zeros_like(background)]
        return labels, label_weights * torch.cat(class_weights), deltas, delta_weights * torch.cat(box_weights)[:, None]

    def loss(self, cls_score, bbox_pred, rois, labels, label_weights, bbox_targets, bbox_weights, *args, **kwargs):
        """Return mmdet's own losses, divided by the normaliser's number of regions.

        The class loss is computed here, because mmdet divides it by the number of weights above 0, so that a weight of
        0 would raise the others.
        """
        normalizer = self.normalizer(len(labels))
        scaled = bbox_weights * (len(labels) / normalizer)  # mmdet divides the box loss by the number of regions
        losses = super().loss(None, bbox_pred, rois, labels, label_weights, bbox_targets, scaled, *args, **kwargs)
        rows = focal(self.loss_cls(cls_score, labels, reduction_override="none"), self.focal_gamma)
        return losses | {"loss_cls": weighted_mean(rows, label_weights, normalizer)}


class MaskPredictions(NamedTuple):
    """Hold the logits f32[n,C,h,w] of every trained mask map, the predicting map first, and the mask-IoU head.

    predict_iou maps mask probabilities f32[n,28,28] of the same regions to IoU logits f32[n].
    """

    maps: tuple[Tensor, ...]
    predict_iou: Callable[[Tensor], Tensor]


class WeightedMaskHead(FCNMaskHead):
    """Weight the mask loss of each region by its instance; crop its target on the device."""

    normalizer: LossNormalizer

    def __init__(self, *args, boundary_weight: float, mask_iou_weight: float, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.boundary_weight, self.mask_iou_weight = boundary_weight, mask_iou_weight

    def own_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the map f32[n,h,w] of each region's class i64[n] from logits f32[n,C,h,w]."""
        return logits[torch.arange(len(labels), device=logits.device), 0 if self.class_agnostic else labels]

    def get_targets(self, sampling_results, batch_gt_instances, rcnn_train_cfg):
        """Return mmdet's own mask targets f32[p,h,w], for which it would copy the masks to the host."""
        masks = [image.masks.tensor for image in batch_gt_instances]
        rois, first = [], 0
        for sampled, own in zip(sampling_results, masks, strict=True):
            height, width = own.shape[-2:]
            x0, y0, x1, y1 = sampled.pos_priors.unbind(1)
            corners = x0.clamp(0, width), y0.clamp(0, height), x1.clamp(0, width), y1.clamp(0, height)
            rois.append(torch.stack((sampled.pos_assigned_gt_inds + first, *corners), 1))
            first += len(own)
        align = RoIAlign(rcnn_train_cfg.mask_size, sampling_ratio=0, use_torchvision=True)
        crops = align(torch.cat(masks)[:, None].to(rois[0]), torch.cat(rois))[:, 0]
        return crops if rcnn_train_cfg.get("soft_mask_target", False) else (crops >= 0.5).float()

    def loss_and_target(self, mask_preds: MaskPredictions, sampling_results, batch_gt_instances, rcnn_train_cfg):
        """Return mmdet's dict, whose losses also hold that of the predicted mask IoU."""
        target = self.get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        labels = torch.cat([sampled.pos_gt_labels for sampled in sampling_results])
        weights, area = (
            torch.cat([_matched(sampled, name) for sampled in sampling_results]) for name in ("mask_weight", "area")
        )
        mask, mask_iou = mask_losses(
            [self.own_class(logits, labels) for logits in mask_preds.maps],
            target,
            weights,
            self.boundary_weight,
            area_outside_roi(area, torch.cat([sampled.pos_priors for sampled in sampling_results]), target),
            mask_preds.predict_iou,
            self.normalizer(len(labels)),
        )
        losses = {"loss_mask": self.loss_mask.loss_weight * mask, "loss_mask_iou": self.mask_iou_weight * mask_iou}
        return {"loss_mask": losses, "mask_targets": target}


class MaskIoURoIHead(StandardRoIHead):
    """Predict the IoU of each mask with a head beside the mask head, and score given boxes."""

    def __init__(self, *args, mask_iou_channels: int, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.new_mask_iou_head = partial(MaskIoUHead, self.mask_roi_extractor.out_channels, mask_iou_channels)
        with torch.random.fork_rng(devices=()):  # init_weights draws its weights, after those of mmdet's own layers
            self.mask_iou_head = self.new_mask_iou_head()

    def init_weights(self):
        """Initialise mmdet's own layers as without the mask-IoU head, and that head last."""
        super().init_weights()
        self.mask_iou_head.load_state_dict(self.new_mask_iou_head().state_dict())

    def score(self, x, boxes):
        """Return class probabilities f32[n,C+1], background first, and refined boxes f32[n,C,4] of a view's boxes."""
        rois, head = bbox2roi([boxes]), self.bbox_head
        predictions = self._bbox_forward(x, rois)
        deltas = predictions["bbox_pred"]
        deltas = deltas.view(-1, deltas.shape[1] // 4, 4).expand(-1, head.num_classes, -1)
        starts = rois[:, None, 1:].expand_as(deltas)
        refined = head.bbox_coder.decode(starts.reshape(-1, 4), deltas.reshape(-1, 4)).view_as(deltas)
        return predictions["cls_score"].softmax(1).roll(1, 1), refined  # mmdet's background is last

    def predict_mask(self, x, batch_img_metas, results_list, rescale=False, keep: Keep | None = None):
        """Return mmdet's own masks of the results that are kept, with the predicted IoU of each."""
        (logits, *_), predict_iou = self._mask_forward(x, bbox2roi([image.bboxes for image in results_list]))[
            "mask_preds"
        ]
        counts = [len(image) for image in results_list]
        own_class = self.mask_head.own_class(logits, torch.cat([image.labels for image in results_list]))
        for image, predicted in zip(
            results_list, predict_iou(own_class.sigmoid()).sigmoid().split(counts), strict=True
        ):
            image.mask_iou = predicted
        maps = list(logits.split(counts))
        if keep is not None:
            kept = nonzero_each([keep(to_instances(image)) for image in results_list])
            results_list = [image[index] for image, index in zip(results_list, kept, strict=True)]
            maps = [of_view[index] for of_view, index in zip(maps, kept, strict=True)]
        return self.mask_head.predict_by_feat(maps, results_list, batch_img_metas, self.test_cfg, rescale=rescale)

    def _mask_forward(self, *args, **kwargs):
        """Return mmdet's dict, with MaskPredictions for its mask_preds."""
        results = super()._mask_forward(*args, **kwargs)
        maps = results["mask_preds"]
        maps = tuple(to_full_precision(one) for one in (maps if isinstance(maps, tuple) else (maps,)))
        return results | {"mask_preds": MaskPredictions(maps, partial(self.mask_iou_head, results["mask_feats"]))}


@MODELS.register_module()
class NoiseTolerantLayer(NoiseTolerantPredictor):
    """Build the noise-tolerant predictor as the last layer of mmdet's mask head, its predictor_cfg."""

    def __init__(self, in_channels: int, out_channels: int, _kernel_size: int) -> None:
        super().__init__(in_channels, in_channels, out_channels)


def _matched(sampled, name: str) -> Tensor:
    """Return a value of each positive region's instance."""
    return sampled.gt_instances[name][sampled.pos_assigned_gt_inds]
