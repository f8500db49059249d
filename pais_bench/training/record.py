"""Describe a training step for the log, and a loss that is not finite for its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric

from pais_bench.study.run import Run
from pais_bench.training.diagnostics import describe
from pais_bench.types import Batch, Losses, Targets


@dataclass(frozen=True)
class StepRecord:
    """Hold what a step did: losses by stream and term of each micro-batch, pseudo_labels in pixels of the weak views.

    Nothing is computed before log_line is called, so that only logged steps pay for it.
    """

    batch: Batch
    losses: Sequence[dict[str, Losses]]
    pseudo_labels: Sequence[Targets]
    lr: float
    momentum: float

    def log_line(self, fabric: Fabric) -> dict[str, Any]:
        """Return the step's values of log.jsonl. Collective: losses are averaged over ranks."""
        line = {"lr": self.lr, "momentum": self.momentum, "loss": self._mean_losses(fabric)}
        return line | ({"pseudo": describe(self.pseudo_labels, self.batch)} if self.pseudo_labels else {})

    def _mean_losses(self, fabric: Fabric) -> dict[str, float]:
        """Return each loss of the whole batch, named stream/term: its mean over micro-batches and ranks."""
        flat = [
            {(stream, term): x for stream, terms in part.items() for term, x in terms.items()} for part in self.losses
        ]
        values = torch.stack([torch.stack(list(part.values())) for part in flat]).mean(0)
        if fabric.world_size > 1:
            values = fabric.all_reduce(values, reduce_op="mean")  # type: ignore[assignment]
        return {f"{stream}/{term}": value for (stream, term), value in zip(flat[0], values.tolist(), strict=True)}


def describe_non_finite(losses: dict[str, Losses], batch: Batch, run: Run) -> str:
    """Return a sentence that names the terms that are not finite, the images, and the remedies."""
    flat = {f"{stream}/{term}": loss for stream, terms in losses.items() for term, loss in terms.items()}
    bad = [name for name, loss in flat.items() if not torch.isfinite(loss)] or ["the sum"]
    images = [image.image_id for image in batch.labelled] + [image.image_id for image in batch.unlabelled]
    values = ", ".join(f"{name} {loss.item():.4g}" for name, loss in flat.items())
    return (
        f"{run.folder}: loss not finite at step {batch.step} in {', '.join(bad)} ({values}) on images {images}; "
        f"lower training.lr, set training.grad_clip, or lengthen training.warmup_steps"
    )
