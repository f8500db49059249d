"""How is a network asked something in the middle of its training? In evaluation mode, and it is left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Hold a network in evaluation mode; its mode is restored, also after an error."""
    mode = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(mode)
