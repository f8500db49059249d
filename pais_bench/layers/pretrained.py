"""Read a file of pretrained weights and compare it with the network, name by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from pais_bench.errors import BenchError


def existing(path: Path) -> Path:
    """Return the path of a file of weights, ~ resolved; raise BenchError where there is none."""
    path = path.expanduser()
    if not path.is_file():
        raise BenchError(
            f"{path}: no such file of pretrained weights; put it there (`pais-bench fetch weights` and "
            f"`pais-bench fetch backbones` download torchvision's), or leave out the option that names it"
        )
    return path


def read_weights(path: Path) -> object:
    """Read a file of torch's, as fit_weights takes it; raise BenchError where it is missing or cannot be read."""
    try:
        return torch.load(existing(path), map_location="cpu", weights_only=True)
    except BenchError:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> BenchError:
    """Return the error about a file that cannot be read."""
    return BenchError(f"{path}: cannot be loaded as pretrained weights: {(str(error).splitlines() or [''])[0]}")


def fit_weights(module: nn.Module, state: object, path: Path, optional: Sequence[str] = ()) -> None:
    """Load a state dict; names beginning with `optional` may be in one of the two alone.

    Raises BenchError where the content of the file is none, and where other names or shapes do not fit.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise unreadable(path, TypeError(f"it holds a {type(state).__name__}, and no weights by name"))
    own = module.state_dict()
    missing = [name for name in own if name not in state and not is_optional(name, optional)]
    foreign = [name for name in state if name not in own and not is_optional(name, optional)]
    refuse_foreign(path, missing, foreign)
    other = [(name, getattr(state[name], "shape", ()), own[name].shape) for name in own if name in state]
    refuse_shapes(path, [one for one in other if one[1] != one[2]])
    module.load_state_dict(state, strict=False)


def refuse_foreign(path: Path, missing: Sequence[str], foreign: Sequence[str]) -> None:
    """Raise BenchError that names the first weights that are missing or unknown, if there are any."""
    if missing or foreign:
        raise BenchError(
            f"{path}: these weights are of another network: {len(missing)} names are missing "
            f"({', '.join(missing[:3])}), {len(foreign)} are unknown ({', '.join(foreign[:3])})"
        )


def refuse_shapes(path: Path, other: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Raise BenchError that names the first weights of another shape: name, shape in the file, shape in the network."""
    if other:
        name, found, wanted = other[0]
        raise BenchError(
            f"{path}: these weights are of another network: {len(other)} have another shape, such as {name} with "
            f"{tuple(found)} instead of {tuple(wanted)}; do the number of classes and the options agree?"
        )


def is_optional(name: str, optional: Sequence[str]) -> bool:
    """Return whether a name may be in the file or in the network alone."""
    return name.endswith("num_batches_tracked") or name.startswith(tuple(optional))
