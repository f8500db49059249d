"""Compute the weighted losses of K-Net's queries, matched and unmatched, as the PAIS release does.

Dims: n queries, C classes, h w cells of a map. All take logits, in full precision.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from pais_bench.layers.losses import weighted_mean
from pais_bench.types import LossNormalizer

CLASS, MASK, DICE = 2.0, 1.0, 4.0
"""Factors of the three, in the losses and in the matching costs."""
RANK = 0.1
NO_KERNEL = -100
"""The target of a cell that no instance with a kernel covers."""


def class_loss(logits: Tensor, labels: Tensor, weights: Tensor, matched: float | Tensor) -> Tensor:
    """Return 2 sum(weights * focal rows) / matched of f32[n,C] against labels i64[n], where C is no class.

    matched is the number of matched queries, its mean over the step, and never the sum of their weights f32[n].
    """
    target = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits)
    rows = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2).sum(1)
    return CLASS * (rows * weights).sum() / matched


def mask_loss(
    logits: Tensor,
    target: Tensor,
    weights: Tensor,
    matched: float | Tensor | None = None,
    pixel_weights: Tensor | None = None,
) -> Tensor:
    """Return the mean binary cross-entropy of f32[n,h,w] against soft masks in 0..1, each times its weight f32[n].

    pixel_weights f32[n,h,w] multiply it before the mean over pixels; None: 1.
    """
    pixels = F.binary_cross_entropy_with_logits(logits, target, weight=pixel_weights, reduction="none")
    return MASK * weighted_mean(pixels, weights, matched)


def dice_loss(logits: Tensor, target: Tensor, weights: Tensor, matched: float | Tensor | None = None) -> Tensor:
    """Return 4 mean(weights * (1 - 2<p,t> / (<p,p> + <t,t>))) of f32[n,h,w] against soft masks; weights f32[n]."""
    p, t = logits.sigmoid().flatten(1), target.flatten(1)
    overlap = 2 * (p * t).sum(1) / (squared_norm(p) + squared_norm(t))
    return DICE * weighted_mean(1 - overlap, weights, matched)


def squared_norm(maps: Tensor) -> Tensor:
    """Return <m,m> + 0.001 of maps f32[...,cells]."""
    return maps.square().sum(-1) + 1e-3


def semantic_loss(logits: Tensor, labels: Tensor, normalizer: LossNormalizer) -> Tensor:
    """Return the focal loss f32[B,C,h,w] against labels i64[B,h,w], where C is no class, per cell that has a class."""
    classes = logits.shape[1]
    target = F.one_hot(labels, classes + 1)[..., :-1].permute(0, 3, 1, 2).to(logits)
    labelled_cells = normalizer((labels < classes).sum())
    return sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2, reduction="sum") / labelled_cells


def rank_loss(masks: Tensor, kernels: Tensor, weights: Tensor, cells: float | Tensor) -> Tensor:
    """Return 0.1 sum(weights * cross-entropy over kernels) / cells, of mask logits f32[B,N,h,w] [K-Net's release].

    kernels i64[B,h,w]: that of the instance on top of each cell, NO_KERNEL where there is none | weights f32[B,h,w] |
    cells: all cells of the maps, their mean over the step; those without a kernel count there, too.
    """
    rows = F.cross_entropy(masks, kernels, ignore_index=NO_KERNEL, reduction="none")
    return RANK * (rows * weights).sum() / cells
