"""Build backbones with a feature pyramid."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import FeaturePyramidNetwork, StochasticDepth
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pais_bench.backends.base import BackboneOptions
from pais_bench.backends.torchvision._bodies import NAMES, Body, build_body
from pais_bench.backends.torchvision._frozen_norm import freeze_norms, freeze_until
from pais_bench.backends.torchvision._simple_pyramid import SimplePyramid
from pais_bench.backends.torchvision._timm import PREFIX, build_timm
from pais_bench.errors import BenchError


class PyramidOptions(BackboneOptions):
    """Set a backbone of torchvision's or timm's and its feature pyramid."""

    backbone: str = "resnet50"  # type: ignore[assignment]
    """One of _bodies.py, or timm/NAME. mobilenet_v2: for photos on a CPU; small: for drawings on a CPU."""
    fpn_channels: int | None = Field(default=None, ge=1)
    """Channels of each level; None: 256, of small 32."""
    frozen_stages: int | None = Field(default=None, ge=-1)
    """Stages that do not learn, with the stem; -1: not even that; None: 1 with weights, -1 without."""
    backbone_norm: Literal["frozen_batch_norm", "batch_norm"] | None = None
    """What batch norm does beyond the frozen stages; None: it is frozen with weights, and learns without."""

    @field_validator("backbone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in NAMES and not name.startswith(PREFIX):
            raise ValueError(f"there is no such backbone; choose one of {', '.join(NAMES)}, or {PREFIX}NAME")
        return name

    @model_validator(mode="after")
    def _small_is_not_pretrained(self) -> PyramidOptions:
        if self.backbone == "small" and self.pretrained_backbone:
            raise ValueError("backbone 'small' has no pretrained weights; leave out pretrained_backbone")
        return self


def build_backbone(options: PyramidOptions, pretrained: bool = True) -> Pyramid:
    """Build a backbone with its feature pyramid.

    Without weights nothing is frozen unless the options say so, because a random network behind frozen statistics
    diverges. pretrained: see Network. Raises BenchError where options or weights do not fit the backbone.
    """
    name, weights = options.backbone, options.pretrained_backbone if pretrained else None
    body = build_timm(name.removeprefix(PREFIX), weights) if name.startswith(PREFIX) else build_body(name, weights)
    has_norms = any(isinstance(module, nn.BatchNorm2d) for module in body.network.modules())
    if options.backbone_norm and not has_norms:
        raise BenchError(f"backbone '{name}': it has no batch norm; leave out the option 'backbone_norm'")
    stages, norm = (1, "frozen_batch_norm") if options.pretrained_backbone else (-1, "batch_norm")
    if options.frozen_stages is not None:
        stages = options.frozen_stages
    if stages > len(body.stages):
        raise BenchError(f"backbone '{name}': frozen_stages is {stages}, but it has {len(body.stages)} stages")
    _turn_dropout_off(body.network)
    if stages >= 0:
        freeze_until(body.network, (*body.stages, None)[stages])
    freeze_norms(body.network, everywhere=(options.backbone_norm or norm) == "frozen_batch_norm")
    return Pyramid(body, options.fpn_channels or body.fpn_channels, has_norms)


def _turn_dropout_off(network: nn.Module) -> None:
    """Turn dropout and stochastic depth off: they draw once a batch, and a result must not depend on its division."""
    modules: Iterable[Any] = network.modules()
    for module in modules:
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):  # timm's
            module.drop_prob = 0.0


class Pyramid(nn.Module):
    """Compute the maps of a backbone and a feature pyramid on them.

    The maps of a backbone without batch norm have a layer norm each, as Swin Transformer and ConvNeXt have in
    detection; a plain vision transformer has its own, and the pyramid of ViTDet. Where there are four levels, a fifth
    one, "pool", is every other cell of the last.
    """

    def __init__(self, body: Body, channels: int, has_norms: bool) -> None:
        super().__init__()
        self.body, self.maps = body.network, body.maps
        self.levels = len(body.strides)
        self.statistics, self.channels_last = body.statistics, body.channels_last
        self.out_channels = channels  # torchvision's detectors ask a backbone for it
        plain = len(body.channels) == 1
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in (() if has_norms or plain else body.channels))
        coarsest = LastLevelMaxPool() if self.levels == 4 else None
        self.fpn: Any = (
            SimplePyramid(body.channels[0], channels, coarsest)
            if plain
            else FeaturePyramidNetwork(list(body.channels), channels, coarsest)
        )

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map f32[B,3,H,W], whose sides are multiples of the last stride, to the levels "0", "1", ... and "pool"."""
        maps = self.maps(self.body, images)
        if self.norms:
            maps = [norm(level) for norm, level in zip(self.norms, maps, strict=True)]
        levels: OrderedDict[str, Tensor] = self.fpn(OrderedDict((str(i), level) for i, level in enumerate(maps)))
        return levels
