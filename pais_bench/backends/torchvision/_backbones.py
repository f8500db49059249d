"""Build backbones with a feature pyramid."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pais_bench.backends.base import BackboneOptions
from pais_bench.backends.torchvision._frozen_norm import FoldedBatchNorm2d
from pais_bench.backends.torchvision._mobilenet import MobileNetV2FPN
from pais_bench.layers.pretrained import fit_weights, read_weights


class PyramidOptions(BackboneOptions):
    """Set a backbone of torchvision's and its feature pyramid."""

    backbone: Literal["resnet50", "mobilenet_v2", "small"] = "resnet50"  # type: ignore[assignment]
    """mobilenet_v2: for photos on a CPU; small: for drawings on a CPU."""
    fpn_channels: int = Field(default=256, ge=1)
    """Channels of each level; small has 32."""


def build_backbone(options: PyramidOptions) -> tuple[Any, int]:
    """Build a backbone with its feature pyramid; return it and the number of levels of strides 4, 8, ..."""
    if options.backbone == "small":
        return Small(), 3
    build = MobileNetV2FPN if options.backbone == "mobilenet_v2" else resnet50_fpn
    return build(options.pretrained_backbone, options.fpn_channels), 4


def resnet50_fpn(weights: Path | None, channels: int = 256) -> nn.Module:
    """Build ResNet-50 and an FPN, P2..P6, strides 4..64, with frozen batch norm, stem and first stage.

    weights is a state dict of torchvision's resnet50 on disk, ImageNet's as a rule. Without it nothing is frozen and
    batch norm learns, because a random network behind frozen statistics diverges.
    """
    body = resnet50(weights=None, norm_layer=FoldedBatchNorm2d if weights else nn.BatchNorm2d)
    if weights:
        load_weights(body, weights)
        for frozen in (body.conv1, body.bn1, body.layer1):
            frozen.requires_grad_(False)
    return BackboneWithFPN(
        body,
        return_layers={f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)},
        in_channels_list=[256, 512, 1024, 2048],
        out_channels=channels,
        extra_blocks=LastLevelMaxPool(),
    )


class Small(nn.Module):
    """Compute three 32-channel maps of strides 4, 8 and 16 with 0.2 M parameters and batch norm, for a CPU."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 32, 64, 96)
        self.body = nn.ModuleList(
            nn.Sequential(_conv(before, width, stride=2), _conv(width, width))
            for before, width in zip((3, *widths), widths, strict=False)
        )
        self.fpn = FeaturePyramidNetwork(list(widths[1:]), 32)
        self.out_channels = 32  # torchvision's detectors ask a backbone for it

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map f32[B,3,H,W] to the three levels "0", "1", "2"."""
        levels: OrderedDict[str, Tensor] = OrderedDict()
        x = images
        for i, stage in enumerate(self.body):
            x = stage(x)
            if i:
                levels[str(i - 1)] = x
        return self.fpn(levels)


def _conv(before: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def load_weights(module: nn.Module, path: Path, optional: tuple[str, ...] = ()) -> None:
    """Load a state dict from disk; a classifier's last layer, and names that begin with `optional`, may be missing.

    Raises BenchError where the file is missing, is no state dict, or its names or shapes do not fit.
    """
    fit_weights(module, read_weights(path), path, optional=("fc.", *optional))
