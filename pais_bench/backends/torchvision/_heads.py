"""Build the RoI pooler and box head that torchvision has no constructor for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops.poolers import initLevelMapper

from pais_bench.backends.torchvision._boxes import LevelRoIAlign


def roi_pool(levels: int, size: int, samples: int) -> LevelRoIAlign:
    """Build a pooler of strides 4, 8, ...: torchvision guesses them from its first batch, which errs on small views."""
    pool = LevelRoIAlign([str(level) for level in range(levels)], output_size=size, sampling_ratio=samples)
    pool.scales = [2.0 ** -(level + 2) for level in range(levels)]
    pool.map_levels = initLevelMapper(2, levels + 1)
    return pool


def box_head(channels: int, convs: Sequence[int], features: int) -> nn.Module:
    """Build the usual two-layer head, or one of convolutions with norms, which learns from scratch at a high rate."""
    if not convs:
        return TwoMLPHead(channels * 7**2, features)
    first, *rest = convs
    layers = [*_conv(channels, first), nn.MaxPool2d(2, ceil_mode=True)]
    for before, width in zip(convs, rest, strict=False):
        layers += _conv(before, width)
    layers += [nn.Flatten(), nn.Linear(convs[-1] * 4**2, features, bias=False)]
    return nn.Sequential(*layers, nn.LayerNorm(features), nn.ReLU(inplace=True))


def _conv(before: int, width: int) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
