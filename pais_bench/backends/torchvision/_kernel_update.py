"""Update K-Net's kernels: gather the features under the last mask, gate, attend [K-Net, arXiv 2106.14855].

Dims: B images, N kernels, C channels, h w cells of the map. All arithmetic on kernels is in full precision, because a
sum over the cells of a mask overflows half of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pais_bench.backends.torchvision._semantic_fpn import conv_norm
from pais_bench.layers.precision import to_full_precision


class Proposal(NamedTuple):
    """Hold features f32[B,C,h,w], mask logits f32[B,N,h,w], kernels f32[B,N,C], semantic logits f32[B,classes,h,w].

    The last kernels are those of stuff, one a class: the rows of the semantic classifier, whose maps are their masks.
    """

    features: Tensor
    masks: Tensor
    kernels: Tensor
    semantic: Tensor


class Update(NamedTuple):
    """Hold mask logits f32[B,N,h,w], kernels f32[B,N,C], class logits f32[B,N,classes], mask-IoU logits f32[B,N]."""

    masks: Tensor
    kernels: Tensor
    logits: Tensor
    mask_iou: Tensor


class KernelHead(nn.Module):
    """Propose masks by kernels that are the same for every image, and make the kernels the image's own."""

    def __init__(self, kernels: int, classes: int, channels: int, groups: int, stuff: Sequence[int] = ()) -> None:
        super().__init__()
        self.register_buffer("stuff", torch.tensor(list(stuff), dtype=torch.int64), persistent=False)
        self.stuff: Tensor
        self.location = conv_norm(channels, channels, 1, groups)
        self.semantic = conv_norm(channels, channels, 1, groups)
        self.kernels = nn.Parameter(torch.randn(kernels, channels))
        self.classify = nn.Conv2d(channels, classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        _set_prior(self.classify)

    def forward(self, location: Tensor, semantic: Tensor) -> Proposal:
        """Map the two maps f32[B,C,h,w] of the semantic FPN to a proposal."""
        location, semantic = self.location(location), self.semantic(semantic)
        masks = torch.einsum("nc,bchw->bnhw", self.kernels, location)
        features = location + semantic
        kernels, classes = self.kernels + gather(masks, features), self.classify(semantic)
        if len(self.stuff):
            rows = self.classify.weight[self.stuff].flatten(1)
            kernels = torch.cat((kernels, rows.to(kernels).expand(len(kernels), -1, -1)), 1)
            masks = torch.cat((masks, classes[:, self.stuff]), 1)
        return Proposal(features, masks, kernels, classes)


class KernelUpdate(nn.Module):
    """Refine kernels, masks and classes once: gather, gate, attend; then read class, mask IoU and mask off."""

    def __init__(self, classes: int, channels: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.transform = nn.Conv2d(channels, channels, 1)
        self.update = GatedUpdate(channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.attention_norm = nn.LayerNorm(channels)
        self.ffn = nn.Sequential(nn.Linear(channels, ffn), nn.ReLU(inplace=True), nn.Linear(ffn, channels))
        self.ffn_norm = nn.LayerNorm(channels)
        self.logits = _branch(channels, classes)
        self.mask_iou = _branch(channels, 1)
        self.mask_kernels = _branch(channels, channels)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        _set_prior(self.logits[-1])

    def forward(self, features: Tensor, masks: Tensor, kernels: Tensor) -> Update:
        """Map features f32[B,C,h,w] and the masks and kernels of the stage before to those of this one."""
        features = self.transform(features)
        with torch.autocast(features.device.type, enabled=False):
            kernels = self.update(gather(masks, features), kernels)
            attended = self.attention(kernels, kernels, kernels, need_weights=False)[0]
            kernels = self.attention_norm(kernels + attended)
            kernels = self.ffn_norm(kernels + self.ffn(kernels))
            logits, mask_iou, mask_kernels = self.logits(kernels), self.mask_iou(kernels), self.mask_kernels(kernels)
        masks = torch.einsum("bnc,bchw->bnhw", mask_kernels, features)
        return Update(masks, kernels, logits, mask_iou[..., 0])


class GatedUpdate(nn.Module):
    """Mix what was gathered with what was known, each through a gate that sees both."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gathered = nn.Linear(channels, 2 * channels)
        self.known = nn.Linear(channels, 2 * channels)
        self.gathered_gate = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.Sigmoid())
        self.known_gate = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.Sigmoid())
        self.gathered_norm = nn.LayerNorm(channels)
        self.known_norm = nn.LayerNorm(channels)
        self.mix = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True))

    def forward(self, gathered: Tensor, known: Tensor) -> Tensor:
        """Map gathered features and known kernels, both f32[B,N,C], to new kernels."""
        d1, d2 = self.gathered(gathered).chunk(2, dim=-1)
        i1, i2 = self.known(known).chunk(2, dim=-1)
        both = i1 * d1
        new, old = self.gathered_gate(both) * self.gathered_norm(d2), self.known_gate(both) * self.known_norm(i2)
        return self.mix(new + old)


def gather(masks: Tensor, features: Tensor) -> Tensor:
    """Sum features f32[B,C,h,w] over each mask's cells of probability above 0.5: f32[B,N,C].

    A sum, not a mean; the gradient flows through the features and never through the masks.
    """
    with torch.autocast(features.device.type, enabled=False):
        inside, features = (masks > 0).flatten(2), to_full_precision(features).flatten(2)
        return inside.to(features) @ features.transpose(1, 2)


def _set_prior(last: Any) -> None:
    """Start from a probability of 0.01 for every class."""
    nn.init.constant_(last.bias, -math.log(99))


def _branch(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels, bias=False),
        nn.LayerNorm(channels),
        nn.ReLU(inplace=True),
        nn.Linear(channels, outputs),
    )
