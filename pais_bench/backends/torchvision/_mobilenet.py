"""Build MobileNetV2 with a feature pyramid."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pais_bench.backends.torchvision._frozen_norm import FoldedBatchNorm2d
from pais_bench.layers.pretrained import fit_weights, read_weights

LEVELS = {3: 24, 6: 32, 13: 96, 17: 320}
"""Channels of the blocks whose maps the pyramid joins: the last ones of strides 4, 8, 16 and 32."""
FROZEN_BLOCKS = 4
"""Blocks that pretrained weights leave unchanged: stem and stages of strides 2 and 4, as in resnet50_fpn."""


class MobileNetV2FPN(nn.Module):
    """Compute P2..P6, strides 4..64, from MobileNetV2 [arXiv 1801.04381] without its last convolution.

    With weights, a state dict of torchvision's mobilenet_v2 on disk, batch norm, stem and first blocks are frozen;
    without them all learns.
    """

    def __init__(self, weights: Path | None, channels: int) -> None:
        super().__init__()
        network = mobilenet_v2(weights=None, norm_layer=FoldedBatchNorm2d if weights else nn.BatchNorm2d)
        if weights:
            fit_weights(network, read_weights(weights), weights, optional=("classifier.",))
        self.body = network.features[: max(LEVELS) + 1]
        if weights:
            self.body[:FROZEN_BLOCKS].requires_grad_(False)
        self.fpn = FeaturePyramidNetwork(list(LEVELS.values()), channels, LastLevelMaxPool())
        self.out_channels = channels  # torchvision's detectors ask a backbone for it

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Map f32[B,3,H,W] to the levels "0" to "3" and "pool"."""
        levels: OrderedDict[str, Tensor] = OrderedDict()
        x = images
        for i, block in enumerate(self.body):
            x = block(x)
            if i in LEVELS:
                levels[str(len(levels))] = x
        return self.fpn(levels)
