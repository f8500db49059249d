"""Hold what a strong view receives from its partner, and cut the masks of instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pais_bench import geometry
from pais_bench.types import Instances, Targets


class Received(NamedTuple):
    """Hold what a view receives from its partner, in pixels of the view.

    image f32[3,H,W]: the mixed view | cover bool[H,W]: the pixels that are the partner's | targets: the partner's, of
    what is visible | shown bool[N,H,W] or bool[1,H,W]: the pixels that the pixel weight of each of them is about |
    background: that of the mixed view.
    """

    image: Tensor
    cover: Tensor
    targets: Targets
    shown: Tensor
    background: float | Callable[[Tensor], Tensor]


def with_masks(instances: Instances, masks: Tensor, pixels: Tensor) -> Instances:
    """Return instances with masks bool[N,H,W], of which the whole ones, with pixels i64[N], keep their boxes."""
    whole = count_pixels(masks) == pixels
    return replace(
        instances, masks=masks, boxes=torch.where(whole[:, None], instances.boxes, geometry.masks_to_boxes(masks))
    )


def count_pixels(masks: Tensor) -> Tensor:
    """Return the number of pixels i64[N] of masks bool[N,H,W]."""
    return masks.flatten(1).sum(1)
