"""How do many ranks, or many small batches, make the step of one batch? They share what depends on all of it.

Three things do: the numbers that losses are divided by, the size that views are padded to, and the statistics of batch
norm. What is drawn about an image follows from a seed of its own. Then the mean over shares of losses and gradients is
that of the whole batch.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn

from pais_bench.types import BenchError

Count = float | Tensor

_noted: ContextVar[list[Tensor] | None] = ContextVar("noted", default=None)
_answers: ContextVar[Iterator[Tensor] | None] = ContextVar("answers", default=None)
_canvas: ContextVar[tuple[int, int]] = ContextVar("canvas", default=(0, 0))


def ranks() -> int:
    """Give the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def mean_count(count: int | Tensor, device: torch.device) -> Count:
    """Give the mean of a count over all shares of the step, of a sum of at least 1; every share has to ask.

    A loss that divides by it has the mean over shares that the loss of the whole batch is.
    """
    if (answers := _answers.get()) is not None:
        return next(answers)
    total: Count = (
        count.to(torch.promote_types(count.dtype, torch.float32)) if isinstance(count, Tensor) else float(count)
    )
    if (noted := _noted.get()) is not None:
        noted.append(torch.as_tensor(total, device=device))
    elif ranks() > 1:
        total = torch.as_tensor(total, device=device)
        distributed.all_reduce(total)
        return total.clamp(min=1) / ranks()
    return total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1.0)


def mean_counts(forwards: Sequence[Callable[[], object]]) -> Callable[[], Iterator[Tensor]]:
    """Ask every part of a batch for its counts, in a forward pass each, and give what answers for all of them."""
    asked = []
    for forward in forwards:
        noted: list[Tensor] = []
        token = _noted.set(noted)
        try:
            with torch.no_grad():
                forward()
        finally:
            _noted.reset(token)
        asked.append(torch.stack(noted))
    total = torch.stack(asked).sum(0)
    if ranks() > 1:
        distributed.all_reduce(total)
    return lambda: iter(total.clamp(min=1) / (ranks() * len(forwards)))


@contextmanager
def answered(answers: Iterator[Tensor] | None) -> Iterator[None]:
    """Have mean_count give these answers, one after the other; None asks the ranks."""
    token = _answers.set(answers)
    try:
        yield
    finally:
        _answers.reset(token)


@contextmanager
def canvas(size: tuple[int, int]) -> Iterator[None]:
    """Have views padded to at least this size (H, W) in pixels."""
    token = _canvas.set(size)
    try:
        yield
    finally:
        _canvas.reset(token)


def padded_size(images: Sequence[Tensor], multiple: int) -> tuple[int, int]:
    """Give the size (H, W) that images [3,h,w] are padded to: of the largest in the step, up to a multiple of strides.

    What lies beyond a view changes its borders a little, so the size may not depend on which share a view is in.
    """
    sizes = [tuple(image.shape[-2:]) for image in images] + [_canvas.get()]
    height, width = (math.ceil(max(size[axis] for size in sizes) / multiple) * multiple for axis in (0, 1))
    return height, width


def blanks(images: Sequence[Tensor]) -> list[Tensor]:
    """Give an empty view of the step's size where it has larger ones than these images [3,h,w], else none.

    It is for frameworks that pad to the largest of what they are given.
    """
    size = padded_size(images, 1)
    enough = all(size[axis] == max(image.shape[axis - 2] for image in images) for axis in (0, 1))
    return [] if enough else [images[0].new_zeros((3, *size))]


def seed_draws(where: torch.device, seed: int | None) -> None:
    """Let the next draws, on the CPU and on a device, follow from a seed; None leaves them to torch.

    torch.manual_seed seeds every kind of device that there is: 1 ms a call, and a step has several an image.
    """
    if seed is None:
        return
    torch.default_generator.manual_seed(seed)
    if where.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif where.type != "cpu":
        torch.manual_seed(seed)


def largest(sizes: Sequence[Sequence[tuple[int, int]]], device: torch.device) -> list[tuple[int, int]]:
    """Give the largest (H, W) of each list of sizes over all ranks; (0, 0) of an empty one."""
    found = torch.tensor([[max((size[axis] for size in some), default=0) for axis in (0, 1)] for some in sizes])
    if ranks() > 1:
        found = found.to(device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return [(int(height), int(width)) for height, width in found.tolist()]


def strategy(devices: int) -> Any:
    """Give how that many devices exchange gradients; they wait for hours, because the first evaluates alone.

    Raises BenchError where they could not find each other, for which they would wait as long.
    """
    if devices == 1:
        return "auto"
    if SLURMEnvironment.detect():
        name = SLURMEnvironment().main_address
        try:
            socket.getaddrinfo(name, None)
        except OSError:
            raise BenchError(
                f"{name}: the first node of this SLURM job has no address by that name, so its processes cannot find "
                f"each other; set MASTER_ADDR to one that it has"
            ) from None
    return DDPStrategy(timeout=timedelta(hours=12))


def synchronise(network: nn.Module) -> None:
    """Have batch norm that learns take its statistics over all ranks. torch has it for CUDA alone."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _SharedBatchNorm


class _SharedBatchNorm(nn.BatchNorm2d):
    """Ask the other ranks once forward and once backward: for small networks it is the asking that takes the time."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims, shape = (0, 2, 3), (1, -1, 1, 1)
        x, kind = x.to(torch.promote_types(x.dtype, torch.float32)), x.dtype
        count = x.numel() // x.shape[1]
        mine = x.sum(dims) / max(count, 1)  # a rank may have no region at all; the mean of nothing is no number
        spread = (x - mine.view(shape)).square().sum(dims)
        cells = mine.new_full((1,), count)
        means, spreads, sizes = _Gathered.apply(torch.cat([mine, spread, cells])).split([len(mine)] * 2 + [1], dim=1)
        total = sizes.sum()
        mean = (sizes * means).sum(0) / total
        var = (spreads + sizes * (means - mean).square()).sum(0) / total
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(var * total / (total - 1), self.momentum)  # type: ignore[union-attr, arg-type]
        centred = x - mean.view(shape)
        found = centred * (torch.rsqrt(var + self.eps) * self.weight).view(shape) + self.bias.view(shape)
        shared: Tensor = found.to(kind)
        return shared


class _Gathered(torch.autograd.Function):
    """Give [ranks, n] of every rank's [n]; every rank's loss depends on every rank's part, so gradients are summed."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(ranks())]
        distributed.all_gather(parts, values)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
