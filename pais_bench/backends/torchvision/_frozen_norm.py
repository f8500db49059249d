"""Apply frozen batch norm in one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import FrozenBatchNorm2d


class FoldedBatchNorm2d(FrozenBatchNorm2d):
    """Multiply and add with a scale and a shift that are computed once, in the precision of the input.

    torchvision's computes them in each pass, in seven kernels, and turns half precision into single. Names of the state
    dict are torchvision's. The buffers change by load_state_dict alone, or else stay what they are.
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__(num_features, eps)
        self.folded: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

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
