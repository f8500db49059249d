"""Build torchvision's Mask R-CNN with a weight for every instance in its losses.

Kept from torchvision: the network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets
(_weighted_heads.py), a mask-IoU head, and the options that single baselines set. At unit weights each stock loss is
torchvision's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.rpn import RPNHead

from pais_bench.backends.base import BackboneOptions, RoIOptions
from pais_bench.backends.torchvision._backbones import Small, load_weights, resnet50_fpn
from pais_bench.backends.torchvision._heads import box_head, roi_pool
from pais_bench.backends.torchvision._inputs import to_batch
from pais_bench.backends.torchvision._weighted_heads import Supervision, WeightedRoIHeads, WeightedRPN
from pais_bench.layers.mask_iou_head import MaskIoUHead
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.layers.noise_tolerant_head import NoiseTolerantPredictor
from pais_bench.types import Instances, Losses, LossNormalizer, Size, Targets

TERMS = {"loss_objectness": "objectness", "loss_rpn_box_reg": "proposal_box"}


class Options(RoIOptions, BackboneOptions):
    """Set the network under torchvision's own names; the defaults are Mask R-CNN R50-FPN."""

    checkpoint: Path | None = None
    """State dict of a whole torchvision Mask R-CNN with the same number of classes, to start from."""
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    """One size a level of the pyramid, px."""
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rpn_batch_size_per_image: int = 256
    rpn_post_nms_top_n_train: int = 1000
    rpn_post_nms_top_n_test: int = 1000
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    box_convs: tuple[int, ...] = ()
    """Channels of the box head's 3x3 convolutions, halved in size after the first; none: the usual linear head."""
    box_features: int = 1024
    box_score_thresh: float = 0.05
    box_detections_per_img: int = 100
    sampling_ratio: int = 2
    """Points per side that RoIAlign averages in a cell."""
    mask_layers: tuple[int, ...] = (256, 256, 256, 256)


class Backend(nn.Module):
    """Compute losses and predictions with torchvision's Mask R-CNN."""

    def __init__(self, num_classes: int, options: Options) -> None:
        super().__init__()
        levels = 3 if options.backbone == "small" else 4
        self.divisor = 2 ** (levels + 1)
        self.model = _build(num_classes, options, levels)
        self.to(memory_format=torch.channels_last)  # a sixth less of a step of the small network, on a CPU

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.model.backbone.body.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return objectness, proposal_box, class, box, mask and mask_iou of a batch of views."""
        ensure_train_mode(self)
        batch, supervision = self._image_list(images, pad_to), Supervision(targets, normalizer)
        features = self.model.backbone(batch.tensors)
        proposals, rpn_losses = self.model.rpn(batch, features, supervision)
        _, roi_losses = self.model.roi_heads(features, proposals, batch.image_sizes, supervision)
        return roi_losses | {TERMS[name]: loss for name, loss in rpn_losses.items()}

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0)) -> list[Instances]:
        """Return at most `box_detections_per_img` instances a view, sorted by falling score; restore the mode."""
        with eval_mode(self):
            batch = self._image_list(images, pad_to)
            features = self.model.backbone(batch.tensors)
            proposals, _ = self.model.rpn(batch, features)
            results, _ = self.model.roi_heads(features, proposals, batch.image_sizes)
            return [_instances(result, size) for result, size in zip(results, batch.image_sizes, strict=True)]

    @torch.no_grad()
    def score(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], pad_to: Size = (0, 0)
    ) -> list[tuple[Tensor, Tensor]]:
        """Return class probabilities f32[n,C+1], background first, and boxes f32[n,C,4] of each view's boxes f32[n,4].

        The returned boxes are those that the box head refines the given ones to, per class. The mode is restored.
        """
        with eval_mode(self):
            batch = self._image_list(images, pad_to)
            return self.model.roi_heads.score(self.model.backbone(batch.tensors), list(boxes), batch.image_sizes)

    def _image_list(self, images: Sequence[Tensor], pad_to: Size) -> ImageList:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return ImageList(to_batch(images, self.divisor, pad_to), sizes)


def _build(num_classes: int, options: Options, levels: int) -> GeneralizedRCNN:
    """Build the network without a transform, because views are resized before; parts are initialised in this order."""
    small = options.backbone == "small"
    backbone: Any = Small() if small else resnet50_fpn(options.pretrained_backbone)
    channels, width = backbone.out_channels, options.mask_layers[-1]
    predictor = NoiseTolerantPredictor if options.mask_head == "noise_tolerant" else MaskRCNNPredictor
    box = (
        roi_pool(levels, 7, options.sampling_ratio),
        box_head(channels, options.box_convs, options.box_features),
        FastRCNNPredictor(options.box_features, num_classes + 1),
    )
    mask_head, mask_predictor = (
        MaskRCNNHeads(channels, options.mask_layers, 1),
        predictor(width, width, num_classes + 1),
    )
    anchors = AnchorGenerator(
        tuple((size,) for size in options.anchor_sizes), (options.anchor_ratios,) * len(options.anchor_sizes)
    )
    rpn = WeightedRPN(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=options.rpn_batch_size_per_image,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * options.rpn_post_nms_top_n_train, "testing": options.rpn_post_nms_top_n_test},
        post_nms_top_n={"training": options.rpn_post_nms_top_n_train, "testing": options.rpn_post_nms_top_n_test},
        nms_thresh=0.7,
    )
    roi_heads = WeightedRoIHeads(
        *box,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=options.box_batch_size_per_image,
        positive_fraction=options.box_positive_fraction,
        bbox_reg_weights=None,
        score_thresh=options.box_score_thresh,
        nms_thresh=0.5,
        detections_per_img=options.box_detections_per_img,
        mask_roi_pool=roi_pool(levels, 14, options.sampling_ratio),
        mask_head=mask_head,
        mask_predictor=mask_predictor,
        mask_iou_head=MaskIoUHead(width, options.mask_iou_channels),
        roi=options,
    )
    model = GeneralizedRCNN(backbone, rpn, roi_heads, transform=nn.Identity())
    if options.checkpoint:
        load_weights(model, options.checkpoint, optional=("roi_heads.mask_iou_head.",))
    return model


def _instances(result: dict[str, Tensor], size: Size) -> Instances:
    """Paste the masks f32[N,1,28,28] of a result into a view of size (H, W)."""
    boxes = result["boxes"]
    return Instances(
        boxes=boxes.float(),
        labels=result["labels"] - 1,
        masks=paste_masks_in_image(result["masks"], boxes, size)[:, 0] > 0.5,
        scores=result["scores"].float(),
        mask_iou=result["mask_iou"].float(),
    )
