"""Prepare a tree of Cityscapes' files."""

from __future__ import annotations

from pathlib import Path

from pais_bench.datasets import cityscapes


def prepare(root: Path | None, folder: Path, repair: bool = False, complete: bool = False) -> Path:
    """Prepare a tree and return the folder of the dataset."""
    cityscapes.Dataset(cityscapes.Options(complete=complete), root).prepare(folder, "mine", repair=repair)
    return folder
