"""Compute weighted losses, the way that every adapter does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from pais_bench.layers.precision import to_full_precision


def weighted_mean(values: Tensor, weights: Tensor, normalizer: float | Tensor | None = None) -> Tensor:
    """Return sum(weights * values) / normalizer, or 0 with a gradient where there are no values.

    values f32[n,...] are averaged over their trailing dims first; weights f32[n]. normalizer: n where None; else the
    mean of n over the step, and never the sum of the weights, so that a weight scales its instance's gradient, as in
    the PAIS release.
    """
    if values.shape[0] == 0:
        return values.sum() * 0
    rows = values.flatten(1).mean(1) if values.dim() > 1 else values
    return (rows * weights).sum() / (len(rows) if normalizer is None else normalizer)


def focal(rows: Tensor, gamma: float) -> Tensor:
    """Return cross-entropies f32[n] times (1 - p)^gamma, p the probability of the right class [arXiv 1708.02002]."""
    # Clamped, as the power has no finite gradient at p = 1 for gamma below 1.
    return (1 - (-rows).exp()).clamp(min=1e-12) ** gamma * rows if gamma else rows


def soft_mask_iou(predicted: Tensor, target: Tensor, area_outside: Tensor | float = 0.0) -> Tensor:
    """Return the IoU f32[n] of binary masks bool[n,h,w] and soft masks f32[n,h,w] in 0..1.

    area_outside f32[n] is the area of the target beyond the map, in pixels of the map [Mask Scoring R-CNN, arXiv
    1903.00241].
    """
    inter = (predicted * target).flatten(1).sum(1)
    union = predicted.flatten(1).sum(1) + target.flatten(1).sum(1) + area_outside - inter
    return inter / union.clamp(min=1e-6)


def mask_iou_loss(logits: Tensor, iou: Tensor, normalizer: float | Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of mask-IoU logits f32[n] against IoUs f32[n] [PAIS, section 3.3]."""
    logits = to_full_precision(logits)
    rows = F.binary_cross_entropy_with_logits(logits, iou.detach().to(logits), reduction="none")
    return weighted_mean(rows, rows.new_ones(len(rows)), normalizer)
