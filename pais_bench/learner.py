"""How is a step one forward of one module, whatever it trains on? The student, with its streams."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pais_bench.shares import canvas
from pais_bench.types import Targets

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
