"""Describe a training step for the log, and a loss that is not finite for its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pais_bench.study.run import Run
from pais_bench.training.diagnostics import describe
from pais_bench.types import Batch, Losses, Targets

REMEDY = "lower training.lr, set training.grad_clip, or lengthen training.warmup_steps"
"""What to try where a training diverges."""


@dataclass(frozen=True)
class StepRecord:
    """Hold what a step did: losses by stream and term of each micro-batch, pseudo_labels in pixels of the weak views.

    skipped: the gradients overflowed in 16-mixed precision, and no weight changed | stopping: some rank was told to
    stop before the step's losses were known. Nothing is computed before log_line is called, so that only logged steps
    pay for it.
    """

    batch: Batch
    losses: Sequence[dict[str, Losses]]
    pseudo_labels: Sequence[Targets]
    lr: float
    momentum: float
    skipped: bool
    stopping: bool

    def log_line(self, fabric: Fabric) -> dict[str, Any]:
        """Return the step's values of log.jsonl. Collective: losses are averaged over ranks."""
        line = {"lr": self.lr, "momentum": self.momentum, "loss": self._mean_losses(fabric)}
        return line | ({"pseudo": describe(self.pseudo_labels, self.batch)} if self.pseudo_labels else {})

    def _mean_losses(self, fabric: Fabric) -> dict[str, float]:
        """Return each loss of the whole batch, named stream/term: its mean over micro-batches and ranks."""
        names, values = _stack_means(self.losses)
        if fabric.world_size > 1:
            values = fabric.all_reduce(values, reduce_op="mean")  # type: ignore[assignment]
        return dict(zip(names, values.tolist(), strict=True))


def describe_non_finite(losses: Sequence[dict[str, Losses]], totals: Tensor, batch: Batch, run: Run) -> str:
    """Return a sentence that names the terms that are not finite, the images, and the remedies.

    totals: the sum of each micro-batch. Where all are finite, the loss of another rank is not, which tells of it.
    """
    if totals.isfinite().all():
        place = f"loss not finite at step {batch.step} in another process of this training"
        return f"{run.folder}: {place}; its message says why"
    names, means = _stack_means(losses)
    values = dict(zip(names, means.tolist(), strict=True))
    bad = [name for name, value in values.items() if not math.isfinite(value)] or ["the sum"]
    images = [image.image_id for image in batch.labelled] + [image.image_id for image in batch.unlabelled]
    listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    remedies = REMEDY + (", or set training.precision to bf16-mixed" if run.training.precision == "16-mixed" else "")
    place = f"loss not finite at step {batch.step} in {', '.join(bad)} ({listed})"
    return f"{run.folder}: {place} on images {images}; {remedies}"


def _stack_means(losses: Sequence[dict[str, Losses]]) -> tuple[list[str], Tensor]:
    """Return the names stream/term of all losses, and their means over micro-batches as one tensor of the device."""
    names = [f"{stream}/{term}" for stream, terms in losses[0].items() for term in terms]
    rows = [torch.stack([loss for terms in part.values() for loss in terms.values()]) for part in losses]
    return names, torch.stack(rows).mean(0)
