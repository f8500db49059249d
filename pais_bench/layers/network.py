"""Declare what every network is: a module of torch that offers what the training calls."""

from __future__ import annotations

from torch import nn

from pais_bench.types import Backend


class Network(nn.Module, Backend):
    """Compute losses and predictions; `Backend` of every framework derives from it. types.Backend describes each.

    It is built from the number of classes, its options, the labels of stuff where it learns stuff, and pretrained:
    false where a checkpoint replaces all weights, so that the files of pretrained ones need not be there. What is
    frozen follows from the options alone.
    """
