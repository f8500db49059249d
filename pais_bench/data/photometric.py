"""Compute what a photometric operation does to each value 0..255, in integers: the same on the CPU and on a device.

Operations that are no table of values blend the image with another one: `color` with its grey image, `sharpness` with
its blurred one. Enhancers take the factor 0.18 level + 0.1; an exact multiple of 1/1024 keeps every sum exact in
float32, so that rounding, half to even, is the same everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCALE = 1024
GREY_WEIGHTS, GREY_SHIFT = (9798, 19235, 3735), 15
"""Grey = (weights · RGB + half) >> shift: OpenCV's RGB2GRAY."""
HISTOGRAMS = {"autocontrast": "channels", "equalize": "channels", "contrast": "grey"}
"""Operations whose table depends on the image, and of what it needs the histogram."""


def factor(level: int) -> int:
    """Return the factor of an enhancer at a level 1..9, in units of 1/1024."""
    return round(SCALE * (0.18 * level + 0.1))


def value_table(name: str, level: int, histogram: Tensor) -> Tensor:
    """Return the new value of every value as u8[C,256]; histogram i64[C,256]: that of HISTOGRAMS, or of any image.

    C is 3, or 1 where all channels have one table.
    """
    value = torch.arange(256, device=histogram.device)[None]
    if name == "solarize":
        table = torch.where(value >= min(int(25.6 * level), 255), 255 - value, value)
    elif name == "posterize":
        table = value & -(1 << (4 + int(0.4 * level)))
    elif name == "brightness":
        table = (value * factor(level) + SCALE // 2) >> 10
    elif name == "contrast":
        total = histogram.sum(1, keepdim=True)
        mean = (2 * (histogram * value).sum(1, keepdim=True) + total) // (2 * total)
        table = (value * factor(level) + mean * (SCALE - factor(level)) + SCALE // 2) >> 10
    elif name == "autocontrast":
        low, high = _extremes(histogram, value)
        table = torch.where(high > low, (value - low) * 255 // (high - low).clamp(min=1), value)
    else:
        table = _equalize(histogram, value)
    return table.clamp(0, 255).to(torch.uint8)


def _equalize(histogram: Tensor, value: Tensor) -> Tensor:
    _, high = _extremes(histogram, value)
    step = (histogram.sum(1, keepdim=True) - histogram.gather(1, high)) // 255
    below = histogram.cumsum(1) - histogram
    return torch.where(step > 0, (below + step // 2) // step.clamp(min=1), value)


def _extremes(histogram: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value that occurs in each channel, i64[C,1]."""
    occurs = histogram > 0
    low = 255 - ((255 - value) * occurs).amax(1, keepdim=True)
    return low, (value * occurs).amax(1, keepdim=True)
