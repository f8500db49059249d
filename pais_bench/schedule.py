"""How fast does a student learn, and how slowly does its teacher follow? Rates, optimiser, running average."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pais_bench.config import Training


def ema_momentum(step: int, cap: float) -> float:
    """Give min(cap, 1 - 1/(step+1)): the mean of all students at first, a running mean later [paper.md 2.1, 9.5]."""
    return min(cap, 1 - 1 / (step + 1))


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set teacher = momentum * teacher + (1 - momentum) * student, parameter by parameter; buffers are copied."""
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]
    average(list(teacher.parameters()), list(student.parameters()), 0)  # how many were averaged makes no difference
    for stale, fresh in zip(teacher.buffers(), student.buffers(), strict=True):
        stale.copy_(fresh)


def learning_rate(training: Training, step: int) -> float:
    """Give the factor on the base rate: a linear warm-up, then a decay at each milestone passed."""
    passed = sum(step >= milestone for milestone in training.milestones)
    warm = 1.0
    if step < training.warmup_steps:
        warm = training.warmup_factor + (1 - training.warmup_factor) * step / training.warmup_steps
    return float(warm * training.decay**passed)


def build_optimizer(student: Any, training: Training) -> torch.optim.Optimizer:
    """Build the optimiser over what learns; the backbone has its own rate."""
    backbone = {id(p) for p in student.backbone_parameters()}
    rates: dict[float, list[nn.Parameter]] = {}
    for p in student.parameters():
        if p.requires_grad:
            rate = training.lr * (training.backbone_lr_factor if id(p) in backbone else 1.0)
            rates.setdefault(rate, []).append(p)
    groups = [{"params": parameters, "lr": rate, "base_lr": rate} for rate, parameters in rates.items()]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.lr, momentum=0.9, weight_decay=training.weight_decay)
    return torch.optim.AdamW(groups, lr=training.lr, weight_decay=training.weight_decay, fused=True)
