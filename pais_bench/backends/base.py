"""Declare the options that networks of several frameworks share."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pais_bench.study.base import StrictConfig


class BackboneOptions(StrictConfig):
    """Set the backbone."""

    backbone: Literal["resnet50", "small"] = "resnet50"
    """small: for small images on a CPU; where the network comes from a framework's config, resnet50 is the config's."""
    pretrained_backbone: Path | None = None
    """Weights of the backbone on disk, in the format of the framework; None trains from random weights."""
    compile: bool = False
    """Compile backbone and feature pyramid with torch.compile, which takes a C compiler, and minutes at first."""


class FrameworkOptions(BackboneOptions):
    """Set a network that a framework builds from a config of its own."""

    config: str
    """A file below the framework's own configs, or one of yours, for the same kind of network."""
    overrides: dict[str, Any] = {}
    """Keys of the config that differ, with dots."""
    checkpoint: Path | None = None
    """A checkpoint of the framework for the whole network with the same number of classes, to start from."""


class RoIOptions(StrictConfig):
    """Set what is added to a framework's Mask R-CNN."""

    mask_head: Literal["fcn", "noise_tolerant"] = "fcn"
    """noise_tolerant adds a coarse map with a loss of its own [Noisy Boundaries, CVPR 2022]."""
    boundary_weight: float = Field(default=0.0, ge=0)
    """Mean weight of a mask's pixels, weighted by the predicted boundary; 0: all alike. Noisy Boundaries has 3."""
    focal_gamma: float = Field(default=0.0, ge=0)
    """Exponent of a focal class loss; 0: cross-entropy. Unbiased Teacher has 1.5."""
    mask_iou_channels: int = Field(default=64, ge=1)
    """Channels of the mask-IoU head."""
    mask_iou_weight: float = Field(default=1.0, ge=0)
    """Factor of the loss of the predicted mask IoU. The Mask R-CNN of the PAIS release has 0.25."""
