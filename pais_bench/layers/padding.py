"""Pad a batch of views to one size, that of the largest view of the whole step.

What lies beyond a view changes its borders a little, so the size may not depend on the rank or micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from pais_bench.types import Size


def padded_size(images: Sequence[Tensor], divisor: int, pad_to: Size) -> Size:
    """Return (H, W), multiples of divisor, that holds every image [3,h,w] and pad_to."""
    sizes = [tuple(image.shape[-2:]) for image in images] + [pad_to]
    height, width = (math.ceil(max(size[axis] for size in sizes) / divisor) * divisor for axis in (0, 1))
    return height, width


def padding_image(images: Sequence[Tensor], pad_to: Size) -> list[Tensor]:
    """Return one empty image [3,H,W] where pad_to is larger than these images [3,h,w], else none.

    It makes frameworks that pad to the largest image of their input pad to the size of the step.
    """
    size = padded_size(images, 1, pad_to)
    enough = all(size[axis] == max(image.shape[axis - 2] for image in images) for axis in (0, 1))
    return [] if enough else [images[0].new_zeros((3, *size))]
