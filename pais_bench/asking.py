"""How is a network asked something in the middle of its training? In evaluation mode, and it is left as it was.

Nothing is done where a network is in the right mode: a walk over its modules takes as long as a small convolution, and
every step asks several times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Hold a network in evaluation mode; its mode is restored, also after an error."""
    mode = network.training
    if mode:
        network.eval()
    try:
        yield
    finally:
        if mode:
            network.train()


def enter_training(network: nn.Module) -> None:
    """Put a network into training mode."""
    if not network.training:
        network.train()
