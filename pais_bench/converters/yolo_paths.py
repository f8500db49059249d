"""Find the files of YOLO's data sets: the text files of photos, and what paths of another machine are here."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

from pais_bench.images.files import files_below, role_of


def text_files_in_labels(folder: Path) -> list[Path]:
    """Return the text files below folders `labels`."""
    return [path for path in files_below(folder, ".txt") if "labels" in path.relative_to(folder).parts[:-1]]


def labels_of(photo: Path, folder: Path) -> Path:
    """Return the text file of a photo: in `labels` in place of the last `images` of its path, or beside the photo.

    It is beside the photo where its path has no `images`, where a file is there and no folder `labels`, and where the
    converted folder is `images` or lies in it and `labels` has no such file.
    """
    head, images, tail = str(photo).rpartition(f"{os.sep}images{os.sep}")
    beside, path = photo.with_suffix(".txt"), Path(f"{head}{os.sep}labels{os.sep}{tail}").with_suffix(".txt")
    is_above = folder.is_relative_to(f"{head}{os.sep}images")
    is_beside = beside.is_file() and not path.parent.is_dir()
    return beside if not images or is_beside or (is_above and not path.is_file()) else path


def find_end(root: Path, named: str, subset: str) -> Path | None:
    """Return what the longest end of a path of another machine names below root; None where no end names anything.

    The path may be one of Windows. An end has to name the subset, or train and val could be one folder of photos.
    """
    path = PureWindowsPath(named)
    parts = [part for part in path.parts if part not in (path.anchor, "..")]
    ends = (Path(*parts[start:]) for start in range(len(parts)))
    return next((root / end for end in ends if role_of(end) == subset and (root / end).exists()), None)
