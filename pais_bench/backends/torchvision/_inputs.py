"""Normalise views and pad them to one batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from pais_bench.layers.padding import padded_size
from pais_bench.types import Size

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the channels of images in 0..1, RGB."""
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def to_batch(images: Sequence[Tensor], divisor: int, pad_to: Size, statistics: Statistics) -> Tensor:
    """Return f32[B,3,H,W] of views f32[3,h,w] in 0..1: of mean 0 and std 1 by statistics, 0 at the right and below.

    H and W are multiples of divisor and at least pad_to.
    """
    size = padded_size(images, divisor, pad_to)
    mean, std = _on_device(statistics, images[0].dtype, images[0].device)
    batch = images[0].new_zeros((len(images), 3, *size))
    for image, padded in zip(images, batch, strict=True):
        view = padded[:, : image.shape[-2], : image.shape[-1]]
        torch.sub(image, mean, out=view)
        view.div_(std)
    return batch


@cache
def _on_device(statistics: Statistics, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and std [3,1,1], copied to the device once a process."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device)[:, None, None] for values in statistics)
    return mean, std
