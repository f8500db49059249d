"""How is a step one forward of one module, whatever it trains on? The student, with its streams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pais_bench.config import Run
from pais_bench.shares import canvas
from pais_bench.types import Batch, Targets

Losses = dict[str, Tensor]
Stream = tuple[Sequence[Tensor], Sequence[Targets], tuple[int, int]]


class Streams:
    """Hold the views and targets of each stream of one step, and the least size (H, W) that views are padded to.

    A plain object, because Fabric takes apart the collections and dataclasses that it hands to a module.
    """

    def __init__(self, **streams: Stream) -> None:
        self.streams = streams


class Learner(nn.Module):
    """Wrap the student, so that a step is one forward of one module however many streams it has.

    Two forwards of a module under DistributedDataParallel break its gradient buckets; one that calls it twice does not.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.momentum = {module: module.momentum for module in student.modules() if isinstance(module, _BatchNorm)}

    def forward(self, step: Streams) -> Losses:
        """Give losses as stream/term; running statistics follow labelled views: patches and shears are for training."""
        losses: Losses = {}
        for stream, (images, targets, size) in step.streams.items():
            for norm, momentum in self.momentum.items():
                norm.momentum = momentum if stream == "labelled" else 0.0
            with canvas(size):
                named = self.student.loss(images, targets)  # type: ignore[operator]
            losses |= {f"{stream}/{term}": loss for term, loss in named.items()}
        return losses


def not_finite(losses: Losses, batch: Batch, run: Run) -> str:
    """Tell which terms of a step are not finite, on which images, and what to do."""
    bad = [name for name, loss in losses.items() if not torch.isfinite(loss)] or ["the sum"]
    images = [one.image_id for one in batch.labelled] + [one.image_id for one in batch.unlabelled]
    terms = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
    return (
        f"{run.folder}: loss not finite at step {batch.step} in {', '.join(bad)} ({terms}) on images {images}; "
        f"lower training.lr, set training.clip, or lengthen training.warmup_steps"
    )
