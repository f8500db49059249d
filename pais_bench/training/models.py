"""Build the networks of a run and their optimiser."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from pais_bench.errors import BenchError
from pais_bench.layers.network import Network
from pais_bench.methods.base import MethodBase
from pais_bench.study.run import Run
from pais_bench.training.distributed import convert_sync_batchnorm
from pais_bench.training.networks import build_backend, stuff_labels
from pais_bench.training.optim import build_optimizer
from pais_bench.training.student import StudentLosses


@dataclass
class Models:
    """Hold student, EMA teacher, optimiser, and the frozen teacher of a trained run where the method needs one.

    losses computes the student's losses; rank_losses is the same as Fabric set it up to exchange gradients. stuff are
    the labels of its classes. updates counts the optimiser's steps since the models were built: a gradient scaler
    leaves out those that overflow.
    """

    student: Network
    teacher: Network
    losses: StudentLosses
    rank_losses: Any
    optimizer: Any
    stuff: Sequence[int] = ()
    pretrained_teacher: Network | None = None
    updates: int = 0

    def teacher_at(self, step: int, method: MethodBase) -> Network:
        """Return the network that gives the pseudo-labels of a step, counted from the end of the burn-in."""
        if self.pretrained_teacher is not None and step < method.pretrained_teacher_steps:
            return self.pretrained_teacher
        return self.teacher

    def count_update(self, *_: Any) -> None:
        """Count a step of the optimiser that was taken."""
        self.updates += 1

    def weights_are_finite(self) -> bool:
        """Return whether all weights of the student are finite; the host waits for the device."""
        return math.isfinite(get_total_norm(self.student.parameters(), norm_type=math.inf))


def build_models(run: Run, isthing: Sequence[bool], fabric: Fabric, micro_batches: int) -> Models:
    """Build the networks from the run's seed; raise BenchError where batch norm would see a part of a batch alone."""
    torch.manual_seed(run.seed)
    student = build_backend(run, isthing).to(fabric.device)
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    if fabric.world_size > 1:
        convert_sync_batchnorm(student)
    if micro_batches > 1 and any(isinstance(module, _BatchNorm) and module.training for module in student.modules()):
        raise BenchError(
            f"networks.{run.network.label}: its batch norm learns from a whole batch, so --accumulate "
            f"{micro_batches} is another experiment; take more devices, or a network with frozen norms"
        )
    losses = StudentLosses(student)
    rank_losses, optimizer = fabric.setup(losses, build_optimizer(student, run.training))
    models = Models(student, teacher, losses, rank_losses, optimizer, stuff_labels(isthing))
    optimizer.register_step_post_hook(models.count_update)
    return models
