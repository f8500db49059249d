"""Sum the levels of a pyramid at one stride: the semantic FPN of Panoptic FPN [arXiv 1901.02446]."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SemanticFPN(nn.Module):
    """Bring levels of strides 4, 8, ... to one stride, sum them, and return a map for locations and one for classes.

    A sine position encoding is added to the last level.
    """

    def __init__(self, levels: int, inputs: int, channels: int, groups: int, stride: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_resample(inputs, channels, groups, 4 * 2**i, stride) for i in range(levels))
        self.location = conv_norm(channels, channels, 1, groups)
        self.semantic = conv_norm(channels, channels, 1, groups)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Map f32[B,inputs,h_i,w_i] to two f32[B,channels,h,w]."""
        *fine, coarse = pyramid
        maps = [*fine, coarse + sine_positions(coarse)]
        total = sum(level(one) for level, one in zip(self.levels, maps, strict=True))
        return self.location(total), self.semantic(total)


def conv_norm(inputs: int, channels: int, size: int, groups: int, stride: int = 1) -> nn.Sequential:
    """Build a convolution without bias, group norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, channels, size, stride, size // 2, bias=False),
        nn.GroupNorm(groups, channels),
        nn.ReLU(inplace=True),
    )


def sine_positions(level: Tensor) -> Tensor:
    """Return f32[C,h,w] of sines and cosines for f32[B,C,h,w], rows first, each axis scaled to 2 pi [DETR]."""
    channels, height, width = level.shape[1:]
    half = channels // 2
    step = torch.arange(half, device=level.device, dtype=torch.float32)
    wave = 10_000.0 ** (2 * (step // 2) / half)

    def along(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=level.device) / length * 2 * math.pi
        angle = position / wave[:, None]
        angle[0::2], angle[1::2] = angle[0::2].sin(), angle[1::2].cos()
        return angle

    rows, columns = along(height)[:, :, None], along(width)[:, None, :]
    return torch.cat((rows.expand(half, height, width), columns.expand(half, height, width)))


def _resample(inputs: int, channels: int, groups: int, own: int, wanted: int) -> nn.Sequential:
    if own < wanted:
        halvings = round(math.log2(wanted / own))
        widths = [inputs, *[channels] * halvings]
        return nn.Sequential(*(conv_norm(a, b, 3, groups, stride=2) for a, b in zip(widths, widths[1:], strict=False)))
    layers: list[nn.Module] = [conv_norm(inputs, channels, 3, groups)]
    for _ in range(round(math.log2(own / wanted))):
        layers += [nn.Upsample(scale_factor=2, mode="bilinear"), conv_norm(channels, channels, 3, groups)]
    return nn.Sequential(*layers)
