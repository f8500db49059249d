"""Which query answers for which instance? The cheapest one-to-one match; costs know no weights [DETR, paper.md 4].

Dims: N queries, K instances, C classes, h w cells of the maps. All costs are f32[N,K].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pais_bench.backends.torchvision._set_losses import CLASS, DICE, MASK, norm


class Match(NamedTuple):
    """Hold matched pairs, each i64[P]: image of the batch, its query, and the instance counted over the batch."""

    image: Tensor
    query: Tensor
    instance: Tensor


@torch.no_grad()
def cost(masks: Tensor, truth: Tensor, logits: Tensor | None, labels: Tensor) -> Tensor:
    """Give 2 class + mask + 4 dice; without class logits, as before the first stage, no class cost."""
    total = MASK * mask_cost(masks, truth) + DICE * dice_cost(masks, truth)
    return total if logits is None else total + CLASS * class_cost(logits, labels)


def class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Give the focal loss of a query f32[N,C] as the class of an instance i64[K], less that as not of it."""
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-12).log()
    return (positive - negative)[:, labels]


def mask_cost(logits: Tensor, truth: Tensor) -> Tensor:
    """Give minus the mean agreement of mask logits f32[N,h,w] with maps f32[K,h,w] in 0..1."""
    p, t = logits.sigmoid().flatten(1), truth.flatten(1)
    return -(p @ t.T + (1 - p) @ (1 - t).T) / p.shape[1]


def dice_cost(logits: Tensor, truth: Tensor) -> Tensor:
    """Give minus the dice coefficient of mask logits f32[N,h,w] and maps f32[K,h,w] in 0..1."""
    p, t = logits.sigmoid().flatten(1), truth.flatten(1)
    return -2 * (p @ t.T) / (norm(p)[:, None] + norm(t)[None])


def match(costs: Sequence[Sequence[Tensor]]) -> list[Match]:
    """Match each stage of each image, costs[stage][image] f32[N,K_image]; give one Match a stage.

    All costs leave the device together and all pairs come back together. A cost that is not finite counts as the
    largest of numbers, so that the loss, and not the matching, tells of a network that diverged.
    """
    flat = torch.cat([one.flatten() for stage in costs for one in stage])
    numbers = np.nan_to_num(flat.cpu().double().numpy(), nan=1e30, posinf=1e30, neginf=1e30)
    pairs, read = [], 0
    for stage in costs:
        columns, first = [np.zeros((3, 0), dtype=np.int64)], 0
        for image, one in enumerate(stage):
            query, instance = linear_sum_assignment(numbers[read : read + one.numel()].reshape(one.shape))
            columns.append(np.stack((np.full_like(query, image), query, instance + first)))
            read, first = read + one.numel(), first + one.shape[1]
        pairs.append(np.concatenate(columns, axis=1))
    together = torch.from_numpy(np.stack(pairs)).to(flat.device)
    return [Match(*stage.unbind()) for stage in together]
