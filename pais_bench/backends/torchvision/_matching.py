"""Match queries to instances one to one at the least cost; costs know no weights [DETR, arXiv 2005.12872].

Dims: B images, N queries, K instances, C classes, h w cells of the maps. All costs are f32[...,N,K], and images may
come together in leading dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pais_bench.backends.torchvision._set_losses import CLASS, DICE, MASK, squared_norm


class Match(NamedTuple):
    """Hold matched pairs, each i64[T,P]: image of the batch, its query, and the instance counted over the batch.

    T stages have as many pairs each.
    """

    image: Tensor
    query: Tensor
    instance: Tensor


@torch.no_grad()
def matching_cost(masks: Tensor, targets: Tensor, logits: Tensor | None, labels: Tensor) -> Tensor:
    """Return 2 class + mask + 4 dice; without class logits, as before the first stage, no class cost."""
    p, t = masks.sigmoid().flatten(-2), targets.flatten(-2)
    overlap = p @ t.mT
    total = MASK * mask_cost(p, t, overlap) + DICE * dice_cost(p, t, overlap)
    return total if logits is None else total + CLASS * class_cost(logits, labels)


def class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the focal loss of a query f32[...,N,C] as the class of an instance i64[...,K], less that as not of it."""
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-12).log()
    return (positive - negative).take_along_dim(labels[..., None, :], -1)


def mask_cost(p: Tensor, t: Tensor, overlap: Tensor) -> Tensor:
    """Return minus the mean agreement of probabilities f32[...,N,cells] with maps f32[...,K,cells] in 0..1.

    overlap is p t^T; the agreement p t^T + (1 - p) (1 - t)^T needs no second product.
    """
    return (p.sum(-1)[..., None] + t.sum(-1)[..., None, :] - 2 * overlap) / p.shape[-1] - 1


def dice_cost(p: Tensor, t: Tensor, overlap: Tensor) -> Tensor:
    """Return minus the dice coefficient of probabilities f32[...,N,cells] and maps f32[...,K,cells] in 0..1."""
    return -2 * overlap / (squared_norm(p)[..., None] + squared_norm(t)[..., None, :])


def match(costs: Tensor, counts: Sequence[int], fixed: Tensor | None = None) -> Match:
    """Match each stage of each image by costs f32[T,B,N,K], of which image b has the first counts[b] instances.

    fixed i64[sum of counts]: the query of each instance that has one whatever the cost, else -1; None: none has.
    All costs leave the device together and all pairs come back together. A cost that is not finite counts as the
    largest of numbers, so that the loss, and not the matching, tells of a network that diverged.
    """
    numbers = np.nan_to_num(costs.cpu().double().numpy(), nan=1e30, posinf=1e30, neginf=1e30)
    starts = np.cumsum([0, *counts])
    known = np.full(starts[-1], -1) if fixed is None else fixed.cpu().numpy()
    by_image = np.split(known, starts[1:-1])
    stages = [
        np.concatenate([_pairs(cost, own, image, starts[image]) for image, (cost, own) in enumerate(images)], 1)
        for images in (zip(stage, by_image, strict=True) for stage in numbers)
    ]
    return Match(*torch.from_numpy(np.stack(stages, 1)).to(costs.device))


def _pairs(cost: np.ndarray, fixed: np.ndarray, image: int, start: int) -> np.ndarray:
    """Return i64[3,P]: image, query and instance of each pair; start is the image's first instance."""
    free, taken = np.flatnonzero(fixed < 0), np.flatnonzero(fixed >= 0)
    query, instance = linear_sum_assignment(cost[:, free])
    query, instance = np.concatenate((query, fixed[taken])), np.concatenate((free[instance], taken))
    return np.stack((np.full_like(query, image), query, instance + start))
