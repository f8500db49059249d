"""Make soft predictions of queries, whose masks are maps of the whole padded view, and read pixel weights for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pais_bench.backends.torchvision._kernel_update import Update
from pais_bench.geometry import crop_pixel_weights
from pais_bench.layers.precision import to_full_precision
from pais_bench.types import InstanceMaps, Instances, Size, Targets


class SoftPredictions(NamedTuple):
    """Hold soft masks and class_probs f32[B*n,C] of n pairs of query and class of each image, one image after another.

    Soft masks are at the stride of the network, and 0 outside of the view.
    """

    masks: InstanceMaps
    class_probs: Tensor

    @staticmethod
    def of(last: Update, queries: Tensor, sizes: Sequence[Size], stride: int) -> SoftPredictions:
        """Read them off a stage, for queries i64[B,n]; sizes are those (H, W) of the views, stride is in pixels."""
        image = torch.arange(len(queries), device=queries.device)[:, None]
        maps = to_full_precision(last.masks[image, queries]).sigmoid().float()
        for view, (height, width) in zip(maps, sizes, strict=True):
            view[:, -(-height // stride) :] = 0
            view[:, :, -(-width // stride) :] = 0
        probs = to_full_precision(last.logits[image, queries]).sigmoid().float()
        boxes = _whole_view(queries.numel(), maps, stride)
        return SoftPredictions(
            InstanceMaps(maps.flatten(0, 1), boxes, torch.eye(3, dtype=torch.float64)), probs.flatten(0, 1)
        )

    def add_to(self, detections: Instances, pairs: Tensor | slice) -> Instances:
        """Return the detections with the soft predictions of their pairs, i64[N] or a slice."""
        return replace(detections, soft_masks=self.masks[pairs], class_probs=self.class_probs[pairs])


def query_pixel_weights(targets: Sequence[Targets], masks: Tensor, cell: int) -> Tensor | None:
    """Return the pixel weights f32[K,h,w] of the masks f32[K,h,w] of all images, in cells of so many pixels.

    None where all are 1.
    """
    counts = [len(target.instances) for target in targets]
    every = (torch.arange(count, device=masks.device) for count in counts)
    views = (_whole_view(count, masks, cell) for count in counts)
    return crop_pixel_weights(targets, every, views, (masks.shape[-2], masks.shape[-1]))


def _whole_view(count: int, maps: Tensor, cell: int) -> Tensor:
    """Return f32[count,4]: as often the box of the padded view that maps [...,h,w] show in cells of so many pixels."""
    boxes = torch.zeros((count, 4), device=maps.device)
    boxes[:, 2], boxes[:, 3] = maps.shape[-1] * cell, maps.shape[-2] * cell
    return boxes
