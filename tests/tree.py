"""Prepare a tree of Cityscapes' files, as several tests do."""

from __future__ import annotations

from pathlib import Path

from pais_bench.datasets import cityscapes


def prepare(root: Path | None, folder: Path, repair: bool = False, complete: bool = False) -> Path:
    """Prepare a tree."""
    cityscapes.Dataset(cityscapes.Options(complete=complete), root).prepare(folder, "mine", repair=repair)
    return folder
