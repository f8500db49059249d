"""Divide a loss term by its number of samples in the whole step: all ranks and all micro-batches.

A LossNormalizer maps the number of samples that a term has in one forward pass to what the term is divided by: the mean
of that number over ranks and micro-batches, at least 1 in total. The mean over ranks and micro-batches of the losses is
then the loss of the whole batch. Every rank and micro-batch asks for the same numbers in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, distributed

Count = int | Tensor


def world_size() -> int:
    """Return the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over ranks, a new tensor, for which the host does not wait. Collective."""
    total = values.clone()
    if world_size() > 1:
        distributed.all_reduce(total)
    return total


def batch_normalizer(count: Count) -> float | Tensor:
    """Return the count of a batch that is the whole step, at least 1."""
    return _floating(count).clamp(min=1) if isinstance(count, Tensor) else max(float(count), 1.0)


class RankNormalizer:
    """Average counts over ranks: one collective a call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, count: Count) -> Tensor:
        """Return the mean of the ranks' counts, of a sum of at least 1."""
        total = _on(self.device, count)
        distributed.all_reduce(total)
        return total.clamp(min=1) / world_size()


class CountRecorder:
    """Record the counts of a forward pass; the losses of that pass are not used."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.counts = device, list[Tensor]()

    def __call__(self, count: Count) -> float | Tensor:
        """Record a count and return it, at least 1."""
        self.counts.append(_on(self.device, count))
        return batch_normalizer(count)


class RecordedNormalizer:
    """Return mean counts that were recorded before, in the order in which they were recorded."""

    def __init__(self, counts: Tensor) -> None:
        self.counts = iter(counts)

    def __call__(self, count: Count) -> Tensor:
        """Return the next of the recorded means, whatever the count of this micro-batch is."""
        count_of_step: Tensor = next(self.counts)
        return count_of_step


def average_counts(recorded: Sequence[CountRecorder]) -> Tensor:
    """Return f32[counts]: each count averaged over the recorded micro-batches and over ranks."""
    total = torch.stack([torch.stack(recorder.counts) for recorder in recorded]).sum(0)
    if world_size() > 1:
        distributed.all_reduce(total)
    return total.clamp(min=1) / (world_size() * len(recorded))


def _floating(count: Tensor) -> Tensor:
    return count.to(torch.promote_types(count.dtype, torch.float32))


def _on(device: torch.device, count: Count) -> Tensor:
    if isinstance(count, Tensor):
        return _floating(count).to(device)
    return torch.full((), float(count), device=device)  # a copy of a number would make the host wait
