"""Sample anchors and regions of all views together, each view from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pais_bench.layers.seeding import seed_sampling


class Sample(NamedTuple):
    """Hold sampled positives i64[P] and negatives i64[Q], sorted, counted over all views; and how many a view has."""

    positive: Tensor
    negative: Tensor
    positives: list[int]
    negatives: list[int]


class SeededSampler:
    """Draw what torchvision's sampler of balanced positives and negatives draws; the host waits twice a batch.

    seeds: one a view; None draws from torch's global generator.
    """

    def __init__(self, batch_size_per_image: int, positive_fraction: float) -> None:
        self.batch_size_per_image, self.positive_fraction = batch_size_per_image, positive_fraction

    def __call__(self, labels: Sequence[Tensor], seeds: Sequence[int | None]) -> Sample:
        """Sample from labels [n_i] of each view: at least 1 a positive, 0 a negative, -1 neither."""
        flat = torch.cat(list(labels))
        both = torch.stack((flat >= 1, flat == 0))
        counts = torch.stack([view.sum(1) for view in both.split([len(label) for label in labels], 1)], 1)
        found = both.flatten().nonzero()[:, 0]
        of_positives, of_negatives = counts.tolist()
        candidates = found.split([*of_positives, *of_negatives])
        chosen: list[list[Tensor]] = [[], []]
        for view, seed in enumerate(seeds):
            positives = min(of_positives[view], int(self.batch_size_per_image * self.positive_fraction))
            negatives = min(of_negatives[view], self.batch_size_per_image - positives)
            seed_sampling(flat.device, seed)
            for kind, number in enumerate((positives, negatives)):
                one = candidates[kind * len(labels) + view]
                chosen[kind].append(one[torch.randperm(len(one), device=flat.device)[:number]])
        positive, negative = (torch.cat(kind).sort().values for kind in chosen)
        return Sample(positive, negative - len(flat), *([len(one) for one in kind] for kind in chosen))
