"""Compute in full precision what half precision would spoil: coordinates of boxes, IoUs, costs and losses."""

from __future__ import annotations

import torch
from torch import Tensor


def to_full_precision(values: Tensor) -> Tensor:
    """Return half precision as single, and what has more as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
