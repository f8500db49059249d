"""Register torchvision's backbones: how each is built, the channels of its maps, and where its stages begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torchvision import models
from torchvision.models._utils import IntermediateLayerGetter

from pais_bench.backends.torchvision._inputs import IMAGENET, Statistics
from pais_bench.layers.pretrained import fit_weights, read_weights


@dataclass(frozen=True)
class Body:
    """Hold a backbone without its classifier, and what a pyramid on it has to know.

    maps returns the maps [B,C_i,H/s_i,W/s_i] of a batch f32[B,3,H,W], fine to coarse; channels and strides are C_i and
    s_i of the pyramid's levels. A plain vision transformer has one map, of stride 16, for four levels. stages names the
    first module of each stage; what is defined before the first of them is the stem. statistics are the mean and the
    standard deviation of the images that it expects.
    """

    network: nn.Module
    maps: Callable[[nn.Module, Tensor], list[Tensor]]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    stages: tuple[str, ...]
    statistics: Statistics = IMAGENET
    fpn_channels: int = 256
    """Channels of the pyramid where the user names none."""
    channels_last: bool = False
    """Whether that memory format is the faster one on a CPU, too."""


@dataclass(frozen=True)
class _Source:
    """Hold how torchvision builds a network, the children whose maps a pyramid joins with their channels, and stages.

    classifier names what torchvision's weights have beyond that, with a dot. rows_last says that maps are [B,H,W,C].
    """

    build: Callable[[], nn.Module]
    levels: dict[str, int]
    stages: tuple[str, ...]
    classifier: tuple[str, ...]
    rows_last: bool = False


def _resnet(build: Callable[[], nn.Module], expansion: int) -> _Source:
    """Return a ResNet [arXiv 1512.03385]; expansion is 4 with bottlenecks, else 1."""
    levels = {f"layer{i + 1}": 64 * 2**i * expansion for i in range(4)}
    return _Source(build, levels, tuple(levels), ("fc.",))


def _mobilenet(build: Callable[[], nn.Module], levels: dict[int, int], stages: tuple[int, ...]) -> _Source:
    """Return a MobileNet: the last blocks of strides 4, 8, 16 and 32, without the last convolution."""
    return _Source(build, {str(i): width for i, width in levels.items()}, tuple(map(str, stages)), ("classifier.",))


def _swin(build: Callable[[], nn.Module]) -> _Source:
    """Return a Swin Transformer [arXiv 2103.14030]."""
    return _four_stages(build, ("norm.", "head."), rows_last=True)


def _convnext(build: Callable[[], nn.Module]) -> _Source:
    """Return a ConvNeXt [arXiv 2201.03545]."""
    return _four_stages(build, ("classifier.",), rows_last=False)


def _four_stages(build: Callable[[], nn.Module], classifier: tuple[str, ...], rows_last: bool) -> _Source:
    """Return a network of 96 to 768 channels whose stages 2 to 4 begin with a module that halves the map."""
    levels = {str(2 * i + 1): 96 * 2**i for i in range(4)}
    return _Source(build, levels, ("1", "2", "4", "6"), classifier, rows_last)


SOURCES: dict[str, _Source] = {
    "resnet18": _resnet(models.resnet18, 1),
    "resnet34": _resnet(models.resnet34, 1),
    "resnet50": _resnet(models.resnet50, 4),
    "resnet101": _resnet(models.resnet101, 4),
    "mobilenet_v2": _mobilenet(models.mobilenet_v2, {3: 24, 6: 32, 13: 96, 17: 320}, (2, 4, 7, 14)),
    "mobilenet_v3_large": _mobilenet(models.mobilenet_v3_large, {3: 24, 6: 40, 12: 112, 15: 160}, (2, 4, 7, 13)),
    "mobilenet_v3_small": _mobilenet(models.mobilenet_v3_small, {1: 16, 3: 24, 8: 48, 11: 96}, (1, 2, 4, 9)),
    "swin_t": _swin(models.swin_t),
    "swin_s": _swin(models.swin_s),
    "convnext_tiny": _convnext(models.convnext_tiny),
    "convnext_small": _convnext(models.convnext_small),
}
NAMES = (*SOURCES, "small")


def build_body(name: str, weights: Path | None) -> Body:
    """Build a backbone of NAMES with random weights, or those of a state dict of torchvision's on disk.

    Raises BenchError where the file is missing, is no state dict, or its names or shapes do not fit.
    """
    if name == "small":
        return _small()
    source = SOURCES[name]
    network = source.build()
    if weights:
        fit_weights(network, read_weights(weights), weights, optional=source.classifier)
    children: nn.Module = getattr(network, "features", network)
    levels = {child: str(i) for i, child in enumerate(source.levels)}
    return Body(
        IntermediateLayerGetter(children, levels),
        _transposed if source.rows_last else _in_order,
        channels=tuple(source.levels.values()),
        strides=(4, 8, 16, 32),
        stages=source.stages,
    )


def _small() -> Body:
    """Build three maps of strides 4, 8 and 16 with 0.2 M parameters and batch norm, for a CPU."""
    widths = (24, 32, 64, 96)
    children = nn.Sequential(
        *(
            nn.Sequential(_conv(before, width, stride=2), _conv(width, width))
            for before, width in zip((3, *widths), widths, strict=False)
        )
    )
    levels = {str(i + 1): str(i) for i in range(3)}
    return Body(
        IntermediateLayerGetter(children, levels),
        _in_order,
        channels=widths[1:],
        strides=(4, 8, 16),
        stages=("1", "2", "3"),
        fpn_channels=32,
        channels_last=True,  # measured: a twelfth less of a step, and nothing less of ResNet-50's
    )


def _conv(before: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    )


def _in_order(network: nn.Module, images: Tensor) -> list[Tensor]:
    return list(network(images).values())


def _transposed(network: nn.Module, images: Tensor) -> list[Tensor]:
    return [level.permute(0, 3, 1, 2) for level in network(images).values()]
