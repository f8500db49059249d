"""Hold what the heads learn from, and find each region's instance among those of all views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pais_bench.types import LossNormalizer, Targets


class Supervision(NamedTuple):
    """Hold what torchvision hands to its heads as `targets`: those of a batch, and the normaliser of its losses."""

    targets: Sequence[Targets]
    normalizer: LossNormalizer


def offset_owners(matched: Sequence[Tensor], targets: Sequence[Targets]) -> Tensor:
    """Return, for the matches i64[n_i] of each view, the instance i64[n] counted over all views.

    What a negative match becomes has no meaning.
    """
    owners, start = [], 0
    for one, target in zip(matched, targets, strict=True):
        owners.append(one + start)
        start += len(target.instances)
    return torch.cat(owners)
