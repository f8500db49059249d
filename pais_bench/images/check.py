"""Check the image files of a subset before anything is trained on them: headers, pixels, and copies of one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from pais_bench.images.pixels import PLAIN, Header, UnreadableImage, UnsupportedImage, read_header, verify
from pais_bench.provenance import sha256_of

VERIFIED_BY_DEFAULT = 20_000
"""Images up to which every file is decoded where nothing else is asked for: minutes on two cores."""
TAIL = 4096  # bytes at the end of a file, which differ between compressed images
PROGRESS_INTERVAL = 5_000  # images between two lines of progress

Item = TypeVar("Item")
Result = TypeVar("Result")


class CheckedFile(NamedTuple):
    """Hold what a file's header says, or why it cannot be used.

    damaged: the file's content is lost, so that a repair may leave it out | brightest: see `verify`, where decoded.
    """

    header: Header | None
    fault: str = ""
    damaged: bool = False
    brightest: int | None = None


def in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], source: str, progress: Callable[[str], None]
) -> Iterator[Result]:
    """Yield the results of a function in order; Pillow and the disk release the interpreter while they work.

    The threads are only a few items ahead, so that they end soon after an error.
    """
    threads = min(8, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as executor:
        remaining = iter(items)
        ahead = [executor.submit(function, item) for item in islice(remaining, 4 * threads)]
        for number in range(1, len(items) + 1):
            yield ahead.pop(0).result()
            ahead += [executor.submit(function, item) for item in islice(remaining, 1)]
            if number % PROGRESS_INTERVAL == 0:
                progress(f"{source}: {number} of {len(items)} files checked")


def verify_if(wanted: bool | None, count: int, progress: Callable[[str], None]) -> bool:
    """Return whether so many images are decoded, by default up to VERIFIED_BY_DEFAULT; report where they are not."""
    decode = count <= VERIFIED_BY_DEFAULT if wanted is None else wanted
    if wanted is None and not decode:
        progress(f"{count} images are not decoded; --verify-images finds damaged ones now, before the training does")
    return decode


def check_file(path: Path, decode: bool) -> CheckedFile:
    """Read a file's header, and decode it on request; a fault of its content is returned, not raised.

    A file of more than 8 bits is always decoded: whether its range is known shows in its values alone.
    """
    try:
        header = read_header(path)
        return CheckedFile(header, brightest=verify(path) if decode or header.mode not in PLAIN else None)
    except UnreadableImage as error:
        return CheckedFile(None, str(error), damaged=not isinstance(error, UnsupportedImage))


def copies(files: Mapping[str, Sequence[Path]], progress: Callable[[str], None]) -> list[list[tuple[str, Path]]]:
    """Return the groups of files with the same content, each file with the name of its subset.

    A path that is given twice counts twice. Only files of the same size are read at their end, and only files with the
    same end are read whole.
    """
    groups = [[(name, path) for name, paths in files.items() for path in paths]]
    total = len(groups[0])
    keys: tuple[Callable[[Path], int | bytes | str], ...] = (_size, _tail_hash, sha256_of)
    for key in keys:
        candidates = [item for group in groups for item in group]
        values = in_threads(key, [path for _, path in candidates], f"copies among {total} images", progress)
        found: dict[tuple[int, int | bytes | str], list[tuple[str, Path]]] = {}
        numbers = [number for number, group in enumerate(groups) for _ in group]
        for number, item, value in zip(numbers, candidates, values, strict=True):
            found.setdefault((number, value), []).append(item)
        groups = [group for group in found.values() if len(group) > 1]
    return groups


def _size(path: Path) -> int:
    return path.stat().st_size


def _tail_hash(path: Path) -> bytes:
    with path.open("rb") as content:
        content.seek(max(0, path.stat().st_size - TAIL))
        return hashlib.blake2b(content.read()).digest()
