"""Compile a part of a network without a change of its names."""

from __future__ import annotations

from torch import nn


def compile_once(module: nn.Module) -> None:
    """Compile the forward pass of a module at its first use; sizes may vary, and names of the state dict stay.

    At the first use and not when it is built, because a copy of a compiled module, as a teacher is, is not compiled.
    """
    if module._compiled_call_impl is None:
        module.compile(dynamic=True)
