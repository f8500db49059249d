"""List the photos of a folder that have no labels, as the file of unlabelled images of a study."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pais_bench.converters.drawn_pictures import drawn_pictures, note_drawn
from pais_bench.errors import BenchError
from pais_bench.images.check import copies, in_threads
from pais_bench.images.files import files_below, image_files, image_suffixes, require_data_folder
from pais_bench.images.pixels import Size, UnreadableImage, read_header

CAMERA = (".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw")
"""Suffixes of photos that are not read unless a plugin of Pillow does."""


def list_unlabelled(
    folder: Path, named: Collection[Path], progress: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return COCO's records of the photos below a folder, and notes on those that are left out, a line each.

    named are the photos and label images of the study, by resolved path; they are left out, and so are their copies
    byte for byte. Raises BenchError where no photo is left.
    """
    require_data_folder(folder, "the photos without labels")
    files, drawn = image_files(folder), set(drawn_pictures(folder, named))
    others = [name for name in files if name not in drawn and (folder / name).resolve() not in named]
    groups = copies({"named": list(named), "others": [folder / name for name in others]}, progress)
    known = {path for group in groups if any(subset == "named" for subset, _ in group) for _, path in group}
    names = [name for name in others if folder / name not in known]
    sizes = list(in_threads(_size, [folder / name for name in names], str(folder), progress))
    sized = [(name, size) for name, size in zip(names, sizes, strict=True) if size]
    notes = []
    if drawn:
        notes.append(note_drawn([folder / name for name in drawn]))
    if unread := files_below(folder, *set(CAMERA).difference(image_suffixes())):
        suffixes = ", ".join(sorted({path.suffix for path in unread}))
        notes.append(
            f"left out: {len(unread)} photos of {folder} in formats that are not read ({suffixes}); save as JPEG"
        )
    if not sized:
        said = f" ({'; '.join(notes)})" if notes else ""
        raise BenchError(
            f"{folder}: no photo below it but those of the study{said}; give one with photos without labels"
        )
    records = [
        {"id": number, "file_name": name, "height": size[0], "width": size[1]}
        for number, (name, size) in enumerate(sized, start=1)
    ]
    notes.insert(0, f"{folder}: {len(records)} photos without labels")
    known_names = {path.name for path in named}
    if same := [name for name, _ in sized if Path(name).name in known_names]:
        notes.append(
            f"{len(same)} of them have the name of a photo of the study, the first: {same[0]}; where they are copies "
            f"of another size, as `pais-bench doctor` tells, move them out of {folder}"
        )
    if left_out := len(files) - len(drawn) - len(names):
        notes.append(
            f"left out: {left_out} files of {folder} that are photos or labels of the study, or copies of these"
        )
    if broken := [name for name, size in zip(names, sizes, strict=True) if size is None]:
        notes.append(f"left out: {len(broken)} unreadable photos, the first: {folder / broken[0]}")
    return records, notes


def _size(path: Path) -> Size | None:
    try:
        return read_header(path).upright
    except UnreadableImage:
        return None
