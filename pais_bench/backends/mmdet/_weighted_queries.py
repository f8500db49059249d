"""Weight the losses of mmdet's Mask2Former by the instance that each query is matched to.

At unit weights each loss is mmdet's own, with its own random points. A query knows no box, so box_weight is ignored.
Matching costs are not weighted: an instance takes a query whatever its weights are, unless both its class and its mask
have weight 0; such an instance is removed before the matching. The classes here extend those that a config names
(_config.Extension).
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from mmcv.ops import point_sample
from mmdet.models.dense_heads import Mask2FormerHead
from mmdet.models.utils import get_uncertain_point_coords_with_randomness
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from pais_bench.geometry import masks_to_boxes, nonzero_each, sample_maps
from pais_bench.layers.losses import mask_iou_loss, soft_mask_iou, weighted_mean
from pais_bench.layers.precision import to_full_precision
from pais_bench.layers.roi_losses import boxless_background
from pais_bench.layers.seeding import seed_sampling
from pais_bench.types import InstanceMaps, Instances, LossNormalizer, Size


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
        self.register_buffer("label_weight", torch.tensor(self.class_weight), persistent=False)

    def init_weights(self):
        """Initialise mmdet's own layers as without the mask-IoU branch, and the branch last."""
        super().init_weights()
        self.cls_embed.mask_iou.load_state_dict(self.cls_embed.new_branch().state_dict())

    def preprocess_gt(self, batch_gt_instances, batch_gt_semantic_segs):
        """Return the instances that have a weight with labels, masks bool[n,H,W] and weights; mmdet's masks are i64."""
        wanted = [(image.class_weight > 0) | (image.mask_weight > 0) for image in batch_gt_instances]
        return [
            _supervision(image, index) for image, index in zip(batch_gt_instances, nonzero_each(wanted), strict=True)
        ]

    def predict(self, x, batch_data_samples):
        """Return the last layer's scores and mask logits; mmdet upsamples all masks to full size here."""
        scores, masks = self(x, batch_data_samples)
        return to_full_precision(scores[-1]), to_full_precision(masks[-1])

    def loss_by_feat(self, all_cls_scores, all_mask_preds, batch_gt_instances, batch_img_metas):
        """Return class, mask, dice and mask_iou, each summed over the layers; costs and losses in full precision."""
        with torch.autocast(all_cls_scores[0].device.type, enabled=False):
            layers = [
                self._layer_losses(
                    to_full_precision(scores), to_full_precision(masks), batch_gt_instances, batch_img_metas
                )
                for scores, masks in zip(all_cls_scores, all_mask_preds, strict=True)
            ]
            return {term: torch.stack([layer[term] for layer in layers]).sum() for term in layers[0]}

    def _get_targets_single(self, cls_score, mask_pred, gt_instances, img_meta):
        """Return mmdet's own targets with weights, and after them, of matched queries, mask weights and instances.

        They are f32[matched] and i64[matched].
        """
        _seed(cls_score.device, gt_instances)
        # scipy would refuse NaN with an error of its own; their losses are NaN too, which the trainer tells
        targets = super()._get_targets_single(cls_score.nan_to_num(), mask_pred.nan_to_num(), gt_instances, img_meta)
        labels, _, masks, matched, positive, negative, sampled = targets
        weights = cls_score.new_full((len(cls_score),), boxless_background(gt_instances.background))
        owner = sampled.pos_assigned_gt_inds
        weights[positive] = gt_instances.class_weight[owner]
        return labels, weights, masks, matched, positive, negative, sampled, gt_instances.mask_weight[owner], owner

    def _layer_losses(self, scores, mask_preds, batch_gt_instances, batch_img_metas):
        logits, mask_iou = scores[..., :-1], scores[..., -1]
        labels, weights, targets, matched, count, mask_weights, owners = self.get_targets(
            list(logits), list(mask_preds), batch_gt_instances, batch_img_metas
        )
        labels, weights = torch.cat(labels), torch.cat(weights)
        matched = torch.nonzero_static(torch.cat(matched) > 0, size=sum(len(image) for image in targets))[:, 0]
        rows = self.loss_cls(logits.flatten(0, 1), labels, weights, reduction_override="none")
        losses = {"class": rows.sum() / self._class_normalizer(labels)}
        normalizer = self.normalizer(count)
        masks, mask_iou = mask_preds.flatten(0, 1)[matched], mask_iou.flatten()[matched]
        target = torch.cat(targets)[:, None].float()
        if len(masks) == 0:
            return losses | {"mask": masks.sum(), "dice": masks.sum(), "mask_iou": mask_iou.sum()}
        with torch.no_grad():
            points = self._sample_points(masks[:, None], [len(image) for image in targets], batch_gt_instances)
            point_targets = point_sample(target, points)[:, 0]
        point_logits = point_sample(masks[:, None], points)[:, 0]
        mask_weights = torch.cat(mask_weights)
        # mmdet's own division adds 1e-7 to the count, so that the losses of two halves would not add up to the whole.
        pixels = self.loss_mask(point_logits.reshape(-1), point_targets.reshape(-1), reduction_override="none")
        pixels = pixels.reshape(point_logits.shape)
        if any("pixel_weight" in image for image in batch_gt_instances):
            pixels = pixels * _pixel_weights(batch_gt_instances, owners, points, target.shape[-2:])
        losses["mask"] = weighted_mean(pixels, mask_weights, normalizer)
        dice = self.loss_dice(point_logits, point_targets, mask_weights, reduction_override="none")
        losses["dice"] = dice.sum() / normalizer
        soft = F.interpolate(target, masks.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        iou = soft_mask_iou(masks.detach() >= 0, soft)
        losses["mask_iou"] = mask_iou_loss(mask_iou, iou, normalizer)
        return losses

    def _class_normalizer(self, labels):
        """Return the normaliser of the class loss: the sum of the class weights of all labels, as in mmdet.

        The count is a multiple of the least class weight, because a normaliser returns at least 1.
        """
        least = min(weight for weight in self.class_weight if weight)
        return least * self.normalizer(self.label_weight[labels].sum() / least)

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


def rank_queries(scores: Tensor, masks: Tensor, most: int, padded: Size, size: Size, soft: bool = False) -> Instances:
    """Return at most `most` pairs of query and class of a view, the best as mmdet does, by falling score.

    scores f32[N,C+2] | masks: logits f32[N,h,w], of which only the pairs' own are upsampled; the view of size (H, W)
    was padded. A score is that of the class times the mean probability in the mask, so that no mask can be left out
    before; a mask may be empty. They have a mask IoU; soft: whether soft masks, at the stride, and class_probs too.
    """
    classes = scores.shape[1] - 2
    probs = scores[:, :-1].softmax(-1)[:, :-1]
    probability, index = probs.flatten().topk(min(most, probs.numel()), sorted=False)
    query, labels = index // classes, index % classes
    logits = F.interpolate(masks[None, query], padded, mode="bilinear", align_corners=False)[0, :, : size[0], : size[1]]
    inside = logits > 0
    certainty = (logits.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    mask_iou = scores[:, -1].sigmoid()[query]
    found = Instances(masks_to_boxes(inside), labels, inside, probability * certainty, mask_iou)
    if soft:
        found = replace(found, soft_masks=_soft_masks(masks[query], padded, size), class_probs=probs[query])
    return found[found.scores.argsort(descending=True, stable=True)]


def _soft_masks(masks: Tensor, padded: Size, size: Size) -> InstanceMaps:
    """Return probabilities of mask logits f32[n,h,w] of a padded view, cut to the cells that the view (H, W) covers."""
    stride = padded[0] // masks.shape[-2]
    height, width = -(-size[0] // stride), -(-size[1] // stride)
    boxes = masks.new_zeros((len(masks), 4))
    boxes[:, 2], boxes[:, 3] = width * stride, height * stride
    return InstanceMaps(masks[:, :height, :width].sigmoid(), boxes, torch.eye(3, dtype=torch.float64))


def _pixel_weights(images, owners, points: Tensor, padded) -> Tensor:
    """Return the weights f32[n,P] at points f32[n,P,2] in 0..1 of the padded view (H, W); owners: see get_targets.

    They are 1 in images without pixel weights.
    """
    scale = torch.stack((points[..., 0] * padded[1], points[..., 1] * padded[0]), -1)[:, None]
    parts = zip(images, owners, scale.split([len(owner) for owner in owners]), strict=True)
    return torch.cat(
        [
            sample_maps(image.pixel_weight[owner], own, outside=1.0)[:, 0]
            if "pixel_weight" in image
            else own.new_ones((len(own), own.shape[2]))
            for image, owner, own in parts
        ]
    )


def _supervision(image: InstanceData, index: Tensor) -> InstanceData:
    result = InstanceData(
        labels=image.labels[index],
        masks=image.masks.tensor[index],
        class_weight=image.class_weight[index],
        mask_weight=image.mask_weight[index],
    )
    if "pixel_values" in image:
        maps = InstanceMaps(image.pixel_values, image.pixel_boxes, image.pixel_matrix)
        result.pixel_weight = maps[index]
    # Every layer samples points twice per image: the image's seed gives a sequence of seeds.
    seeds = None if image.seed is None else random.Random(image.seed)
    result.set_metainfo({"background": image.background, "seeds": seeds})
    return result


def _seed(device: torch.device, image) -> None:
    """Seed torch with the next of the image's seeds, if it has any."""
    seed_sampling(device, image.seeds and image.seeds.getrandbits(32))
