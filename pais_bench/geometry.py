"""Project images, masks, boxes and targets between views by 3x3 matrices.

A matrix maps (x, y, 1) of one view to another in continuous pixel coordinates: the first pixel covers 0..1, so a flip
is x' = w - x and a pixel's centre is at +0.5. The same convention holds for boxes, images and masks. Matrices are
f64[3,3], affine, and stay on the CPU, whatever device holds what they map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pais_bench.types import InstanceMaps, Instances, Size, Targets


def warp(image: Tensor, matrix: Tensor, size: Size) -> Tensor:
    """Resample f32[C,H,W] bilinearly through an affine matrix into f32[C,*size]; outside pixels become 0."""
    (a, b, c), (d, e, f) = _coefficients(torch.linalg.inv(matrix.double()))
    height, width = image.shape[-2:]
    x = torch.arange(size[1], dtype=torch.float64, device=image.device) + 0.5
    y = torch.arange(size[0], dtype=torch.float64, device=image.device) + 0.5
    # Each coordinate of the source is a function of x plus one of y: of a grid, only the sum is computed at full size.
    grid_x = _outer_sum((a * x + c) * (2 / width) - 1, b * y * (2 / width), image.dtype)
    grid_y = _outer_sum((d * x + f) * (2 / height) - 1, e * y * (2 / height), image.dtype)
    grid = torch.stack((grid_x, grid_y), -1)[None]
    return F.grid_sample(image[None], grid, align_corners=False)[0]


def warp_masks(masks: Tensor, matrix: Tensor, size: Size) -> Tensor:
    """Resample masks bool[N,H,W] through an affine matrix into bool[N,*size]: true where bilinear values exceed 0.5."""
    if len(masks) == 0:
        return masks.new_zeros((0, *size))
    if tuple(masks.shape[-2:]) == tuple(size) and torch.equal(matrix, torch.eye(3, dtype=matrix.dtype)):
        return masks
    return warp(masks.float(), matrix, size) > 0.5


def warp_boxes(boxes: Tensor, matrix: Tensor, size: Size) -> Tensor:
    """Map boxes f32[N,4] through an affine matrix: the upright hull of the four corners, clipped to size (H, W)."""
    x0, y0, x1, y1 = _hulls(boxes, matrix)
    sides = x0.clamp(0, size[1]), y0.clamp(0, size[0]), x1.clamp(0, size[1]), y1.clamp(0, size[0])
    return torch.stack(sides, -1).to(boxes.dtype)


def _hulls(boxes: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the sides x0, y0, x1, y1, f64[N] each, of the upright hulls of boxes f32[N,4] behind an affine matrix."""
    (a, b, c), (d, e, f) = _coefficients(matrix)
    x, y = boxes.double().reshape(-1, 2, 2).unbind(-1)  # f64[N,2] each: both ends of a box
    low, high = [], []
    for by_x, by_y, offset in ((a * x, b * y, c), (d * x, e * y, f)):
        low.append(by_x.amin(1) + by_y.amin(1) + offset)
        high.append(by_x.amax(1) + by_y.amax(1) + offset)
    return low[0], low[1], high[0], high[1]


def _coefficients(matrix: Tensor) -> list[list[float]]:
    """Return the first two rows of an affine matrix on the CPU as numbers, which kernels take without a copy."""
    rows: list[list[float]] = matrix[:2].tolist()
    return rows


def _outer_sum(row: Tensor, column: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [H,W] of dtype: row f64[W] plus column f64[H]."""
    return row.to(dtype)[None] + column.to(dtype)[:, None]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Return the tight boxes f32[N,4] of masks bool[N,H,W]; the box of an empty mask is zero."""
    boxes = torch.zeros((len(masks), 4), device=masks.device)
    for axis, low, high in ((1, 0, 2), (2, 1, 3)):
        profile = masks.any(axis)
        not_empty = profile.any(1)
        boxes[:, low] = profile.float().argmax(1) * not_empty
        boxes[:, high] = (profile.shape[1] - profile.flip(1).float().argmax(1)) * not_empty
    return boxes


def have_extent(boxes: Tensor) -> Tensor:
    """Return bool[N]: whether boxes f32[N,4] are wider and higher than 1/1000 of a pixel."""
    return ((boxes[:, 2:] - boxes[:, :2]) > 1e-3).all(1)


def project_targets(targets: Sequence[Targets], matrices: Sequence[Tensor], sizes: Sequence[Size]) -> list[Targets]:
    """Project the targets of each image, with their weights, through an affine matrix into a view of size (H, W).

    An instance whose mask is empty, or whose box has no extent, is removed. An upright map moves the boxes exactly.
    Under a rotation or a shear the hull of a box would grow, so the box is the tight one of the projected mask. A
    background function gets the boxes of the new view mapped back to its own view. The host waits for the device once
    for all images.
    """
    projections = [
        _project(target.instances, matrix, size) for target, matrix, size in zip(targets, matrices, sizes, strict=True)
    ]
    indices = nonzero_each([visible for _, visible in projections])
    return [
        _select(target, instances, kept, matrix)
        for target, matrix, (instances, _), kept in zip(targets, matrices, projections, indices, strict=True)
    ]


def nonzero_each(flags: Sequence[Tensor]) -> list[Tensor]:
    """Return the indices i64[K] of what is true in each bool[N]; the host waits for the device once for all."""
    if not flags:
        return []
    together, sizes = torch.cat(list(flags)), [len(part) for part in flags]
    counts = [int(part.sum()) for part in torch.split(together.cpu(), sizes)]
    indices = torch.split(torch.nonzero_static(together, size=sum(counts))[:, 0], counts)
    return [part - sum(sizes[:image]) for image, part in enumerate(indices)]


def _project(instances: Instances, matrix: Tensor, size: Size) -> tuple[Instances, Tensor]:
    """Return all projected instances, and bool[N]: whether a mask has a pixel and a box an extent."""
    masks = warp_masks(instances.masks, matrix, size)
    upright = abs(float(matrix[0, 1])) + abs(float(matrix[1, 0])) < 1e-9
    boxes = warp_boxes(instances.boxes, matrix, size) if upright else masks_to_boxes(masks)
    visible = masks.flatten(1).any(1) & have_extent(boxes)
    soft_masks = _project_maps(instances.soft_masks, matrix)
    return replace(instances, boxes=boxes, masks=masks, soft_masks=soft_masks), visible


def _project_maps(maps: InstanceMaps | None, matrix: Tensor) -> InstanceMaps | None:
    """Return maps in the view that a matrix leads to; nothing is resampled."""
    return None if maps is None else replace(maps, matrix=matrix @ maps.matrix)


def _select(targets: Targets, projected: Instances, kept: Tensor, matrix: Tensor) -> Targets:
    """Return those of the projected targets, all of them in `projected`, that are kept, i64[K]."""
    background, (height, width) = targets.background, targets.instances.masks.shape[-2:]
    if callable(background):
        background = project_background(background, matrix, (height, width))
    pixel_weight = _project_maps(targets.pixel_weight, matrix)
    return replace(targets, instances=projected, background=background, pixel_weight=pixel_weight)[kept]


def project_background(
    background: Callable[[Tensor], Tensor], matrix: Tensor, size: Size
) -> Callable[[Tensor], Tensor]:
    """Return a background function for boxes of the view that matrix maps to; size is that of the original view."""
    inverse = torch.linalg.inv(matrix)
    return lambda boxes: background(warp_boxes(boxes, inverse, size))


def sample_maps(maps: InstanceMaps, points: Tensor, outside: float) -> Tensor:
    """Return the values f32[N,h,w] of each map at points f32[N,h,w,2], (x, y) px of the view.

    Values are bilinear between the centres of cells, those of the nearest cell at a map's border, and `outside` beyond.
    """
    if not len(maps):
        return points.new_zeros(points.shape[:-1])
    (a, b, c), (d, e, f) = _coefficients(torch.linalg.inv(maps.matrix))
    x, y = points.unbind(-1)
    x0, y0, x1, y1 = maps.boxes[:, :, None, None].unbind(1)
    across = (a * x + b * y + c - x0) / (x1 - x0).clamp(min=1e-6)
    down = (d * x + e * y + f - y0) / (y1 - y0).clamp(min=1e-6)
    grid = 2 * torch.stack((across, down), -1) - 1
    values = F.grid_sample(maps.values[:, None], grid, padding_mode="border", align_corners=False)[:, 0]
    return torch.where((grid.abs() <= 1).all(-1), values, outside)


def upright_maps(maps: InstanceMaps, outside: float) -> InstanceMaps:
    """Return maps on upright boxes of the view, with the unit matrix: those of several views can be joined.

    A map is read at the cells of the hull of its rectangle, as many as it had. Where its matrix neither rotates nor
    shears, the values stay what they were. outside: see sample_maps.
    """
    boxes = torch.stack(_hulls(maps.boxes, maps.matrix), -1).to(maps.boxes.dtype)
    height, width = maps.values.shape[-2:]
    values = sample_maps(maps, cell_centres(boxes, (height, width)), outside)
    return InstanceMaps(values, boxes, torch.eye(3, dtype=torch.float64))


def move_boxes(boxes: Tensor, matrix: Tensor) -> Tensor:
    """Map boxes f32[N,4] through a matrix that neither rotates nor shears, without clipping them."""
    return torch.stack(_hulls(boxes, matrix), -1).to(boxes.dtype)


def crop_pixel_weights(
    targets: Sequence[Targets], instances: Iterable[Tensor], boxes: Iterable[Tensor], size: Size, offset: float = 0.0
) -> Tensor | None:
    """Return pixel weights f32[sum of n,h,w] of regions of each view, whose boxes are f32[n,4]; None where all are 1.

    instances i64[n]: the instance of each region | size: (h, w) | offset: see cell_centres.
    """
    if all(target.pixel_weight is None for target in targets):
        return None
    return torch.cat(
        [
            pixel_weights_at(target, cell_centres(rois, size, offset), index)
            for target, index, rois in zip(targets, instances, boxes, strict=True)
        ]
    )


def pixel_weights_at(target: Targets, points: Tensor, instances: Tensor | slice) -> Tensor:
    """Return the pixel weights f32[n,h,w] of instances i64[n], or a slice, at points f32[n,h,w,2] of the view."""
    if target.pixel_weight is None:
        return points.new_ones(points.shape[:-1])
    return sample_maps(target.pixel_weight[instances], points, outside=1.0)


def cell_centres(boxes: Tensor, size: Size, offset: float = 0.0) -> Tensor:
    """Return the centres f32[n,h,w,2], (x, y) px, of the cells of a grid of size (h, w) on each box f32[n,4].

    offset: pixels by which the points lie further down and to the right.
    """
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    x = x0 + (x1 - x0) * _centres(size[1], boxes) + offset
    y = y0 + (y1 - y0) * _centres(size[0], boxes) + offset
    return torch.stack((x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])), -1)


def _centres(cells: int, like: Tensor) -> Tensor:
    """Return the centres f32[cells] of as many cells in 0..1."""
    return (torch.arange(cells, dtype=like.dtype, device=like.device) + 0.5) / cells


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
