"""Declare what every network is: a module of torch that offers what the training calls."""

from __future__ import annotations

from torch import nn

from pais_bench.types import Backend


class Network(nn.Module, Backend):
    """Compute losses and predictions; `Backend` of every framework derives from it. types.Backend describes each."""
