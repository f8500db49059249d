"""Weight the losses of mmdet's Mask2Former by the instance that each query is matched to.

At unit weights each loss is mmdet's own, with its own random points. A query knows no box, so box_weight is ignored.
Matching costs are not weighted: an instance takes a query whatever its weights are, unless both its class and its mask
have weight 0; such an instance is removed before the matching. The classes here extend those that a config names
(_networks.Extension).
"""

from __future__ import annotations

import random
from typing import Any

import torch
from mmcv.ops import point_sample
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.layers.losses import mask_iou_loss, soft_mask_iou, weighted_mean
from pais_bench.layers.seeding import seed_sampling
from pais_bench.types import LossNormalizer


class ClassAndMaskIoU(nn.Module):
    """Classify queries with mmdet's own layer, and predict the IoU of their masks as the last channel.

    The parameters of mmdet's layer keep their names. The branch is K-Net's in the PAIS release [PAIS, section 3.3].
    """

    def __init__(self, classifier: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = classifier.weight, classifier.bias
        self.mask_iou = self.new_branch()

    def new_branch(self) -> nn.Sequential:
        """Return a mask-IoU branch with random weights."""
        width = self.weight.shape[1]
        return nn.Sequential(
            nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU(inplace=True), nn.Linear(width, 1)
        )

    def forward(self, queries: Tensor) -> Tensor:
        """Map f32[B,N,c] to f32[B,N,C+2]: classes, no object, mask_iou."""
        return torch.cat((F.linear(queries, self.weight, self.bias), self.mask_iou(queries)), -1)


class WeightedQueryHead(Mask2FormerHead):
    """Weight class, mask and dice losses of each query by its instance, and of unmatched ones by the background."""

    normalizer: LossNormalizer  # of the batch in `loss`; Backend.loss sets it
    cls_embed: Any

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        with torch.random.fork_rng(devices=()):  # init_weights draws the branch, after mmdet's own layers
            self.cls_embed = ClassAndMaskIoU(self.cls_embed)

    def init_weights(self):
        """Initialise mmdet's own layers as without the mask-IoU branch, and the branch last."""
        super().init_weights()
        self.cls_embed.mask_iou.load_state_dict(self.cls_embed.new_branch().state_dict())

    def preprocess_gt(self, batch_gt_instances, batch_gt_semantic_segs):
        """Return mmdet's own ground truth, which has labels and masks alone, with the weights."""
        kept = [image[(image.class_weight > 0) | (image.mask_weight > 0)] for image in batch_gt_instances]
        results = super().preprocess_gt(kept, batch_gt_semantic_segs)
        for result, image in zip(results, kept, strict=True):
            result.class_weight, result.mask_weight = image.class_weight, image.mask_weight
            # Every layer samples points twice per image: the image's seed gives a sequence of seeds.
            seeds = None if image.seed is None else random.Random(image.seed)
            result.set_metainfo({"background": image.background, "seeds": seeds})
        return results

    def loss_by_feat(self, all_cls_scores, all_mask_preds, batch_gt_instances, batch_img_metas):
        """Return class, mask, dice and mask_iou, each summed over the layers."""
        layers = [
            self._layer_losses(scores, masks, batch_gt_instances, batch_img_metas)
            for scores, masks in zip(all_cls_scores, all_mask_preds, strict=True)
        ]
        return {term: torch.stack([layer[term] for layer in layers]).sum() for term in layers[0]}

    def _get_targets_single(self, cls_score, mask_pred, gt_instances, img_meta):
        """Return mmdet's own targets with weights, and the mask weight f32[matched] of matched queries after them."""
        _seed(cls_score.device, gt_instances)
        targets = super()._get_targets_single(cls_score, mask_pred, gt_instances, img_meta)
        labels, _, masks, matched, positive, negative, sampled = targets
        background = gt_instances.background  # a function of boxes does not apply to queries
        weights = cls_score.new_full((len(cls_score),), 1.0 if callable(background) else background)
        weights[positive] = gt_instances.class_weight[sampled.pos_assigned_gt_inds]
        mask_weights = gt_instances.mask_weight[sampled.pos_assigned_gt_inds]
        return labels, weights, masks, matched, positive, negative, sampled, mask_weights

    def _layer_losses(self, scores, mask_preds, batch_gt_instances, batch_img_metas):
        logits, mask_iou = scores[..., :-1], scores[..., -1]
        labels, weights, targets, matched, count, mask_weights = self.get_targets(
            list(logits), list(mask_preds), batch_gt_instances, batch_img_metas
        )
        labels, weights, matched = torch.cat(labels), torch.cat(weights), torch.stack(matched) > 0
        rows = self.loss_cls(logits.flatten(0, 1), labels, weights, reduction_override="none")
        losses = {"class": rows.sum() / self._class_normalizer(labels, logits)}
        normalizer = self.normalizer(count)
        masks, target = mask_preds[matched], torch.cat(targets)[:, None].float()
        if len(masks) == 0:
            return losses | {"mask": masks.sum(), "dice": masks.sum(), "mask_iou": mask_iou[matched].sum()}
        with torch.no_grad():
            points = self._sample_points(masks[:, None], [len(image) for image in targets], batch_gt_instances)
            point_targets = point_sample(target, points)[:, 0]
        point_logits = point_sample(masks[:, None], points)[:, 0]
        mask_weights = torch.cat(mask_weights)
        # mmdet's own division adds 1e-7 to the count, so that the losses of two halves would not add up to the whole.
        pixels = self.loss_mask(point_logits.reshape(-1), point_targets.reshape(-1), reduction_override="none")
        losses["mask"] = weighted_mean(pixels.reshape(point_logits.shape), mask_weights, normalizer)
        dice = self.loss_dice(point_logits, point_targets, mask_weights, reduction_override="none")
        losses["dice"] = dice.sum() / normalizer
        soft = F.interpolate(target, masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        iou = soft_mask_iou(masks.detach() >= 0, soft)
        losses["mask_iou"] = mask_iou_loss(mask_iou[matched], iou, normalizer)
        return losses

    def _class_normalizer(self, labels, logits):
        """Return the normaliser of the class loss: the sum of the class weights of all labels, as in mmdet.

        The count is a multiple of the least class weight, because a normaliser returns at least 1.
        """
        least = min(weight for weight in self.class_weight if weight)
        return least * self.normalizer(logits.new_tensor(self.class_weight)[labels].sum() / least)

    def _sample_points(self, masks, counts, images):
        """Return the points f32[n,P,2] at which masks f32[n,1,h,w] are compared, sampled image by image if seeded."""
        groups = masks.split(counts) if images[0].seeds else [masks]
        points = []
        for group, image in zip(groups, images, strict=False):
            _seed(masks.device, image)
            if len(group):
                points.append(
                    get_uncertain_point_coords_with_randomness(
                        group, None, self.num_points, self.oversample_ratio, self.importance_sample_ratio
                    )
                )
        return torch.cat(points)


class MaskIoUFusionHead(MaskFormerFusionHead):
    """Keep the predicted mask IoU of each query that becomes an instance."""

    def instance_postprocess(self, mask_cls, mask_pred):
        """Return mmdet's own instances, with mask_iou; the same call of topk yields the queries that they come from."""
        logits, mask_iou = mask_cls[:, :-1], mask_cls[:, -1]
        results = super().instance_postprocess(logits, mask_pred)
        scores = F.softmax(logits, dim=-1)[:, :-1].flatten(0, 1)
        index = scores.topk(self.test_cfg.get("max_per_image", 100), sorted=False)[1]
        index = index[index % self.num_classes < self.num_things_classes]
        results.mask_iou = mask_iou.sigmoid()[index // self.num_classes]
        return results


def _seed(device: torch.device, image) -> None:
    """Seed torch with the next of the image's seeds, if it has any."""
    seed_sampling(device, image.seeds and image.seeds.getrandbits(32))
