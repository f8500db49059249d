"""What is Mask R-CNN with weights in mmdet? mmdet's own model; here is only how a weight enters its losses.

Kept from mmdet: config, network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets
(_weighted_regions.py), a mask-IoU head, and what single baselines ask of a network. At unit weights each stock loss is
mmdet's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pais_bench.asking import enter_training, evaluating
from pais_bench.backends.mmdet._networks import (
    SMALL_BACKBONE,
    SMALL_CHANNELS,
    build_pretrained,
    inputs,
    lay_channels_last,
    mixed,
)
from pais_bench.backends.mmdet._weighted_regions import (
    CarryingSampler,
    QualityRoIs,
    SeededSampler,
    WeightedBoxes,
    WeightedMasks,
    WeightedProposals,
)
from pais_bench.config import Frozen
from pais_bench.noise_tolerant import NoiseTolerantPredictor
from pais_bench.quality import QualityHead
from pais_bench.types import Instances, Targets

_TERMS = {
    "loss_rpn_cls": "objectness",
    "loss_rpn_bbox": "proposal_box",
    "loss_cls": "class",
    "loss_bbox": "box",
    "loss_mask": "mask",
    "loss_quality": "quality",
}
SMALL: dict[str, Any] = {
    **SMALL_BACKBONE,
    "neck.in_channels": SMALL_CHANNELS,
    "neck.out_channels": 32,
    "rpn_head.in_channels": 32,
    "rpn_head.feat_channels": 32,
    "rpn_head.anchor_generator.scales": [4],
    "roi_head.bbox_roi_extractor.out_channels": 32,
    "roi_head.bbox_roi_extractor.roi_layer.sampling_ratio": 2,
    "roi_head.bbox_head.in_channels": 32,
    "roi_head.bbox_head.fc_out_channels": 128,
    "roi_head.mask_roi_extractor.out_channels": 32,
    "roi_head.mask_roi_extractor.roi_layer.sampling_ratio": 2,
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
"""What makes it a network that learns small images on a CPU, like torchvision/mask_rcnn's small one in the demo."""


class Options(Frozen):
    """Set the network; the defaults are mmdet's Mask R-CNN R50-FPN."""

    config: str = "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
    """A file below mmdet's own configs, or one of yours; its model has to be a Mask R-CNN of one stage of RoIs."""
    overrides: dict[str, Any] = {}
    """Keys of the config's model that differ, with dots: {backbone.depth: 101}."""
    backbone: Literal["resnet50", "small"] = "resnet50"
    """resnet50 is what the config says; small changes it to one of 1 M parameters for small images on a CPU."""
    weights: Path | None = None
    """State dict of the backbone on disk, torchvision's or mmdet's (ImageNet); None trains from random weights."""
    checkpoint: Path | None = None
    """A checkpoint of mmdet's for the whole network with the same number of classes, to start from."""
    mask_head: Literal["fcn", "noise_tolerant"] = "fcn"
    """fcn is what the config says; noise_tolerant replaces its last layers [Noisy Boundaries, paper.md 7]."""
    boundary_weight: float = Field(default=0.0, ge=0)
    """Mean weight of a mask's pixels, weighed by the predicted boundary; 0 weighs all alike [3: Noisy Boundaries]."""
    focal_gamma: float = Field(default=0.0, ge=0)
    """Exponent of a focal class loss; 0 is the config's, cross-entropy; Unbiased Teacher has 1.5."""
    quality_channels: int = Field(default=64, ge=1)


class Backend(nn.Module):
    """Offer loss and predict over mmdet's Mask R-CNN."""

    def __init__(self, classes: int, options: Options) -> None:
        super().__init__()
        heads = {"roi_head.bbox_head.num_classes": classes, "roi_head.mask_head.num_classes": classes}
        self.model = build_pretrained(options, SMALL, heads)
        rois = mixed(self.model.roi_head, QualityRoIs)
        rois.quality_head = QualityHead(rois.mask_roi_extractor.out_channels, options.quality_channels)
        mixed(rois.bbox_sampler, CarryingSampler)
        mixed(rois.bbox_head, WeightedBoxes).focal_gamma = options.focal_gamma
        mixed(rois.mask_head, WeightedMasks).boundary_weight = options.boundary_weight
        if options.mask_head == "noise_tolerant":
            _expect_noise(rois.mask_head)
        mixed(self.model.rpn_head, WeightedProposals)
        mixed(self.model.rpn_head.sampler, SeededSampler)
        lay_channels_last(self.model)

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that learn at the backbone's own rate."""
        return list(self.model.backbone.parameters())

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses objectness, proposal_box, class, box, mask and quality of a batch of views."""
        enter_training(self)
        losses = self.model.loss(*inputs(self.model, images, targets))
        return {term: _total(losses[name]) for name, term in _TERMS.items()}

    @torch.no_grad()
    def score(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Give class probabilities f32[n,C+1], background first, and boxes f32[n,C,4] for boxes f32[n,4] of each view.

        The boxes given back are those that the box head makes of the given ones, per class. The mode is restored.
        """
        with evaluating(self):
            batch, _ = inputs(self.model, images)
            return self.model.roi_head.score(self.model.extract_feat(batch), list(boxes))

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give the instances that the config's test_cfg keeps of each view, by falling score; restore the mode."""
        with evaluating(self):
            samples = self.model.predict(*inputs(self.model, images), rescale=False)
            return [_instances(sample.pred_instances) for sample in samples]


def _expect_noise(head: Any) -> None:
    """Let a mask head end in a fine and a coarse map, in the place of its doubling and its logits."""
    head.upsample = None
    width = head.conv_logits.in_channels
    head.conv_logits = NoiseTolerantPredictor(width, width, head.conv_logits.out_channels)


def _total(loss: Tensor | Sequence[Tensor]) -> Tensor:
    """Add up what mmdet gives level by level."""
    return loss if isinstance(loss, Tensor) else torch.stack(list(loss)).sum()


def _instances(found: Any) -> Instances:
    return Instances(
        boxes=found.bboxes.float(),
        labels=found.labels,
        masks=found.masks,
        scores=found.scores.float(),
        quality=found.quality.float(),
    )
