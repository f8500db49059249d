"""Share what depends on the whole step over ranks and micro-batches: padding, normalisers, batch-norm statistics."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed, nn
from torch.distributed import distributed_c10d

from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import (
    CountRecorder,
    RankNormalizer,
    RecordedNormalizer,
    average_counts,
    batch_normalizer,
    world_size,
)
from pais_bench.training.student import StudentInput, StudentLosses
from pais_bench.types import Batch, LossNormalizer, Size

Gathered = TypeVar("Gathered")


JOIN = timedelta(minutes=15)
"""How long the processes of a training wait for each other at its start."""
PATIENCE = timedelta(hours=12)
"""How long they wait for each other later, as where the first computes AP on a CPU."""


class JoiningStrategy(DDPStrategy):
    """Wait JOIN for the processes of the training, and PATIENCE for what they send each other then."""

    def __init__(self) -> None:
        super().__init__(timeout=JOIN)

    def setup_environment(self) -> None:
        """Join the other processes; raise BenchError where they do not come."""
        try:
            super().setup_environment()
        except (distributed.DistStoreError, distributed.DistNetworkError) as error:
            address, port = (os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT"))
            raise BenchError(
                f"{address}, port {port}: the {self.world_size} processes of this training have not met there within "
                f"{JOIN.total_seconds() / 60:.3g} minutes; check that the same command runs on each of its "
                f"{self.num_nodes} nodes, with the same MASTER_ADDR and MASTER_PORT and a NODE_RANK of its own from 0 "
                f"on, and that the port is free and reached from all of them ({str(error).partition('. ')[0]})"
            ) from error
        # torch made it public in 2.15.
        getattr(distributed, "set_timeout", distributed_c10d._set_pg_timeout)(PATIENCE)


def strategy(devices: int) -> Any:
    """Return the Fabric strategy of that many devices.

    Raises BenchError where the ranks could not find each other, for which they would wait for nothing.
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
    return JoiningStrategy()


def any_rank(fabric: Fabric, flag: bool) -> bool:
    """Return whether the flag is set on any rank: ranks that decide apart wait for each other for ever."""
    if fabric.world_size == 1:
        return flag
    total = fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum")
    return bool(total)


def gather_to_first(value: Gathered) -> list[Gathered] | None:
    """Return what all ranks pass, in their order, on the first; None on the others. Collective."""
    if world_size() == 1:
        return [value]
    values: list[Any] | None = [None] * world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(value, values)
    return values


class PendingFlags:
    """Copy flags to the host while the device goes on with its work; a flag is set where any rank has set it.

    There is one reduction and one copy for all flags. Collective: every rank makes them at the same point of a step.
    """

    def __init__(self, device: torch.device, flags: Sequence[Tensor | bool]) -> None:
        """Queue the copy behind the work that the flags, bool scalars of the device or of the host, come from."""
        values = torch.stack(
            [flag.float() if isinstance(flag, Tensor) else torch.full((), float(flag), device=device) for flag in flags]
        )
        if world_size() > 1:
            distributed.all_reduce(values)  # that of Fabric has a barrier, in which the host waits for the device
        # CUDA alone has both: a copy into pinned memory that nobody waits for, and an event that tells of its end.
        self.copied = torch.cuda.Event() if values.is_cuda else None  # type: ignore[no-untyped-call]
        self.values = values.to("cpu", non_blocking=values.is_cuda)
        if self.copied is not None:
            self.copied.record()

    def read(self) -> list[bool]:
        """Return the flags; wait until the device has come to the point at which they were made, and no longer."""
        if self.copied is not None:
            self.copied.synchronize()
        return [bool(value) for value in self.values.tolist()]


def max_view_sizes(batch: Batch, device: torch.device) -> tuple[Size, Size, Size]:
    """Return the largest (H, W) of labelled, weak and strong views over all ranks; (0, 0) where there are none."""
    sizes = (
        [image.view.size for image in batch.labelled],
        [image.weak.size for image in batch.unlabelled],
        [image.strong.size for image in batch.unlabelled],
    )
    largest = torch.tensor([[max((size[axis] for size in views), default=0) for axis in (0, 1)] for views in sizes])
    if world_size() > 1:
        largest = largest.to(device)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    labelled, weak, strong = ((int(height), int(width)) for height, width in largest.tolist())
    return labelled, weak, strong


def step_normalizers(losses: StudentLosses, inputs: Sequence[StudentInput], fabric: Fabric) -> list[LossNormalizer]:
    """Return the loss normaliser of each micro-batch.

    Several micro-batches have to know the counts of all before the first is learnt: a forward pass without gradient
    records them.
    """
    if len(inputs) == 1:
        return [RankNormalizer(fabric.device) if world_size() > 1 else batch_normalizer]
    recorders = [CountRecorder(fabric.device) for _ in inputs]
    with torch.no_grad(), fabric.autocast():
        for streams, recorder in zip(inputs, recorders, strict=True):
            losses(streams, recorder)
    counts = average_counts(recorders)
    return [RecordedNormalizer(counts) for _ in inputs]


def convert_sync_batchnorm(network: nn.Module) -> None:
    """Replace batch norm that learns by one with statistics over all ranks. torch has it for CUDA alone."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, RankBatchNorm.like(child))


class RankBatchNorm(nn.BatchNorm2d):
    """Normalise by statistics over all ranks, with one collective forward and one backward.

    For small networks it is the number of collectives that takes the time.
    """

    @classmethod
    def like(cls, norm: nn.BatchNorm2d) -> RankBatchNorm:
        """Return a norm that shares the parameters and buffers of another."""
        new = cls(norm.num_features, norm.eps, norm.momentum)
        new.weight, new.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(new, name, buffer)
        return new.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Map f32[B,C,h,w] to the same shape and dtype."""
        if not self.training:
            return super().forward(x)
        dims, shape = (0, 2, 3), (1, -1, 1, 1)
        x, dtype = x.to(torch.promote_types(x.dtype, torch.float32)), x.dtype
        count = x.numel() // x.shape[1]
        own_mean = x.sum(dims) / max(count, 1)  # a rank may have no region at all; the mean of nothing is no number
        own_spread = (x - own_mean.view(shape)).square().sum(dims)
        own = torch.cat([own_mean, own_spread, own_mean.new_full((1,), count)])
        means, spreads, sizes = _GatherRanks.apply(own).split([len(own_mean)] * 2 + [1], dim=1)
        total = sizes.sum()
        mean = (sizes * means).sum(0) / total.clamp(min=1)
        var = (spreads + sizes * (means - mean).square()).sum(0) / total.clamp(min=1)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = self.momentum * (total > 0)  # without a sample on any rank the statistics stay
            self.running_mean.lerp_(mean, momentum)  # type: ignore[union-attr]
            self.running_var.lerp_(var * total / (total - 1).clamp(min=1), momentum)  # type: ignore[union-attr]
        centred = x - mean.view(shape)
        scaled = centred * (torch.rsqrt(var + self.eps) * self.weight).view(shape) + self.bias.view(shape)
        output: Tensor = scaled.to(dtype)
        return output


class _GatherRanks(torch.autograd.Function):
    """Gather [ranks, n] of every rank's [n]; every rank's loss depends on every rank's part: gradients are summed."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(world_size())]
        distributed.all_gather(parts, values)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total[distributed.get_rank()]
