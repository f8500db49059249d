"""Set a module's mode only where it differs: a walk over all modules takes as long as a small convolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode and restore its mode on exit, also after an error."""
    training = module.training
    if training:
        module.eval()
    try:
        yield
    finally:
        if training:
            module.train()


def ensure_train_mode(module: nn.Module) -> None:
    """Put a module in train mode."""
    if not module.training:
        module.train()
