"""What is Mask R-CNN with weights? torchvision's own model; here is only how each instance's weight enters its losses.

Kept from torchvision: the network, anchors, matching, sampling, box coding, inference. Added: the weights of Targets
(_weighted.py), a mask-IoU head, and what single baselines ask of a network. At unit weights each stock loss is
torchvision's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pais_bench.asking import enter_training, evaluating
from pais_bench.backends.torchvision._backbones import Small, load_weights, resnet50_fpn
from pais_bench.backends.torchvision._heads import box_head, roi_pool
from pais_bench.backends.torchvision._weighted import SeededSampler, WeightedProposals, WeightedRoIHeads
from pais_bench.config import Frozen
from pais_bench.noise_tolerant import NoiseTolerantPredictor
from pais_bench.quality import QualityHead
from pais_bench.shares import padded_size
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
    mask_head: Literal["fcn", "noise_tolerant"] = "fcn"
    """noise_tolerant adds a coarse map with a loss of its own [Noisy Boundaries, paper.md 7]."""
    boundary_weight: float = Field(default=0.0, ge=0)
    """Mean weight of a mask's pixels, weighed by the predicted boundary; 0 weighs all alike [3: Noisy Boundaries]."""
    focal_gamma: float = Field(default=0.0, ge=0)
    """Exponent of a focal class loss; 0 is cross-entropy, Unbiased Teacher has 1.5."""
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
        self.to(memory_format=torch.channels_last)  # convolutions take a sixth less of a step, on a CPU too

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Give the parameters that learn at the backbone's own rate."""
        return list(self.model.backbone.body.parameters())

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the scalar losses objectness, proposal_box, class, box, mask and quality of a batch of views."""
        enter_training(self)
        for part in (self.model.rpn, self.model.roi_heads):
            part.fg_bg_sampler.seeds = [target.seed for target in targets]
        losses = self.model(list(images), [_torchvision_target(target) for target in targets])
        return {_TERMS.get(name, name): loss for name, loss in losses.items()}

    @torch.no_grad()
    def score(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Give class probabilities f32[n,C+1], background first, and boxes f32[n,C,4] for boxes f32[n,4] of each view.

        The boxes given back are those that the box head makes of the given ones, per class. The mode is restored.
        """
        with evaluating(self):
            batch, _ = self.model.transform(list(images))
            features = self.model.backbone(batch.tensors)
            return self.model.roi_heads.score(features, list(boxes), batch.image_sizes)

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give at most `detections` instances a view, sorted by falling score; restore the mode."""
        with evaluating(self):
            return [_instances(result) for result in self.model(list(images))]


class _Unresized(GeneralizedRCNNTransform):
    """Normalise and pad; a view already has its size."""

    def resize(self, image, target=None):
        return image, target

    def batch_images(self, images, size_divisible=32):
        height, width = padded_size(images, size_divisible)
        batch = images[0].new_zeros((len(images), images[0].shape[0], height, width))
        for image, place in zip(images, batch, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return batch


def _build(classes: int, options: Options) -> MaskRCNN:
    small = options.backbone == "small"
    backbone = Small() if small else resnet50_fpn(options.weights)
    channels, levels = (32, 3) if small else (256, 4)
    predictor = NoiseTolerantPredictor if options.mask_head == "noise_tolerant" else MaskRCNNPredictor
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
        mask_predictor=predictor(options.mask_layers[-1], options.mask_layers[-1], classes + 1),
        box_score_thresh=options.score_threshold,
        box_detections_per_img=options.detections,
        size_divisible=2 ** (levels + 1),
    )
    # A change of class keeps torchvision's own construction; neither subclass has state of its own.
    model.rpn.__class__ = WeightedProposals
    model.roi_heads.__class__ = WeightedRoIHeads
    model.transform.__class__ = _Unresized
    for part in (model.rpn, model.roi_heads):
        part.fg_bg_sampler.__class__ = SeededSampler
    model.roi_heads.focal_gamma, model.roi_heads.boundary_weight = options.focal_gamma, options.boundary_weight
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
