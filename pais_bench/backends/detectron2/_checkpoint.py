"""Load files of detectron2's model zoo, and refuse those that do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from pais_bench.layers.pretrained import (
    existing,
    is_optional,
    refuse_foreign,
    refuse_shapes,
    unreadable,
)


class _RecordingCheckpointer(DetectionCheckpointer):
    """Read what detectron2 reads, and keep the names that did not fit, about which it only warns."""

    def _log_incompatible_keys(self, incompatible):
        self.incompatible = incompatible


def load_backbone(model: nn.Module, path: Path) -> None:
    """Load a backbone in detectron2's format, ImageNet's as a rule; other weights in the file are left out.

    See load_checkpoint for the errors.
    """
    _load(model, path, "backbone.bottom_up.", optional=(), strict=False)


def load_checkpoint(model: nn.Module, path: Path, optional: Sequence[str]) -> None:
    """Load the whole network; names that begin with one of `optional` may be in the model or the file alone.

    detectron2's own reader unpickles, so the file has to be one that you trust. Raises BenchError where it cannot be
    read, or where other names or shapes do not fit.
    """
    _load(model, path, "", optional, strict=True)


def _load(model: nn.Module, path: Path, prefix: str, optional: Sequence[str], strict: bool) -> None:
    """Load a file; names of the model that begin with `prefix` must fit, and where strict all names of the file."""
    path = existing(path)
    reader = _RecordingCheckpointer(model, save_to_disk=False)
    try:
        reader.load(str(path), checkpointables=[])
    except Exception as error:
        raise unreadable(path, error) from error
    incompatible = reader.incompatible
    missing = [
        name for name in incompatible.missing_keys if name.startswith(prefix) and not is_optional(name, optional)
    ]
    foreign = [name for name in incompatible.unexpected_keys if strict and not is_optional(name, optional)]
    other = [one for one in incompatible.incorrect_shapes if one[0].startswith(prefix)]
    # detectron2 counts what has another shape among the missing ones too.
    refuse_foreign(path, [name for name in missing if name not in {one[0] for one in other}], foreign)
    refuse_shapes(path, other)
