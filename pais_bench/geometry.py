"""Project images, masks, boxes and targets between views by 3x3 matrices, and encode masks as RLE.

A matrix maps (x, y, 1) of one view to another in continuous pixel coordinates: the first pixel covers 0..1, so a flip
is x' = w - x and a pixel's centre is at +0.5. The same convention holds for boxes, images and masks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.nn import functional as F

from pais_bench.types import Instances, Targets


def warp(image: Tensor, matrix: Tensor, size: tuple[int, int], fill: float = 0.0) -> Tensor:
    """Resample f32[C,H,W] bilinearly through matrix f64[3,3] into f32[C,*size]; outside pixels become fill."""
    height, width = image.shape[-2:]
    x = torch.arange(size[1], dtype=torch.float64, device=image.device) + 0.5
    y = torch.arange(size[0], dtype=torch.float64, device=image.device) + 0.5
    inverse = torch.linalg.inv(matrix.to(image.device, torch.float64))
    points = torch.stack((*torch.meshgrid(x, y, indexing="xy"), torch.ones(size, dtype=x.dtype, device=x.device)), -1)
    source = points @ inverse.T
    source = source[..., :2] / source[..., 2:]
    grid = (source / source.new_tensor((width, height)) * 2 - 1).to(image.dtype)
    return F.grid_sample((image - fill)[None], grid[None], align_corners=False)[0] + fill


def warp_masks(masks: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample masks bool[N,H,W] through matrix f64[3,3] into bool[N,*size]: true where bilinear values exceed 0.5."""
    if len(masks) == 0:
        return masks.new_zeros((0, *size))
    if tuple(masks.shape[-2:]) == tuple(size) and torch.equal(matrix.cpu(), torch.eye(3, dtype=matrix.dtype)):
        return masks
    return warp(masks.float(), matrix, size) > 0.5


def warp_boxes(boxes: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Map boxes f32[N,4] through matrix f64[3,3]: the upright hull of the four corners, clipped to size (H, W)."""
    x0, y0, x1, y1 = boxes.double().unbind(-1)
    corners = torch.stack((torch.stack((x0, x1, x0, x1), -1), torch.stack((y0, y0, y1, y1), -1)), -1)
    mapped = F.pad(corners, (0, 1), value=1.0) @ matrix.to(boxes.device, torch.float64).T
    mapped = mapped[..., :2] / mapped[..., 2:]
    low, high = mapped.amin(1), mapped.amax(1)
    limit = low.new_tensor((size[1], size[0]))
    return torch.cat((low.clamp(min=0).minimum(limit), high.clamp(min=0).minimum(limit)), -1).to(boxes.dtype)


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Return the tight boxes f32[N,4] of masks bool[N,H,W]; the box of an empty mask is zero."""
    boxes = torch.zeros((len(masks), 4), device=masks.device)
    for axis, low, high in ((1, 0, 2), (2, 1, 3)):
        profile = masks.any(axis)
        not_empty = profile.any(1)
        boxes[:, low] = profile.float().argmax(1) * not_empty
        boxes[:, high] = (profile.shape[1] - profile.flip(1).float().argmax(1)) * not_empty
    return boxes


def project(instances: Instances, matrix: Tensor, size: tuple[int, int]) -> tuple[Instances, Tensor]:
    """Project instances through matrix f64[3,3] into a view of size (H, W).

    Returns the instances that remain and their indices i64[K]; an instance whose mask is empty, or whose box has no
    extent, is removed. An upright map moves the boxes exactly. Under a rotation or a shear the hull of a box would
    grow, so the box is the tight one of the projected mask.
    """
    masks = warp_masks(instances.masks, matrix, size)
    upright = abs(float(matrix[0, 1])) + abs(float(matrix[1, 0])) < 1e-9
    boxes = warp_boxes(instances.boxes, matrix, size) if upright else masks_to_boxes(masks)
    extent = boxes[:, 2:] - boxes[:, :2]
    kept = (masks.flatten(1).any(1) & (extent > 1e-3).all(1)).nonzero()[:, 0]
    projected = Instances(boxes, instances.labels, masks, instances.scores, instances.mask_iou)
    return projected[kept], kept


def project_targets(targets: Targets, matrix: Tensor, size: tuple[int, int]) -> Targets:
    """Project targets into another view, with their weights.

    A background function gets the boxes of the new view mapped back to its own view.
    """
    instances, kept = project(targets.instances, matrix, size)
    background, (height, width) = targets.background, targets.instances.masks.shape[-2:]
    return Targets(
        instances,
        class_weight=targets.class_weight[kept],
        mask_weight=targets.mask_weight[kept],
        box_weight=targets.box_weight[kept],
        background=_project_background(background, matrix, (height, width)) if callable(background) else background,
    )


def _project_background(
    background: Callable[[Tensor], Tensor], matrix: Tensor, size: tuple[int, int]
) -> Callable[[Tensor], Tensor]:
    """Return a background function for boxes of the view that matrix maps to; size is that of the original view."""
    inverse = torch.linalg.inv(matrix)
    return lambda boxes: background(warp_boxes(boxes, inverse, size))


def flip(width: float) -> Tensor:
    """Return the matrix of a horizontal flip: x' = width - x."""
    return torch.tensor([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)


def scale(x: float, y: float) -> Tensor:
    """Return the matrix of a resize."""
    return torch.diag(torch.tensor([x, y, 1.0], dtype=torch.float64))


def about(matrix: Tensor, x: float, y: float) -> Tensor:
    """Return the matrix that acts about the point (x, y) instead of the origin."""
    return shift(x, y) @ matrix @ shift(-x, -y)


def shift(x: float, y: float) -> Tensor:
    """Return the matrix of a translation."""
    return torch.tensor([[1.0, 0, x], [0, 1, y], [0, 0, 1]], dtype=torch.float64)


def encode_mask(mask: Tensor) -> dict[str, object]:
    """Encode one mask bool[H,W] as COCO's compressed RLE with counts as text."""
    encoded = rle.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
