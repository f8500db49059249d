"""Paste the masks of boxes into views, many at once: the interpolation is separable, so a mask takes two products.

A pixel of the view takes the mask's value at its centre, bilinearly, with zeros around the mask, as detectron2 does.
torchvision rounds boxes to whole pixels before, so that its masks differ at their borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from pais_bench.types import InstanceMaps, Instances, Keep, Size

CHUNK = 2**25
"""Pixels of views that are interpolated at once: 128 MB of float32."""


def paste_masks(masks: Tensor, boxes: Tensor, size: Size, shift: float = 0.0) -> Tensor:
    """Return masks bool[n,H,W] of a view of size (H, W): where probabilities f32[n,h,w] on boxes f32[n,4] exceed 0.5.

    shift: pixels by which the probabilities show what lies below and to the right of their place on the box. The host
    does not wait for the device. Always in single precision, because half of it loses the pixel.
    """
    pasted = torch.empty((len(masks), *size), dtype=torch.bool, device=masks.device)
    with torch.autocast(masks.device.type, enabled=False):
        masks, boxes = masks.float(), boxes.float()
        x0, y0, x1, y1 = boxes.unbind(1)
        rows = _interpolation(y0, y1, masks.shape[1], size[0], shift)
        columns = _interpolation(x0, x1, masks.shape[2], size[1], shift).transpose(1, 2)
        step = max(CHUNK // (size[0] * size[1]), 1)
        for start in range(0, len(masks), step):
            part = slice(start, start + step)
            torch.gt(rows[part] @ masks[part] @ columns[part], 0.5, out=pasted[part])
    return pasted


def _interpolation(low: Tensor, high: Tensor, cells: int, pixels: int, shift: float) -> Tensor:
    """Return the share f32[n,pixels,cells] that each cell of a mask from low f32[n] to high f32[n] has in a pixel.

    A shifted mask still begins where its box does: what it does not show there is as its first cell.
    """
    centres = torch.arange(pixels, dtype=low.dtype, device=low.device) + 0.5
    extent = (high - low).clamp(min=1e-6)
    position = (centres - low[:, None]) / extent[:, None] * cells - 0.5
    position = torch.maximum(position - shift / extent[:, None] * cells, position.clamp(max=0))
    distance = position[..., None] - torch.arange(cells, dtype=low.dtype, device=low.device)
    return (1 - distance.abs()).clamp(min=0)


def kept_instances(
    detections: Instances,
    masks: Tensor,
    counts: Sequence[int],
    sizes: Sequence[Size],
    keep: Keep | None,
    shift: float = 0.0,
    soft: bool = False,
) -> list[Instances]:
    """Return each view's instances with pasted masks, without those that keep drops.

    detections: those of all views, counts of them in each, with masks bool[n,0,0]; masks: their probabilities
    f32[n,h,w] on their boxes; sizes: (H, W) of each view; shift: see paste_masks; soft: whether the instances have
    soft_masks, for keep too. The host waits once, and only where there is keep.
    """
    if soft:
        maps = InstanceMaps(masks, detections.boxes + shift, torch.eye(3, dtype=torch.float64))
        detections = replace(detections, soft_masks=maps)
    if keep is not None:
        parts = [keep(one) for one in split_views(detections, counts, sizes)]
        counts = torch.stack([part.sum() for part in parts]).tolist()
        kept = torch.nonzero_static(torch.cat(parts), size=sum(counts))[:, 0]
        detections, masks = detections[kept], masks[kept]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    pasted = replace(detections, masks=paste_masks(masks, detections.boxes, (height, width), shift))
    return split_views(pasted, counts, sizes)


def split_views(instances: Instances, counts: Sequence[int], sizes: Sequence[Size]) -> list[Instances]:
    """Return the instances of each view, counts of them, with masks cut to its size (H, W)."""
    views = []
    for end, count, (height, width) in zip(accumulate(counts), counts, sizes, strict=True):
        one = instances[slice(end - count, end)]
        views.append(replace(one, masks=one.masks[:, :height, :width]))
    return views
