"""Which parts of a region-based network does torchvision not have ready?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper


class NoiseTolerantPredictor(nn.Module):
    """Predict masks from a fine and a coarse map, of which the coarse one bends less to a label's noisy boundary.

    Both branches start from the shared mask features; the coarse map is doubled in size and joins the fine one in a
    1x1 convolution [Noisy Boundaries, CVPR 2022; paper.md 7].
    """

    def __init__(self, features: int, channels: int, classes: int) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(features, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 3, padding=1),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(features, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, classes, 1),
        )
        self.upsample = nn.ConvTranspose2d(classes, classes, 2, stride=2)
        self.join = nn.Conv2d(2 * classes, classes, 1)

    def both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features f32[n,c,14,14] to the joined logits f32[n,C,28,28] and the coarse ones f32[n,C,14,14]."""
        coarse = self.coarse(features)
        return self.join(torch.cat((self.fine(features), self.upsample(coarse)), 1)), coarse

    def forward(self, features: Tensor) -> Tensor:
        """Give the joined logits alone."""
        return self.both(features)[0]


def roi_pool(levels: int, size: int, samples: int) -> MultiScaleRoIAlign:
    """Build a pooler of strides 4, 8, ...: torchvision guesses them from its first batch, which errs on small views."""
    pool = MultiScaleRoIAlign([str(level) for level in range(levels)], output_size=size, sampling_ratio=samples)
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
