"""How do the weights of Targets enter the losses of mmdet's Mask2Former? Mixins over its head and its postprocessing.

At unit weights each loss is mmdet's own, with its own random points. A query knows no box, so box_weight has no meaning
here. Costs of the matching are not weighted: an instance claims a query whatever its weights are. One whose class and
mask weigh 0 is removed before the matching.
"""

from __future__ import annotations

import random

import torch
from mmcv.ops import point_sample
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.losses import mask_iou, quality_loss, weighted_mean
from pais_bench.shares import mean_count, seed_draws


class ClassAndQuality(nn.Linear):
    """Classify a query as mmdet does, with a branch beside it: the last channel is the logit of its mask's IoU.

    A class put over mmdet's own layer, whose weights keep their names.
    """

    def add_branch(self) -> None:
        """Add the branch of K-Net in the PAIS release [paper.md 3.3]."""
        width = self.in_features
        self.quality = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.LayerNorm(width), nn.ReLU(inplace=True), nn.Linear(width, 1)
        )

    def forward(self, queries: Tensor) -> Tensor:
        """Map f32[B,N,c] to f32[B,N,C+2]: classes, no object, quality."""
        return torch.cat((super().forward(queries), self.quality(queries)), -1)


class WeightedQueries(Mask2FormerHead):
    """Weigh class, mask and dice losses of each query by its instance, and of unmatched ones by the background."""

    def preprocess_gt(self, batch_gt_instances, batch_gt_semantic_segs):
        """Give mmdet's own truth, which drops all but labels and masks, with the weights."""
        some = [given[(given.class_weight > 0) | (given.mask_weight > 0)] for given in batch_gt_instances]
        ready = super().preprocess_gt(some, batch_gt_semantic_segs)
        for one, given in zip(ready, some, strict=True):
            one.class_weight, one.mask_weight = given.class_weight, given.mask_weight
            # Every layer draws twice about an image: the seed gives a sequence of seeds.
            draws = None if given.seed is None else random.Random(given.seed)
            one.set_metainfo({"background": given.background, "draws": draws})
        return ready

    def _get_targets_single(self, cls_score, mask_pred, gt_instances, img_meta):
        """Give mmdet's own targets with weights, and the mask weight f32[matched] of each matched query after them."""
        _seed(cls_score.device, gt_instances)
        found = super()._get_targets_single(cls_score, mask_pred, gt_instances, img_meta)
        labels, _, masks, matched, positive, negative, sampled = found
        background = gt_instances.background
        weights = cls_score.new_full((len(cls_score),), 1.0 if callable(background) else background)
        weights[positive] = gt_instances.class_weight[sampled.pos_assigned_gt_inds]
        own = gt_instances.mask_weight[sampled.pos_assigned_gt_inds]
        return labels, weights, masks, matched, positive, negative, sampled, own

    def loss_by_feat(self, all_cls_scores, all_mask_preds, batch_gt_instances, batch_img_metas):
        """Sum each loss over the layers."""
        layers = [
            self._layer_losses(scores, masks, batch_gt_instances, batch_img_metas)
            for scores, masks in zip(all_cls_scores, all_mask_preds, strict=True)
        ]
        return {term: torch.stack([layer[term] for layer in layers]).sum() for term in layers[0]}

    def _layer_losses(self, scores, mask_preds, batch_gt_instances, batch_img_metas):
        logits, quality = scores[..., :-1], scores[..., -1]
        labels, weights, aims, matched, count, own = self.get_targets(
            list(logits), list(mask_preds), batch_gt_instances, batch_img_metas
        )
        labels, weights, chosen = torch.cat(labels), torch.cat(weights), torch.stack(matched) > 0
        rows = self.loss_cls(logits.flatten(0, 1), labels, weights, reduction_override="none")
        losses = {"class": rows.sum() / self._share(labels, logits)}
        count = mean_count(count, logits.device)
        masks, truth = mask_preds[chosen], torch.cat(aims)[:, None].float()
        if len(masks) == 0:
            return losses | {"mask": masks.sum(), "dice": masks.sum(), "quality": quality[chosen].sum()}
        own = torch.cat(own)
        with torch.no_grad():
            points = self._points(masks[:, None], [len(one) for one in aims], batch_gt_instances)
            aim = point_sample(truth, points)[:, 0]
        seen = point_sample(masks[:, None], points)[:, 0]
        # Without mmdet's own division, which adds 1e-7 to the count, so that half a count is not half of one.
        pixels = self.loss_mask(seen.reshape(-1), aim.reshape(-1), reduction_override="none").reshape(seen.shape)
        losses["mask"] = weighted_mean(pixels, own, count)
        losses["dice"] = self.loss_dice(seen, aim, own, reduction_override="none").sum() / count
        soft = F.interpolate(truth, masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        losses["quality"] = quality_loss(quality[chosen], mask_iou(masks.detach() >= 0, soft), count)
        return losses

    def _share(self, labels, logits):
        """Give the sum of the class weights of all labels, which mmdet divides the class loss by, of the whole step.

        It is asked for as a multiple of the least of them, so that it is at least 1.
        """
        least = min(weight for weight in self.class_weight if weight)
        return least * mean_count(logits.new_tensor(self.class_weight)[labels].sum() / least, logits.device)

    def _points(self, masks, counts, images):
        """Give the points f32[n,P,2] of masks f32[n,1,h,w] that are compared; with seeds they are drawn by image."""
        parts = masks.split(counts) if images[0].draws else [masks]
        points = []
        for part, image in zip(parts, images, strict=False):
            _seed(masks.device, image)
            if len(part):
                points.append(
                    get_uncertain_point_coords_with_randomness(
                        part, None, self.num_points, self.oversample_ratio, self.importance_sample_ratio
                    )
                )
        return torch.cat(points)


class QualityInstances(MaskFormerFusionHead):
    """Keep the predicted mask IoU of each query that becomes an instance."""

    def instance_postprocess(self, mask_cls, mask_pred):
        """Give mmdet's own instances, with quality; the same call of topk tells again which queries they are."""
        logits, quality = mask_cls[:, :-1], mask_cls[:, -1]
        results = super().instance_postprocess(logits, mask_pred)
        scores = F.softmax(logits, dim=-1)[:, :-1].flatten(0, 1)
        places = scores.topk(self.test_cfg.get("max_per_image", 100), sorted=False)[1]
        places = places[places % self.num_classes < self.num_things_classes]
        results.quality = quality.sigmoid()[places // self.num_classes]
        return results


def _seed(where: torch.device, image) -> None:
    """Let the next draws follow from the image, if it has a seed."""
    seed_draws(where, image.draws and image.draws.getrandbits(32))
