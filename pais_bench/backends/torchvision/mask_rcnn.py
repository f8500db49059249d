"""Build torchvision's Mask R-CNN with a weight for every instance in its losses.

Kept from torchvision: the network, anchors, matching, sampling, box coding, inference. What of these runs view by view
there, and makes the host wait for the device each time, runs for all views together here (_boxes.py, _weighted_rpn.py).
Added: the weights of Targets (_weighted_heads.py), a mask-IoU head, and the options that single baselines set. At unit
weights each stock loss is torchvision's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead

from pais_bench.backends.base import RoIOptions
from pais_bench.backends.torchvision._backbones import Pyramid, PyramidOptions, build_backbone
from pais_bench.backends.torchvision._boxes import FullPrecisionAnchors
from pais_bench.backends.torchvision._heads import box_head, roi_pool
from pais_bench.backends.torchvision._inputs import to_batch
from pais_bench.backends.torchvision._supervision import Supervision
from pais_bench.backends.torchvision._weighted_heads import WeightedRoIHeads
from pais_bench.backends.torchvision._weighted_rpn import WeightedRPN
from pais_bench.errors import BenchError
from pais_bench.layers.compilation import compile_once
from pais_bench.layers.mask_iou_head import MaskIoUHead
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.layers.network import Network
from pais_bench.layers.noise_tolerant_head import NoiseTolerantPredictor
from pais_bench.layers.paste import kept_instances
from pais_bench.layers.pretrained import fit_weights, read_weights
from pais_bench.types import BoxScorer, Instances, Keep, Losses, LossNormalizer, Size, Targets

TERMS = {"loss_objectness": "objectness", "loss_rpn_box_reg": "proposal_box"}
MASK_SHIFT = 0.5
"""Pixels by which torchvision's mask targets, which its RoIAlign crops without the half pixel, show what lies below and
to the right (docs/explanation/networks.md)."""


Count = Annotated[int, Field(ge=1)]


class Options(RoIOptions, PyramidOptions):
    """Set the network under torchvision's own names; the defaults are Mask R-CNN R50-FPN."""

    checkpoint: Path | None = None
    """State dict of a whole torchvision Mask R-CNN with the same number of classes, to start from."""
    anchor_sizes: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """One size a level of the pyramid, px."""
    anchor_ratios: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.5, 1.0, 2.0), min_length=1)
    rpn_batch_size_per_image: Count = 256
    rpn_post_nms_top_n_train: Count = 1000
    rpn_post_nms_top_n_test: Count = 1000
    box_batch_size_per_image: Count = 512
    box_positive_fraction: float = Field(default=0.25, gt=0, le=1)
    box_convs: tuple[Count, ...] = ()
    """Channels of the box head's 3x3 convolutions, halved in size after the first; none: the usual linear head."""
    box_features: Count = 1024
    box_score_thresh: float = Field(default=0.05, ge=0, le=1)
    box_detections_per_img: Count = 100
    sampling_ratio: int = 2
    """Points per side that RoIAlign averages in a cell; below 1: as many as the cell has pixels."""
    mask_layers: tuple[Count, ...] = Field(default=(256, 256, 256, 256), min_length=1)


class Backend(Network):
    """Compute losses and predictions with torchvision's Mask R-CNN."""

    def __init__(self, num_classes: int, options: Options, pretrained: bool = True) -> None:
        super().__init__()
        backbone = build_backbone(options, pretrained)
        levels = backbone.levels + (backbone.fpn.extra_blocks is not None)
        if len(options.anchor_sizes) != levels:
            raise BenchError(
                f"anchor_sizes: {len(options.anchor_sizes)} sizes, but backbone '{options.backbone}' has {levels} "
                f"levels; give one a level"
            )
        self.divisor = 2 ** (backbone.levels + 1)
        self.compile_backbone = options.compile
        self.model = _build(num_classes, options, backbone)
        if options.checkpoint and pretrained:
            weights = read_weights(options.checkpoint)
            fit_weights(self.model, weights, options.checkpoint, optional=("roi_heads.mask_iou_head.",))
        if backbone.channels_last:
            self.to(memory_format=torch.channels_last)

    def to(self, *arguments: Any, **named: Any) -> Any:
        """Move the network; on a GPU its layout is channels_last, on a CPU that of the backbone, which decides digits.

        A GPU that the machine has beside it changes nothing.
        """
        moved = super().to(*arguments, **named)
        return super().to(memory_format=torch.channels_last) if next(self.parameters()).is_cuda else moved

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.model.backbone.body.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return objectness, proposal_box, class, box, mask and mask_iou of a batch of views."""
        ensure_train_mode(self)
        batch, supervision = self._image_list(images, pad_to), Supervision(targets, normalizer)
        features = self._features(batch)
        proposals, rpn_losses = self.model.rpn(batch, features, supervision)
        roi_losses = self.model.roi_heads.losses(features, proposals, batch.image_sizes, supervision)
        return roi_losses | {TERMS[name]: loss for name, loss in rpn_losses.items()}

    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return at most `box_detections_per_img` instances a view, sorted by falling score; restore the mode."""
        return self._predict(images, pad_to, keep)[0]

    def predict_soft(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> list[Instances]:
        """Return what predict does, with soft masks on the boxes and class probabilities, which keep sees too."""
        return self._predict(images, pad_to, keep, soft=True)[0]

    def predict_with_scorers(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> tuple[list[Instances], list[BoxScorer]]:
        """Return what predict does, and each view's scorer of boxes, from the same pass of the backbone."""
        detections, features, sizes = self._predict(images, pad_to, keep)
        of_view = [{name: level[view : view + 1] for name, level in features.items()} for view in range(len(images))]
        return detections, [partial(self._score, one, size) for one, size in zip(of_view, sizes, strict=True)]

    @torch.no_grad()
    def _predict(
        self, images: Sequence[Tensor], pad_to: Size, keep: Keep | None, soft: bool = False
    ) -> tuple[list[Instances], Mapping[str, Tensor], list[Size]]:
        with eval_mode(self):
            batch = self._image_list(images, pad_to)
            features = self._features(batch)
            proposals, _ = self.model.rpn(batch, features)
            detections, masks, counts = self.model.roi_heads.detect(features, proposals, batch.image_sizes, soft)
            instances = kept_instances(detections, masks, counts, batch.image_sizes, keep, MASK_SHIFT, soft)
            return instances, features, batch.image_sizes

    @torch.no_grad()
    def _score(self, features: Mapping[str, Tensor], size: Size, boxes: Tensor) -> tuple[Tensor, Tensor]:
        with eval_mode(self):
            scored: tuple[Tensor, Tensor] = self.model.roi_heads.score(features, boxes, size)
            return scored

    def _features(self, batch: ImageList) -> dict[str, Tensor]:
        if self.compile_backbone:
            compile_once(self.model.backbone)
        features: dict[str, Tensor] = self.model.backbone(batch.tensors)
        return features

    def _image_list(self, images: Sequence[Tensor], pad_to: Size) -> ImageList:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        return ImageList(to_batch(images, self.divisor, pad_to, self.model.backbone.statistics), sizes)


def _build(num_classes: int, options: Options, backbone: Pyramid) -> GeneralizedRCNN:
    """Build the network without a transform, because views are resized before; parts are initialised in this order."""
    channels, levels, width = backbone.out_channels, backbone.levels, options.mask_layers[-1]
    predictor = NoiseTolerantPredictor if options.mask_head == "noise_tolerant" else MaskRCNNPredictor
    box = (
        roi_pool(levels, 7, options.sampling_ratio),
        box_head(channels, options.box_convs, options.box_features),
        FastRCNNPredictor(options.box_features, num_classes + 1),
    )
    mask_head = MaskRCNNHeads(channels, options.mask_layers, 1)
    mask_predictor = predictor(width, width, num_classes + 1)
    anchors = FullPrecisionAnchors(
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
        mask_shift=MASK_SHIFT,
    )
    return GeneralizedRCNN(backbone, rpn, roi_heads, transform=nn.Identity())
