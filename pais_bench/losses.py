"""How does a weight enter a loss? Means that the adapters of all frameworks share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def weighted_mean(values: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Give sum(weights * values) / count, or 0 with a gradient where there are none.

    values f32[n,...] are averaged over their trailing dims first; weights f32[n]. count is n, or its mean over all
    shares of the step (shares.mean_count), and never the sum of the weights, so that a weight scales its instance's
    gradient [paper.md 3.1, PAIS release].
    """
    if values.shape[0] == 0:
        return values.sum() * 0
    rows = values.flatten(1).mean(1) if values.dim() > 1 else values
    return (rows * weights).sum() / (len(rows) if count is None else count)


def boundary_weights(logits: Tensor, mean: float) -> Tensor:
    """Weigh the pixels of mask logits f32[n,h,w] by how much the predicted mask changes there, `mean` on average.

    The map is |Laplace(sigmoid(logits))| of a 3x3 kernel with 8 in the centre and -1 around, without a gradient [Noisy
    Boundaries, CVPR 2022; paper.md 7 and 9.7]. The release averages the loss before it multiplies, so that its map acts
    as a constant; here it acts pixel by pixel, as published.
    """
    kernel = logits.new_full((1, 1, 3, 3), -1.0)
    kernel[0, 0, 1, 1] = 8.0
    change = F.conv2d(logits.detach().sigmoid()[:, None], kernel, padding=1)[:, 0].abs()
    return mean * change / change.mean((1, 2), keepdim=True).clamp(min=1e-6)


def region_mask_loss(logits: Tensor, truth: Tensor, weights: Tensor, count: float | Tensor, boundary: float) -> Tensor:
    """Give the binary cross-entropy of mask logits f32[n,h,w] against truth f32[n,H,W] in 0..1, weighted by f32[n].

    It is the mean over pixels, over count regions; a coarser map learns the average of truth in its cells. A boundary
    above 0 weighs the pixels by boundary_weights of that mean.
    """
    if logits.shape[-1] != truth.shape[-1]:
        truth = F.adaptive_avg_pool2d(truth, logits.shape[-1])
    pixels = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    if boundary:
        pixels = pixels * boundary_weights(logits, boundary)
    return weighted_mean(pixels, weights, count)


def focal(rows: Tensor, gamma: float) -> Tensor:
    """Give cross-entropies f32[n] times (1 - p)^gamma, p the probability of the right class [arXiv 1708.02002]."""
    return (1 - (-rows).exp()) ** gamma * rows if gamma else rows


def mask_iou(predicted: Tensor, truth: Tensor, outside: Tensor | float = 0.0) -> Tensor:
    """Give the IoU f32[n] of binary maps predicted bool[n,h,w] and soft maps truth f32[n,h,w] in 0..1.

    outside f32[n] is the area of truth beyond the map, in pixels of the map [Mask Scoring R-CNN, arXiv 1903.00241].
    """
    inter = (predicted * truth).flatten(1).sum(1)
    union = predicted.flatten(1).sum(1) + truth.flatten(1).sum(1) + outside - inter
    return inter / union.clamp(min=1e-6)


def quality_loss(logits: Tensor, iou: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Give the binary cross-entropy of quality logits f32[n] against mask IoUs f32[n], over count [paper.md 3.3]."""
    rows = F.binary_cross_entropy_with_logits(logits, iou.detach().to(logits), reduction="none")
    return weighted_mean(rows, rows.new_ones(len(rows)), count)
