"""Identify the files that a dataset is prepared from, so that edited ones and those of another root are noticed.

Annotation files count by their content, images by name and size: reading COCO's 19 GB takes minutes, listing them half
a second. Other files beside them, as a study, do not count, nor do those of a results folder. Paths are relative to the
root, and times do not count, so that a root may be moved or copied.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.annotations.store import MANIFEST, Store
from pais_bench.images.files import image_suffixes, visible_files
from pais_bench.provenance import sha256_of
from pais_bench.whole_file import write_text

HASHES = "sources.json"

Hashes = dict[str, list[Any]]
"""Size, time of change in ns and sha256 of each annotation file, by its path below the root."""


class Sources(NamedTuple):
    """Hold what a dataset is read from: annotation files or folders of them, and image folders, below a root."""

    root: Path
    annotations: tuple[str, ...]
    images: tuple[str, ...]


class Origin(NamedTuple):
    """Hold what a dataset was prepared from: plugin, options, root, and the sha256 of its files.

    root and sha256 are None for a dataset that reads no files.
    """

    dataset: str
    options: dict[str, Any]
    root: str | None
    sha256: str | None


def identify(sources: Sources, known: Mapping[str, list[Any]]) -> tuple[str, Hashes]:
    """Return the sha256 of a dataset's files, and the hashes of its annotation files.

    known hashes are taken over where size and time of a file are theirs. A file that is absent counts as such.
    """
    hashes: Hashes = {}
    for name in sources.annotations:
        for file, status in _files(str(sources.root / name)):
            relative, state = os.path.normpath(os.path.join(name, file)), [status.st_size, status.st_mtime_ns]
            before = known.get(relative, [])
            sha256 = before[2] if before[:2] == state else sha256_of(sources.root / relative)
            hashes[relative] = [*state, sha256]
    suffixes = {"", *image_suffixes()}
    sizes = {
        name: [
            (file, status.st_size)
            for file, status in _files(str(sources.root / name))
            if os.path.splitext(file)[1].lower() in suffixes
        ]
        for name in sources.images
    }
    content = [sorted((name, sha256) for name, (_, _, sha256) in hashes.items()), sorted(sizes.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest(), hashes


def read_origin(folder: Path) -> Origin | None:
    """Return what a dataset was prepared from; None where it is not prepared, or its manifest does not say so."""
    try:
        return Origin(**_read(folder / MANIFEST)["source"])
    except (KeyError, TypeError):
        return None


def read_hashes(folder: Path) -> Hashes:
    """Return the hashes that were recorded when a dataset was prepared; empty where there are none."""
    return {name: entry for name, entry in _read(folder / HASHES).items() if isinstance(entry, list)}


def read_content(folder: Path) -> str | None:
    """Return the sha256 of a prepared dataset's records and images; None where there is none."""
    content = _read(folder / MANIFEST).get("content")
    return content if isinstance(content, str) else None


def read_classes(folder: Path) -> list[dict[str, Any]] | None:
    """Return the categories of a prepared dataset; None where it is not prepared."""
    classes = _read(folder / MANIFEST).get("classes")
    return classes if isinstance(classes, list) else None


def record(folder: Path, origin: Origin, hashes: Hashes) -> None:
    """Add to the manifest of a prepared dataset what it was prepared from, and the sha256 of its content.

    The content is what may change a number: the records, which a repair changes too, and the sizes of their images
    where these are the user's.
    """
    subsets = {}
    for name in Store.subsets(folder):
        store = Store.open(folder, name)
        subsets[name] = [store.digest, _sizes(store) if origin.root else None]
    content = hashlib.sha256(json.dumps(subsets, sort_keys=True).encode()).hexdigest()
    write_text(folder / HASHES, json.dumps(hashes) + "\n")
    manifest = {**_read(folder / MANIFEST), "source": origin._asdict(), "content": content}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _sizes(store: Store) -> list[int]:
    paths = map(store.path, store.image_ids)
    return [path.stat().st_size if path.is_file() else -1 for path in paths]


def _files(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of every file below a folder, in order, or of a file itself; hidden ones do not count."""
    if os.path.isfile(path):
        yield "", os.stat(path)
    for file in visible_files(Path(path)):
        yield file, os.stat(os.path.join(path, file))


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON mapping; empty where there is none, because Store says what is wrong with it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
