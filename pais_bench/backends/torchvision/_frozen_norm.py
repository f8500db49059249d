"""Freeze the first stages and the norms of a backbone; apply frozen batch norm in one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class FoldedBatchNorm2d(FrozenBatchNorm2d):
    """Multiply and add with a scale and a shift that are computed once, in the precision of the input.

    torchvision's computes them in each pass, in seven kernels, and turns half precision into single. Names of the state
    dict are torchvision's. The buffers change by load_state_dict alone, or else stay what they are.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.folded: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> FoldedBatchNorm2d:
        """Return a frozen norm with the statistics, weight, bias and epsilon of one that learns."""
        frozen = cls(norm.num_features, norm.eps)
        frozen.load_state_dict(norm.state_dict())
        return frozen

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,C,H,W] to weight * (x - mean) / sqrt(var + eps) + bias, of the same precision."""
        if torch.compiler.is_compiling():  # the compiler folds by itself
            scale, shift = self._fold(x.dtype)
        else:
            if x.dtype not in self.folded:
                self.folded[x.dtype] = self._fold(x.dtype)
            scale, shift = self.folded[x.dtype]
        return torch.addcmul(shift, x, scale)

    def _fold(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return scale and shift [C,1,1]."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return scale.to(dtype)[:, None, None], shift.to(dtype)[:, None, None]

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.folded.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FoldedBatchNorm2d:
        self.folded.clear()
        super()._apply(fn, recurse)
        return self


def freeze_until(network: nn.Module, first: str | None) -> None:
    """Let nothing learn that is defined before the module of this name; None: nothing at all."""
    for name, module in network.named_modules():
        if name == first:
            return
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)


def freeze_norms(network: nn.Module, everywhere: bool) -> None:
    """Replace batch norm by one that does not learn: each, or those alone whose weight does not learn."""
    for name, child in network.named_children():
        if not isinstance(child, nn.BatchNorm2d):
            freeze_norms(child, everywhere)
        elif everywhere or not child.weight.requires_grad:
            setattr(network, name, FoldedBatchNorm2d.like(child))
