"""Build the optimiser, follow its learning-rate schedule, and average the student into the teacher."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pais_bench.layers.network import Network
from pais_bench.study.run import Training


def ema_momentum(step: int, decay: float) -> float:
    """Return min(decay, 1 - 1/(step+1)): the mean of all students at first, an EMA later, as in the PAIS release."""
    return min(decay, 1 - 1 / (step + 1))


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set teacher = momentum * teacher + (1 - momentum) * student for every parameter that learns; copy the buffers.

    The parameters that do not learn are equal from the start.
    """
    parameters = zip(teacher.parameters(), student.parameters(), strict=True)
    stale, fresh = zip(*(pair for pair in parameters if pair[1].requires_grad), strict=True)
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    average(stale, fresh, 0)  # the number of averaged models is not used
    buffers: defaultdict[torch.dtype, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for pair in zip(teacher.buffers(), student.buffers(), strict=True):
        buffers[pair[1].dtype].append(pair)
    for pairs in buffers.values():  # CUDA copies those of one type together
        stale, fresh = zip(*pairs, strict=True)
        torch._foreach_copy_(stale, fresh)


def set_learning_rate(optimizer: Any, training: Training, step: int) -> float:
    """Set the learning rate of every parameter group for a step; return that of the heads."""
    factor = learning_rate_factor(training, step)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return training.lr * factor


def learning_rate_factor(training: Training, step: int) -> float:
    """Return the factor on the base learning rate: a linear warm-up, then a decay at each milestone passed."""
    passed = sum(step >= milestone for milestone in training.milestones)
    warm = 1.0
    if step < training.warmup_steps:
        warm = training.warmup_factor + (1 - training.warmup_factor) * step / training.warmup_steps
    return float(warm * training.lr_decay**passed)


def build_optimizer(student: Network, training: Training) -> torch.optim.Optimizer:
    """Build the optimiser over the parameters that learn; the backbone has its own learning rate."""
    backbone = {id(p) for p in student.backbone_parameters()}
    by_lr: dict[float, list[nn.Parameter]] = {}
    for p in student.parameters():
        if p.requires_grad:
            lr = training.lr * (training.backbone_lr_factor if id(p) in backbone else 1.0)
            by_lr.setdefault(lr, []).append(p)
    groups = [{"params": parameters, "lr": lr, "base_lr": lr} for lr, parameters in by_lr.items()]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.lr, momentum=0.9, weight_decay=training.weight_decay)
    fused = training.precision != "16-mixed"  # what unscales its gradients itself cannot be clipped by Fabric
    return torch.optim.AdamW(groups, lr=training.lr, weight_decay=training.weight_decay, fused=fused)
