"""Find photos that are there twice though their files differ: resized, encoded again, brightened, one of a burst.

A hash of 63 bits is the signs of the lowest frequencies of a small grey image relative to their median (the perceptual
hash pHash). It selects pairs, and the correlation of the two small images decides, so that a flat background does not
make two images alike. Mirrored, turned and cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pais_bench.images.check import in_threads
from pais_bench.images.pixels import Pixels, UnreadableImage, read_thumbnail

SIDE = 32  # pixels of the small image
FREQUENCIES = 8  # of each axis
MAX_BITS = 10
"""Bits in which the hashes of a photo and its copy differ at most. Measured on 355 photos of COCO, facades and chicken
parts: 10 after a brightening by 40 %, 2 after JPEG of quality 30, 8 after a resizing and a brightening by 30 %."""
MIN_CORRELATION = 0.95
"""Least correlation of the small images of a photo and its copy. 99 % of the same photos brightened by 40 % have it,
and all that were changed otherwise; of 566,580 pairs of different files two have it: one photo that both subsets of a
set hold, and two photos of a burst, which no split should separate."""
ROWS, COLUMNS, PAIRS = 256, 4096, 4096  # sizes of blocks that stay in the caches
EXAMPLES = 10

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


class Pair(NamedTuple):
    """Hold two files that look alike, and the correlation of their small images."""

    first: Path
    second: Path
    correlation: float


class Similar(NamedTuple):
    """Hold the result for two subsets, or for one with itself.

    images: images of the second subset that look like one of the first | pairs: the most similar, at most EXAMPLES.
    """

    subsets: tuple[str, str]
    images: int
    pairs: list[Pair]


class _Fingerprints(NamedTuple):
    """Hold paths, hashes u64[n] and small images u8[n,SIDE,SIDE] of a subset."""

    paths: list[Path]
    hashes: Hashes
    small: Pixels


def find_similar(subsets: Mapping[str, Sequence[Path]], progress: Callable[[str], None]) -> list[Similar]:
    """Compare all images of all subsets with each other; unreadable files are reported to progress and left out."""
    prints = {name: _fingerprints(name, paths, progress) for name, paths in subsets.items()}
    return [
        _compare((first, second), prints[first], prints[second], progress)
        for first, second in combinations_with_replacement(prints, 2)
    ]


def hashes_of(small: Pixels) -> Hashes:
    """Return the hashes u64[n] of small images u8[n,SIDE,SIDE]."""
    index = np.arange(SIDE)
    basis = np.cos(np.pi / SIDE * (index + 0.5) * np.arange(FREQUENCIES)[:, None]).astype(np.float32)  # DCT-II
    bits = np.zeros((len(small), FREQUENCIES**2), bool)
    for start in range(0, len(small), COLUMNS):
        block = small[start : start + COLUMNS].astype(np.float32)
        spectrum = (basis @ block @ basis.T).reshape(len(block), -1)[:, 1:]  # without the mean
        bits[start : start + COLUMNS, 1:] = spectrum > np.median(spectrum, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def _fingerprints(name: str, paths: Sequence[Path], progress: Callable[[str], None]) -> _Fingerprints:
    kept, thumbnails, faults = [], [], []
    for path, thumbnail in zip(paths, in_threads(_thumbnail, paths, name, progress), strict=True):
        if isinstance(thumbnail, str):
            faults.append(thumbnail)
        else:
            kept.append(path)
            thumbnails.append(thumbnail)
    if faults:
        progress(f"{name}: {len(faults)} of {len(paths)} images left out, the first: {faults[0]}")
    small = np.stack(thumbnails) if kept else np.zeros((0, SIDE, SIDE), np.uint8)
    return _Fingerprints(kept, hashes_of(small), small)


def _thumbnail(path: Path) -> Pixels | str:
    try:
        return read_thumbnail(path, SIDE)
    except UnreadableImage as error:
        return str(error)


def _compare(
    names: tuple[str, str], first: _Fingerprints, second: _Fingerprints, progress: Callable[[str], None]
) -> Similar:
    starts = range(0, len(first.paths), ROWS)
    found: list[tuple[float, int, int]] = []
    alike = np.zeros(len(second.paths), bool)
    search = partial(_similar_rows, first, second, names[0] == names[1])
    for rows, columns, correlation in in_threads(search, starts, f"{names[0]} and {names[1]}", progress):
        alike[columns] = True
        found += zip((-correlation).tolist(), rows.tolist(), columns.tolist(), strict=True)
        found = sorted(found)[:EXAMPLES]
    pairs = [Pair(first.paths[row], second.paths[column], -negative) for negative, row, column in found]
    return Similar(names, int(alike.sum()), pairs)


def _similar_rows(
    first: _Fingerprints, second: _Fingerprints, same: bool, start: int
) -> tuple[Rows, Rows, npt.NDArray[np.float32]]:
    """Return rows, columns and correlations of the pairs whose first image is in one block."""
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for rows, columns in _close_hashes(first.hashes, second.hashes, same, start):
        for at in range(0, len(rows), PAIRS):
            row, column = rows[at : at + PAIRS], columns[at : at + PAIRS]
            correlation = np.sum(_centred(first.small[row]) * _centred(second.small[column]), axis=1)
            kept = correlation >= MIN_CORRELATION
            parts.append((row[kept], column[kept], correlation[kept]))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _close_hashes(first: Hashes, second: Hashes, same: bool, start: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield the pairs of a block of rows whose hashes differ in few bits; of one subset with itself each pair once."""
    block = first[start : start + ROWS, None]
    for left in range(start if same else 0, len(second), COLUMNS):
        distance = np.bitwise_count(block ^ second[None, left : left + COLUMNS])
        rows, columns = np.nonzero(distance <= MAX_BITS)
        rows, columns = rows + start, columns + left
        kept = rows < columns if same else np.ones(len(rows), bool)
        yield rows[kept], columns[kept]


def _centred(small: Pixels) -> npt.NDArray[np.float32]:
    """Return images f32[n,SIDE²] of mean 0 and norm 1; those of one colour are 0 and correlate with nothing."""
    values = small.reshape(len(small), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)
    return values
