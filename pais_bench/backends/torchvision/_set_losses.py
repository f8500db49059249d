"""What does a query pay that was matched, and one that was not? The losses of K-Net, with weights [paper.md 3.1, 4].

Dims: n queries, C classes, h w cells of a map. All take logits, in full precision.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pais_bench.losses import weighted_mean
from pais_bench.shares import mean_count

CLASS, MASK, DICE = 2.0, 1.0, 4.0
"""Factors of the three, in the losses and in the costs of a match."""


def class_loss(logits: Tensor, labels: Tensor, weights: Tensor, matched: float | Tensor) -> Tensor:
    """Give 2 sum(weights * focal rows) / matched of f32[n,C] against labels i64[n], where C is no class.

    matched is the number of matched queries, its mean over shares, and never the sum of their weights f32[n].
    """
    truth = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits)
    rows = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2).sum(1)
    return CLASS * (rows * weights).sum() / matched


def mask_loss(logits: Tensor, truth: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Give the mean binary cross-entropy of f32[n,h,w] against soft maps in 0..1, each times its weight f32[n]."""
    return MASK * weighted_mean(F.binary_cross_entropy_with_logits(logits, truth, reduction="none"), weights, count)


def dice_loss(logits: Tensor, truth: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Give 4 mean(weights * (1 - 2<p,t> / (<p,p> + <t,t>))) of f32[n,h,w] against soft maps; weights f32[n]."""
    p, t = logits.sigmoid().flatten(1), truth.flatten(1)
    overlap = 2 * (p * t).sum(1) / (norm(p) + norm(t))
    return DICE * weighted_mean(1 - overlap, weights, count)


def norm(maps: Tensor) -> Tensor:
    """Give <m,m> + 0.001 of maps f32[n,cells]."""
    return maps.square().sum(1) + 1e-3


def semantic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the focal loss f32[B,C,h,w] against labels i64[B,h,w], where C is no class, a cell that has a class."""
    classes = logits.shape[1]
    truth = F.one_hot(labels, classes + 1)[..., :-1].permute(0, 3, 1, 2).to(logits)
    some = mean_count((labels < classes).sum(), logits.device)
    return sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2, reduction="sum") / some
