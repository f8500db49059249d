"""Refuse what a method's hooks return in another form than MethodBase and Targets say.

Types, shapes and dtypes are known to the host, so that nothing here waits for the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pais_bench.errors import BenchError
from pais_bench.methods.base import MethodBase, method_file
from pais_bench.types import Instances, Keep


def checked_keep(method: MethodBase) -> Keep:
    """Return the method's keep, which raises BenchError where it returns no bool[N], such as indices."""

    def keep(detections: Instances) -> Tensor:
        kept = method.keep(detections)
        if not (_form(kept) == _form(detections.labels) and kept.dtype == torch.bool):
            raise BenchError(
                f"{method_file(type(method))}: keep returned {describe_form(kept)}; give "
                f"bool[{len(detections)}], whether each detection is kept, on the device of the detections"
            )
        return kept

    return keep


def checked_state(method: MethodBase) -> dict[str, Tensor]:
    """Return the method's state_dict; raise BenchError where a value is no tensor, which no checkpoint gives back."""
    state = method.state_dict()
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise BenchError(
                f"{method_file(type(method))}: state_dict has '{key}', a {type(value).__name__}, which a checkpoint "
                f"would not give back; make it a tensor"
            )
    return state


def describe_form(value: object) -> str:
    """Return dtype and shape of a tensor, such as int64[7], with its device unless that is the CPU; else the type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    device = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{device}"


def _form(value: object) -> tuple[torch.Size, torch.device] | None:
    return (value.shape, value.device) if isinstance(value, Tensor) else None
