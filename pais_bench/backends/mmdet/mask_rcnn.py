"""Build mmdet's Mask R-CNN with a weight for every instance in its losses.

Kept from mmdet: config, network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets
(_weighted_regions.py), a mask-IoU head, and the options that single baselines set. At unit weights each stock loss is
mmdet's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

from pais_bench.backends.base import FrameworkOptions, RoIOptions
from pais_bench.backends.mmdet._config import (
    SMALL_BACKBONE,
    SMALL_CHANNELS,
    Extension,
    build_pretrained,
    compile_features,
    use_channels_last,
)
from pais_bench.backends.mmdet._samples import to_batch, to_instances
from pais_bench.backends.mmdet._weighted_regions import (
    MaskIoURoIHead,
    NoiseTolerantLayer,
    RegionSampler,
    SeededSampler,
    WeightedBBoxHead,
    WeightedMaskHead,
    WeightedRPN,
)
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.layers.network import Network
from pais_bench.types import BoxScorer, Instances, Keep, Losses, LossNormalizer, Size, Targets

TERMS = {
    "loss_rpn_cls": "objectness",
    "loss_rpn_bbox": "proposal_box",
    "loss_cls": "class",
    "loss_bbox": "box",
    "loss_mask": "mask",
    "loss_mask_iou": "mask_iou",
}
SMALL: dict[str, Any] = {
    **SMALL_BACKBONE,
    "neck.in_channels": SMALL_CHANNELS,
    "neck.out_channels": 32,
    "rpn_head.in_channels": 32,
    "rpn_head.feat_channels": 32,
    "rpn_head.anchor_generator.scales": [4],
    "roi_head.bbox_roi_extractor.out_channels": 32,
    "roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": 1,
    "roi_head.bbox_head.in_channels": 32,
    "roi_head.bbox_head.fc_out_channels": 128,
    "roi_head.mask_roi_extractor.out_channels": 32,
    "roi_head.mask_roi_extractor.roi_layer.sampling_ratio": 1,
    "roi_head.mask_head.num_convs": 1,
    "roi_head.mask_head.in_channels": 32,
    "roi_head.mask_head.conv_out_channels": 32,
    "train_cfg.rpn.sampler.num": 64,
    "train_cfg.rpn_proposal.nms_pre": 200,
    "train_cfg.rpn_proposal.max_per_img": 100,
    "train_cfg.rcnn.sampler.num": 48,
    "train_cfg.rcnn.sampler.pos_fraction": 0.5,
    "test_cfg.rpn.nms_pre": 200,
    "test_cfg.rpn.max_per_img": 50,
    "test_cfg.rcnn.max_per_img": 15,
}
"""The settings of a network for small images on a CPU, like torchvision/mask_rcnn's small one in the demo."""

SUPPORTED: dict[str, Sequence[Any]] = {
    "type": ("MaskRCNN",),
    "rpn_head.type": ("RPNHead",),
    "rpn_head.loss_cls.type": ("CrossEntropyLoss",),
    "roi_head.type": ("StandardRoIHead",),
    "roi_head.shared_head": (None,),
    "roi_head.bbox_head.type": ("Shared2FCBBoxHead", "Shared4Conv1FCBBoxHead"),
    "roi_head.bbox_head.loss_cls.type": ("CrossEntropyLoss",),
    "roi_head.bbox_head.loss_cls.use_sigmoid": (False, None),
    "roi_head.mask_head.type": ("FCNMaskHead",),
    "roi_head.mask_head.loss_mask.type": ("CrossEntropyLoss",),
    "train_cfg.rpn.sampler.type": ("RandomSampler",),
    "train_cfg.rcnn.sampler.type": ("RandomSampler",),
}
"""The modules and losses of mmdet that the weighted ones stand for; None: the config has no such key."""

_NOISE_TOLERANT: dict[str, Any] = {
    "roi_head.mask_head.upsample_cfg": {"type": None},
    "roi_head.mask_head.predictor_cfg": {"type": NoiseTolerantLayer.__name__},
}


class Options(RoIOptions, FrameworkOptions):
    """Set the network; the defaults are mmdet's Mask R-CNN R50-FPN."""

    config: str = "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
    """The model of the config has to be a Mask R-CNN of one stage of RoIs; overrides are keys of it: backbone.depth."""


class Backend(Network):
    """Compute losses and predictions with mmdet's Mask R-CNN."""

    def __init__(self, num_classes: int, options: Options, pretrained: bool = True) -> None:
        super().__init__()
        self.compile_features = options.compile
        self.model = _build(num_classes, options, pretrained)
        use_channels_last(self.model)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.model.backbone.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size = (0, 0)
    ) -> Losses:
        """Return objectness, proposal_box, class, box, mask and mask_iou of a batch of views."""
        ensure_train_mode(self)
        if self.compile_features:
            compile_features(self.model)
        heads = self.model.roi_head
        # mmdet copies the samples on their way to the RPN, and a recording normaliser may not be copied.
        self.model.rpn_head.normalizer = heads.bbox_head.normalizer = heads.mask_head.normalizer = normalizer
        losses = self.model.loss(*to_batch(self.model, images, targets, pad_to))
        return {term: total(losses[name]) for name, term in TERMS.items()}

    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return the instances that the config's test_cfg keeps of each view, by falling score; restore the mode."""
        return self._predict(images, pad_to, keep)[0]

    def predict_with_scorers(
        self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None
    ) -> tuple[list[Instances], list[BoxScorer]]:
        """Return what predict does, and each view's scorer of boxes, from the same pass of the backbone."""
        detections, features = self._predict(images, pad_to, keep)
        of_view = [[level[view : view + 1] for level in features] for view in range(len(images))]
        return detections, [partial(self._score, one) for one in of_view]

    @torch.no_grad()
    def _predict(
        self, images: Sequence[Tensor], pad_to: Size, keep: Keep | None
    ) -> tuple[list[Instances], Sequence[Tensor]]:
        with eval_mode(self):
            if self.compile_features:
                compile_features(self.model)
            batch, samples = to_batch(self.model, images, pad_to=pad_to)
            features, heads = self.model.extract_feat(batch), self.model.roi_head
            proposals = self.model.rpn_head.predict(features, samples, rescale=False)
            views = [sample.metainfo for sample in samples]
            found = heads.predict_bbox(features, views, proposals, heads.test_cfg)
            return [to_instances(one) for one in heads.predict_mask(features, views, found, keep=keep)], features

    @torch.no_grad()
    def _score(self, features: Sequence[Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
        with eval_mode(self):
            scored: tuple[Tensor, Tensor] = self.model.roi_head.score(features, boxes)
            return scored


def total(loss: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the sum of a loss that mmdet may give for each level of the pyramid."""
    return loss if isinstance(loss, Tensor) else torch.stack(list(loss)).sum()


def stock_settings(num_classes: int) -> dict[str, Any]:
    """Return the settings with which mmdet's own classes build the network."""
    return {f"roi_head.{head}.num_classes": num_classes for head in ("bbox_head", "mask_head")}


def _build(num_classes: int, options: Options, pretrained: bool) -> Any:
    settings = stock_settings(num_classes)
    added_weights = ["roi_head.mask_iou_head."]
    if options.mask_head == "noise_tolerant":
        settings |= _NOISE_TOLERANT
        added_weights += ["roi_head.mask_head.upsample.", "roi_head.mask_head.conv_logits."]
    mask_options = {"boundary_weight": options.boundary_weight, "mask_iou_weight": options.mask_iou_weight}
    extensions = {
        "rpn_head": Extension(MODELS, WeightedRPN),
        "roi_head": Extension(MODELS, MaskIoURoIHead, {"mask_iou_channels": options.mask_iou_channels}),
        "roi_head.bbox_head": Extension(MODELS, WeightedBBoxHead, {"focal_gamma": options.focal_gamma}),
        "roi_head.mask_head": Extension(MODELS, WeightedMaskHead, mask_options),
        "train_cfg.rpn.sampler": Extension(TASK_UTILS, SeededSampler),
        "train_cfg.rcnn.sampler": Extension(TASK_UTILS, RegionSampler),
    }
    return build_pretrained(options, SMALL, settings, extensions, SUPPORTED, added_weights, pretrained)
