"""Compute the losses that PAIS weights on a region-based network, once for all frameworks.

Dims: n sampled regions, p of them positive, h w pixels of a mask map (28 x 28 as a rule).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pais_bench.layers.losses import focal, mask_iou_loss, soft_mask_iou, weighted_mean
from pais_bench.layers.precision import to_full_precision

Background = float | Callable[[Tensor], Tensor]


def boxless_background(background: Background) -> float:
    """Return the weight of an unmatched anchor or query; a function of boxes applies to regions alone."""
    return 1.0 if callable(background) else background


def background_weights(background: Background, boxes: Tensor) -> Tensor:
    """Return the weight f32[n] of each box f32[n,4] that matches no instance."""
    return background(boxes) if callable(background) else boxes.new_full((len(boxes),), background)


def matched_values(values: Tensor, matched: Tensor) -> Tensor:
    """Return the value of each match i64[n] (negative: none) from values [K,...]; 0 in an image without instances."""
    if len(values) == 0:
        return values.new_zeros((len(matched), *values.shape[1:]))
    return values[matched.clamp(min=0)]


def class_loss(logits: Tensor, labels: Tensor, weights: Tensor, gamma: float, normalizer: float | Tensor) -> Tensor:
    """Return the weighted (focal) cross-entropy of logits f32[n,C+1] against labels i64[n]; weights f32[n]."""
    rows = focal(F.cross_entropy(to_full_precision(logits), labels, reduction="none"), gamma)
    return weighted_mean(rows, weights, normalizer)


def mask_losses(
    maps: Sequence[Tensor],
    target: Tensor,
    weights: Tensor,
    boundary_weight: float,
    area_outside: Tensor,
    predict_iou: Callable[[Tensor], Tensor],
    normalizer: float | Tensor,
    pixel_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the mask loss of every trained map, summed, and the loss of the predicted mask IoU.

    maps: logits f32[p,h,w] of each region's class, the map that predicts first | target f32[p,H,W] in 0..1 | weights
    f32[p] of the mask loss | area_outside f32[p], see soft_mask_iou | predict_iou maps mask probabilities f32[p,h,w]
    to IoU logits f32[p] | pixel_weights f32[p,H,W] of the mask loss; None: 1.
    """
    losses = [_mask_loss(logits, target, weights, boundary_weight, normalizer, pixel_weights) for logits in maps]
    mask = torch.stack(losses).sum()
    probability = to_full_precision(maps[0].detach()).sigmoid()
    iou = soft_mask_iou(probability > 0.5, target, area_outside)
    return mask, mask_iou_loss(predict_iou(probability), iou, normalizer)


def area_outside_roi(area: Tensor, rois: Tensor, crops: Tensor) -> Tensor:
    """Return the area f32[p] of each region's instance beyond the region, in pixels of its crop f32[p,h,w].

    area f32[p] is that of the whole instance in pixels of the view; rois f32[p,4].
    """
    pixels = crops[0].numel() if len(crops) else 0
    scale = pixels / ((rois[:, 2] - rois[:, 0]) * (rois[:, 3] - rois[:, 1])).clamp(min=1e-6)
    return (area * scale - crops.flatten(1).sum(1)).clamp(min=0)


def boundary_weights(logits: Tensor, mean: float) -> Tensor:
    """Return pixel weights f32[n,h,w] that follow the predicted boundary of mask logits f32[n,h,w], `mean` on average.

    The map is |Laplace(sigmoid(logits))| of a 3x3 kernel with 8 in the centre and -1 around, without a gradient [Noisy
    Boundaries, CVPR 2022]. The release averages the loss before it multiplies, so that its map acts as a constant; here
    it acts pixel by pixel, as published.
    """
    probability = to_full_precision(logits.detach()).sigmoid()[:, None]  # as a batch, which may be empty
    around = F.avg_pool2d(probability, 3, stride=1, padding=1)  # a mean, as a kernel would be copied to the device
    change = 9 * (probability - around)[:, 0].abs()
    return mean * change / change.mean((1, 2), keepdim=True).clamp(min=1e-6)


def _mask_loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    boundary_weight: float,
    normalizer: float | Tensor,
    pixel_weights: Tensor | None,
) -> Tensor:
    """Return the weighted binary cross-entropy; a coarser map learns the averages of its cells."""
    if logits.shape[-1] != target.shape[-1]:
        target = F.adaptive_avg_pool2d(target, logits.shape[-1])
        if pixel_weights is not None:
            pixel_weights = F.adaptive_avg_pool2d(pixel_weights, logits.shape[-1])
    pixels = F.binary_cross_entropy_with_logits(to_full_precision(logits), target, reduction="none")
    if boundary_weight:
        pixels = pixels * boundary_weights(logits, boundary_weight)
    if pixel_weights is not None:
        pixels = pixels * pixel_weights
    return weighted_mean(pixels, weights, normalizer)
