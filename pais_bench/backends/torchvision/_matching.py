"""Match queries to instances one to one at the least cost; costs know no weights [DETR, arXiv 2005.12872].

Dims: N queries, K instances, C classes, h w cells of the maps. All costs are f32[N,K].
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
    """Hold matched pairs, each i64[P]: image of the batch, its query, and the instance counted over the batch."""

    image: Tensor
    query: Tensor
    instance: Tensor


@torch.no_grad()
def matching_cost(masks: Tensor, targets: Tensor, logits: Tensor | None, labels: Tensor) -> Tensor:
    """Return 2 class + mask + 4 dice; without class logits, as before the first stage, no class cost."""
    total = MASK * mask_cost(masks, targets) + DICE * dice_cost(masks, targets)
    return total if logits is None else total + CLASS * class_cost(logits, labels)


def class_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the focal loss of a query f32[N,C] as the class of an instance i64[K], less that as not of it."""
    p = logits.sigmoid()
    positive = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log()
    negative = 0.75 * p**2 * -(1 - p + 1e-12).log()
    return (positive - negative)[:, labels]


def mask_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Return minus the mean agreement of mask logits f32[N,h,w] with maps f32[K,h,w] in 0..1."""
    p, t = logits.sigmoid().flatten(1), targets.flatten(1)
    return -(p @ t.T + (1 - p) @ (1 - t).T) / p.shape[1]


def dice_cost(logits: Tensor, targets: Tensor) -> Tensor:
    """Return minus the dice coefficient of mask logits f32[N,h,w] and maps f32[K,h,w] in 0..1."""
    p, t = logits.sigmoid().flatten(1), targets.flatten(1)
    return -2 * (p @ t.T) / (squared_norm(p)[:, None] + squared_norm(t)[None])


def match(costs: Sequence[Sequence[Tensor]]) -> list[Match]:
    """Match each stage of each image, costs[stage][image] f32[N,K_image]; return one Match a stage.

    All costs leave the device together and all pairs come back together. A cost that is not finite counts as the
    largest of numbers, so that the loss, and not the matching, tells of a network that diverged.
    """
    flat = torch.cat([cost.flatten() for stage in costs for cost in stage])
    numbers = np.nan_to_num(flat.cpu().double().numpy(), nan=1e30, posinf=1e30, neginf=1e30)
    pairs, start = [], 0
    for stage in costs:
        columns, instances = [np.zeros((3, 0), dtype=np.int64)], 0
        for image, cost in enumerate(stage):
            query, instance = linear_sum_assignment(numbers[start : start + cost.numel()].reshape(cost.shape))
            columns.append(np.stack((np.full_like(query, image), query, instance + instances)))
            start, instances = start + cost.numel(), instances + cost.shape[1]
        pairs.append(np.concatenate(columns, axis=1))
    together = torch.from_numpy(np.stack(pairs)).to(flat.device)
    return [Match(*stage.unbind()) for stage in together]
