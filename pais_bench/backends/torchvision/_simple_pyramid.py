"""Build a pyramid from the one map of a plain vision transformer: the simple feature pyramid of ViTDet."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock


class SimplePyramid(nn.Module):
    """Bring a map of stride 16 to strides 4, 8, 16 and 32, each on its own [ViTDet, arXiv 2203.16527, section 3].

    Two transposed convolutions, one, none, and a pooling; then a lateral convolution and one of 3x3, with layer norms.
    The parts have the names of torchvision's FeaturePyramidNetwork.
    """

    def __init__(self, width: int, channels: int, extra_blocks: ExtraFPNBlock | None = None) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        finest = (_double(width, half), LayerNorm2d(half), nn.GELU(), _double(half, quarter))
        self.inner_blocks = nn.ModuleList(
            (
                nn.Sequential(*finest, *_conv(quarter, channels, 1)),
                nn.Sequential(_double(width, half), *_conv(half, channels, 1)),
                nn.Sequential(*_conv(width, channels, 1)),
                nn.Sequential(nn.MaxPool2d(2), *_conv(width, channels, 1)),
            )
        )
        self.layer_blocks = nn.ModuleList(nn.Sequential(*_conv(channels, channels, 3)) for _ in self.inner_blocks)
        self.extra_blocks = extra_blocks

    def forward(self, maps: OrderedDict[str, Tensor]) -> OrderedDict[str, Tensor]:
        """Map {"0": f32[B,width,h,w]} to the levels "0" to "3" and "pool"."""
        (only,) = maps.values()
        levels = [layer(inner(only)) for inner, layer in zip(self.inner_blocks, self.layer_blocks, strict=True)]
        names = [str(i) for i in range(len(levels))]
        if self.extra_blocks is not None:
            levels, names = self.extra_blocks(levels, [only], names)
        return OrderedDict(zip(names, levels, strict=True))


def _double(before: int, width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, width, 2, 2)


def _conv(before: int, width: int, size: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, width, size, padding=size // 2, bias=False), LayerNorm2d(width, eps=1e-6)
