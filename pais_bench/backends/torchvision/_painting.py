"""Lay the instances of a batch out in one tensor, and paint them into one map of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def by_image(values: Tensor, counts: Sequence[int]) -> Tensor:
    """Return [B,K,...] of the values [sum of counts,...] of all instances: zeros after those of an image, K >= 1."""
    padded = values.new_zeros((len(counts), max(1, *counts), *values.shape[1:]))
    for image, own in zip(padded, values.split(list(counts)), strict=True):
        image[: len(own)] = own
    return padded


def paint(masks: Tensor, values: Tensor, nothing: int, beneath: Tensor | None = None) -> Tensor:
    """Return the value i64[B,h,w] of the instance on top of each cell that one touches; `nothing` elsewhere.

    masks f32[B,K,h,w] | values i64[B,K] of them | beneath bool[B,K]: those that lie below all others, such as stuff
    below things. Of the rest the later one is on top.
    """
    order = torch.arange(1, masks.shape[1] + 1, device=masks.device, dtype=torch.int16)
    if beneath is None:
        top = (order[:, None, None] * (masks > 0)).amax(1)
    else:
        order = (order + masks.shape[1] * ~beneath).to(order.dtype)
        top = (order[..., None, None] * (masks > 0)).amax(1)
        top = torch.where(top > masks.shape[1], top - masks.shape[1], top)
    return F.pad(values, (1, 0), value=nothing).gather(1, top.flatten(1).long()).view(top.shape)
