"""What is Mask R-CNN with weights? torchvision's own model; here is only how each instance's weight enters its losses.

Kept from torchvision: the network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets,
and a mask-IoU head. At unit weights each stock loss is torchvision's own. A region proposal knows no class, so its
losses follow box_weight: where an instance is; and background where none is. Weights of 0 make an ignored region.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

from pais_bench.backends.torchvision._backbones import Small, load_weights, resnet50_fpn
from pais_bench.backends.torchvision._heads import QualityHead, box_head, roi_pool
from pais_bench.config import Frozen
from pais_bench.losses import mask_iou, quality_loss, weighted_mean
from pais_bench.types import Instances, Targets

_TERMS = {"loss_objectness": "objectness", "loss_rpn_box_reg": "proposal_box"}


class Options(Frozen):
    """Set the network; the defaults are Mask R-CNN R50-FPN [paper.md 5]."""

    backbone: Literal["resnet50", "small"] = "resnet50"
    weights: Path | None = None
    """State dict of torchvision's resnet50 on disk (ImageNet); None trains from random weights."""
    checkpoint: Path | None = None
    """State dict of a whole torchvision Mask R-CNN with the same number of classes, to start from."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """One size a level of the pyramid, px."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    proposal_batch: int = 256
    proposals_train: int = 1000
    proposals_test: int = 1000
    roi_batch: int = 512
    roi_positive: float = 0.25
    box_convs: tuple[int, ...] = ()
    """Channels of the box head's 3x3 convolutions, halved in size after the first; none is the usual linear head."""
    roi_samples: int = 2
    """Points per side that are averaged in a cell of a region."""
    box_features: int = 1024
    mask_layers: tuple[int, ...] = (256, 256, 256, 256)
    quality_channels: int = 64
    score_threshold: float = 0.05
    detections: int = 100


class Backend(nn.Module):
    """Offer loss and predict over torchvision's Mask R-CNN."""

    def __init__(self, classes: int, options: Options) -> None:
        super().__init__()
        self.model = _build(classes, options)
        if options.checkpoint:
            load_weights(self.model, options.checkpoint)
        self.model.roi_heads.quality_head = QualityHead(options.mask_layers[-1], options.quality_channels)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that learn at the backbone's own rate."""
        return list(self.model.backbone.body.parameters())

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses objectness, proposal_box, class, box, mask and quality of a batch of views."""
        self.train()
        losses = self.model(list(images), [_torchvision_target(target) for target in targets])
        return {_TERMS.get(name, name): loss for name, loss in losses.items()}

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give at most `detections` instances a view, sorted by falling score; restore the mode."""
        mode = self.training
        self.eval()
        try:
            return [_instances(result) for result in self.model(list(images))]
        finally:
            self.train(mode)


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
            weights.append(torch.where(positive, _of_instance(target["box_weight"], matched), target["background"]))
        self.anchor_weight = torch.cat(weights)
        return labels, boxes

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        """Give the objectness and box losses of the sampled anchors."""
        positive, negative = (torch.cat(chosen).nonzero()[:, 0] for chosen in self.fg_bg_sampler(labels))
        sampled = torch.cat((positive, negative))
        weight = self.anchor_weight
        box = F.smooth_l1_loss(
            pred_bbox_deltas[positive], torch.cat(regression_targets)[positive], beta=1 / 9, reduction="none"
        )
        present = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="none"
        )
        return weighted_mean(present, weight[sampled]), (box.sum(1) * weight[positive]).sum() / max(len(sampled), 1)


class WeightedRoIHeads(RoIHeads):
    """Weigh the class, box and mask losses of each RoI by its instance, and predict the IoU of each mask."""

    def forward(self, features, proposals, image_shapes, targets=None):
        """Give (results, losses), as torchvision's own."""
        if self.training:
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._results(features, proposals, image_shapes), {}

    def _losses(self, features, proposals, image_shapes, targets):
        proposals, matched, labels, deltas = self.select_training_samples(proposals, targets)
        logits, box = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        losses = _class_and_box_losses(logits, box, labels, torch.cat(deltas), matched, targets)

        positive = [label > 0 for label in labels]
        rois = [roi[chosen] for roi, chosen in zip(proposals, positive, strict=True)]
        owners = [owner[chosen] for owner, chosen in zip(matched, positive, strict=True)]
        classes = torch.cat(labels)[torch.cat(positive)]
        mask_features, mask_logits = self._masks(features, rois, image_shapes)
        mask_logits = mask_logits[torch.arange(len(classes), device=classes.device), classes]
        masks, size = [target["masks"] for target in targets], mask_logits.shape[-1]
        crops = [project_masks_on_boxes(m, r, o, size) for m, r, o in zip(masks, rois, owners, strict=True)]
        outside = torch.cat([_area_outside(*image) for image in zip(masks, rois, owners, crops, strict=True)])
        truth = torch.cat(crops)
        weight = _gather([target["mask_weight"] for target in targets], owners)
        losses["mask"] = weighted_mean(F.binary_cross_entropy_with_logits(mask_logits, truth, reduction="none"), weight)

        probability = mask_logits.detach().sigmoid()
        iou = mask_iou(probability > 0.5, truth, outside)
        losses["quality"] = quality_loss(self.quality_head(mask_features, probability), iou)
        return losses

    def _results(self, features, proposals, image_shapes):
        logits, box = self.box_predictor(self.box_head(self.box_roi_pool(features, proposals, image_shapes)))
        boxes, scores, labels = self.postprocess_detections(logits, box, proposals, image_shapes)
        mask_features, mask_logits = self._masks(features, boxes, image_shapes)
        masks = maskrcnn_inference(mask_logits, labels)
        quality = self.quality_head(mask_features, torch.cat(masks)[:, 0]).sigmoid().split([len(box) for box in boxes])
        keys = ("boxes", "scores", "labels", "masks", "quality")
        return [
            dict(zip(keys, result, strict=True)) for result in zip(boxes, scores, labels, masks, quality, strict=True)
        ]

    def _masks(self, features, boxes, image_shapes):
        mask_features = self.mask_head(self.mask_roi_pool(features, boxes, image_shapes))
        return mask_features, self.mask_predictor(mask_features)


def _class_and_box_losses(logits, box, labels, deltas, matched, targets):
    rows, labels = torch.arange(len(logits), device=logits.device), torch.cat(labels)
    positive = labels > 0
    background = torch.cat([logits.new_full((len(m),), t["background"]) for m, t in zip(matched, targets, strict=True)])
    class_weight = torch.where(positive, _gather([target["class_weight"] for target in targets], matched), background)
    box_weight = _gather([target["box_weight"] for target in targets], matched)[positive]
    own = box.reshape(len(box), -1, 4)[rows[positive], labels[positive]]
    distance = F.smooth_l1_loss(own, deltas[positive], beta=1 / 9, reduction="none").sum(1)
    return {
        "class": weighted_mean(F.cross_entropy(logits, labels, reduction="none"), class_weight),
        "box": (distance * box_weight).sum() / max(len(labels), 1),
    }


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


def _area_outside(masks: Tensor, rois: Tensor, owners: Tensor, crops: Tensor) -> Tensor:
    """Give the area f32[n] of each RoI's instance beyond the RoI, in pixels of its crop f32[n,28,28]."""
    area = _of_instance(masks.flatten(1).sum(1).to(rois), owners)
    pixels = crops[0].numel() if len(crops) else 0
    scale = pixels / ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).clamp(min=1e-6)
    return (area * scale - crops.flatten(1).sum(1)).clamp(min=0)


class _Unresized(GeneralizedRCNNTransform):
    """Normalise and pad; a view already has its size."""

    def resize(self, image, target=None):
        return image, target


def _build(classes: int, options: Options) -> MaskRCNN:
    small = options.backbone == "small"
    backbone = Small() if small else resnet50_fpn(options.weights)
    channels, levels = (32, 3) if small else (256, 4)
    model = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in options.anchor_sizes), (options.anchor_ratios,) * len(options.anchor_sizes)
        ),
        rpn_pre_nms_top_n_train=2 * options.proposals_train,
        rpn_pre_nms_top_n_test=options.proposals_test,
        rpn_post_nms_top_n_train=options.proposals_train,
        rpn_post_nms_top_n_test=options.proposals_test,
        rpn_batch_size_per_image=options.proposal_batch,
        box_batch_size_per_image=options.roi_batch,
        box_roi_pool=roi_pool(levels, 7, options.roi_samples),
        mask_roi_pool=roi_pool(levels, 14, options.roi_samples),
        box_positive_fraction=options.roi_positive,
        box_head=box_head(channels, options.box_convs, options.box_features),
        box_predictor=FastRCNNPredictor(options.box_features, classes + 1),
        mask_head=MaskRCNNHeads(channels, options.mask_layers, 1),
        mask_predictor=MaskRCNNPredictor(options.mask_layers[-1], options.mask_layers[-1], classes + 1),
        box_score_thresh=options.score_threshold,
        box_detections_per_img=options.detections,
        size_divisible=2 ** (levels + 1),
    )
    # A change of class keeps torchvision's own construction; neither subclass has state of its own.
    model.rpn.__class__ = WeightedProposals
    model.roi_heads.__class__ = WeightedRoIHeads
    model.transform.__class__ = _Unresized
    return model


def _torchvision_target(target: Targets) -> dict:
    truth = target.instances
    return {
        "boxes": truth.boxes,
        "labels": truth.labels + 1,
        "masks": truth.masks,
        "class_weight": target.class_weight,
        "mask_weight": target.mask_weight,
        "box_weight": target.box_weight,
        "background": target.background,
    }


def _instances(result: dict[str, Tensor]) -> Instances:
    return Instances(
        boxes=result["boxes"].float(),
        labels=result["labels"] - 1,
        masks=result["masks"][:, 0] > 0.5,
        scores=result["scores"].float(),
        quality=result["quality"].float(),
    )
