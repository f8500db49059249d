"""Refuse what a method's hooks return in another form than MethodBase and Targets say.

Types, shapes and dtypes are known to the host, so that no check waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pais_bench.errors import BenchError
from pais_bench.methods.base import MethodBase, method_file
from pais_bench.types import Batch, Instances, Keep, Size, Targets


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


def checked_targets(method: MethodBase, targets: object, view: Size) -> Targets:
    """Return what the method's assign_weights gave for a view; raise BenchError where it is not as Targets says.

    The values of the weights are those of a device: see weights_are_invalid.
    """
    place = f"{method_file(type(method))}: assign_weights returned"
    if not isinstance(targets, Targets) or not isinstance(targets.instances, Instances):
        inner = targets.instances if isinstance(targets, Targets) else targets
        of = "" if inner is targets else " of " + type(inner).__name__
        raise BenchError(f"{place} {type(targets).__name__}{of}; give Targets of Instances")
    found, pixels = targets.instances, targets.pixel_weight
    number = len(found.labels) if isinstance(found.labels, Tensor) and found.labels.ndim else 0
    forms: list[tuple[str, object, str, tuple[int, ...]]] = [
        ("instances.boxes", found.boxes, "float", (number, 4)),
        ("instances.labels", found.labels, "int64", (number,)),
        ("instances.masks", found.masks, "bool", (number, *view)),
        *((f"instances.{key}", getattr(found, key), "float", (number,)) for key in ("scores", "mask_iou")),
        *((f"{key}_weight", getattr(targets, f"{key}_weight"), "float", (number,)) for key in ("class", "mask", "box")),
    ]
    if pixels is not None:
        forms.append(("pixel_weight.values", pixels.values, "float", (number, *pixels.values.shape[1:])))
    device = getattr(found.labels, "device", None)
    for key, value, kind, shape in forms:
        if not isinstance(value, Tensor) or (value.shape, value.device) != (shape, device) or not _is(kind, value):
            raise BenchError(
                f"{place} Targets whose {key} is {describe_form(value)}; give {kind}{list(shape)}, on the device of "
                f"the detections"
            )
    background = targets.background
    if not callable(background) and not (isinstance(background, (int, float)) and 0 <= background < math.inf):
        shown = describe_form(background) if isinstance(background, Tensor) else repr(background)
        raise BenchError(
            f"{place} Targets whose background is {shown}; give a number of at least 0, or a function of boxes"
        )
    return targets


def weights_are_invalid(pseudo_labels: Sequence[Targets]) -> Tensor | bool:
    """Return whether a weight is negative or not finite, a bool scalar of the device."""
    weights = [weight.flatten() for targets in pseudo_labels for weight in _weights(targets).values()]
    if not weights:
        return False
    together = torch.cat(weights)
    return ~((together >= 0) & (together < math.inf)).all()


def describe_invalid_weights(method: MethodBase, pseudo_labels: Sequence[Targets], batch: Batch) -> str:
    """Return a sentence that names the first invalid weight and its image; the host waits for the device."""
    for targets, image in zip(pseudo_labels, batch.unlabelled, strict=True):
        for key, values in _weights(targets).items():
            bad = values[~((values >= 0) & (values < math.inf))]
            if len(bad):
                place = f"{key} {bad[0].item():.4g} for image {image.image_id} at step {batch.step}"
                return f"{method_file(type(method))}: assign_weights gave {place}; give finite weights of at least 0"
    place = f"another process at step {batch.step}"
    return f"{method_file(type(method))}: assign_weights gave {place} a wrong one; give finite weights of at least 0"


def _weights(targets: Targets) -> dict[str, Tensor]:
    weights = {key: getattr(targets, key) for key in ("class_weight", "mask_weight", "box_weight")}
    return weights if targets.pixel_weight is None else {**weights, "pixel_weight": targets.pixel_weight.values}


def _is(kind: str, value: Tensor) -> bool:
    return value.is_floating_point() if kind == "float" else str(value.dtype) == f"torch.{kind}"


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
