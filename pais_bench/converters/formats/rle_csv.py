"""Read a CSV with a row for each object: the name of its photo and its mask as pairs of start and length, as Kaggle's.

The columns of photos and runs are found by their content, those of classes and sizes by their names. Where photos are
named by numbers, another column may have the same numbers by chance; then the name of the column decides. Pixels are
counted from 1, by columns or, in some competitions, by rows: the order is taken that gives the masks the shorter
outlines. For square photos both orders give a mask; their pixels are counted by columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
import pandas as pd

from pais_bench.annotations.complete import stated_size
from pais_bench.converters.formats.base import (
    ConverterBase,
    LeftOut,
    Object,
    Photo,
    doubts_about,
    mask_of,
    photo_size,
)
from pais_bench.errors import BenchError
from pais_bench.images.files import files_below, image_files, role_of
from pais_bench.images.pixels import Size

RUNS = re.compile(r"\d+ +\d+( +\d+ +\d+)*")
CLASSES = ("class", "classid", "classname", "label", "category", "categoryid", "categoryname", "celltype")
"""Names of columns of classes, in lower case and without underscores."""
SIZES = ("height", "width")
OF_PHOTOS = re.compile(r"(image|img|photo|picture|file|path)(image|img|photo|file|s|id|name|path|number)*")
"""Names of columns of photos, likewise."""
NO_OBJECT = ("", "-1")
"""What stands for the runs of a photo without an object."""
MARKS = ",;\t"
"""The separators of columns that are known."""
HEAD, FAR, LOOKED_AT = 200, 100_000, 100
"""Rows that a column is judged by, rows that they are taken from, and objects that show the order of the pixels."""
Named = tuple[str, Sequence[str]]
"""The text of a row, and the photos that it may name."""


class Columns(NamedTuple):
    """Hold the names of the columns of a CSV; class_name, height and width are empty where it has none.

    others are the columns of unknown content.
    """

    photo: str
    runs: str
    class_name: str
    height: str
    width: str
    others: Sequence[str]


class Row(NamedTuple):
    """Hold the class of an object, its runs, and where they are."""

    class_name: str
    runs: str
    place: str


class Entry(NamedTuple):
    """Hold a photo, its (H, W), and its rows."""

    photo: Path
    size: Size
    rows: Sequence[Row]


class Converter(ConverterBase):
    """Read the CSVs below a folder; a photo with empty runs has no object, a photo without a row is left out."""

    single_object = "every photo has one mask; where it is of several objects, give each its own row"

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether one of the first CSVs has runs of photos below the folder."""
        heads = [head for path in _tables(folder)[:20] if (head := _head(path)) is not None and _runs_column(head)]
        photos = _by_name(folder) if heads else {}
        return any(_naming(head, photos) for head in heads)

    def subsets(self) -> Mapping[str, Sequence[Entry]]:
        """Return the photos by subset, which their folder or the CSV names; raise BenchError for one in two."""
        found: dict[str, list[Entry]] = {}
        listed: dict[Path, Path] = {}
        photos = _by_name(self.folder)
        for path in _tables(self.folder):
            if (head := _head(path)) is None or (columns := _columns(path, head, photos)) is None:
                continue
            classes = f", and classes in '{columns.class_name}'" if columns.class_name else ""
            self.notes.append(f"{path}: photos are named in the column '{columns.photo}'{classes}")
            if columns.others and not columns.class_name:
                names = ", ".join(columns.others)
                self.notes.append(f"{path}: columns not used: {names}; name the one of the class, if any is, 'class'")
            for entry in self._entries(path, columns, photos):
                if (other := listed.setdefault(entry.photo, path)) != path:
                    raise BenchError(f"{path}: {entry.photo} is in {other} too; keep the file that counts")
                subset = role_of(entry.photo.relative_to(self.folder).parent) or role_of(path.relative_to(self.folder))
                found.setdefault(subset, []).append(entry)
        if others := len(image_files(self.folder)) - len(listed):
            self.notes.append(f"left out: {others} photos without a row")
        by_rows = _are_by_rows([entry for entries in found.values() for entry in entries])
        self.by_rows = bool(by_rows)
        why = "as Kaggle's are; square photos do not tell" if by_rows is None else "which gives shorter outlines"
        self.notes.append(f"the pixels of runs are counted by {'rows' if by_rows else 'columns'}, {why}")
        return found

    def _entries(self, path: Path, columns: Columns, photos: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
        """Yield the photos of a CSV; those that are not there are counted in a note."""
        absent = 0
        for name, rows in _read(path).groupby(columns.photo, sort=False):
            files = _named(str(name), photos)
            if len(files) > 1:
                raise BenchError(f"{path}: its photo {name} may be {' or '.join(files[:3])}; keep one of them")
            if not files:
                absent += 1
                continue
            drawn = [
                Row(row.get(columns.class_name) or self.class_name, row[columns.runs].strip(), f"{path}: row {at}")
                for at, row in zip(rows.index + 2, rows.to_dict("records"), strict=True)
            ]
            height, width = (rows[side].iloc[0] if side else None for side in (columns.height, columns.width))
            photo = self.folder / files[0]
            size = photo_size(photo, path, stated_size(height, width))
            yield Entry(photo, size, [row for row in drawn if row.runs not in NO_OBJECT])
        if absent:
            self.notes.append(f"left out: {absent} photos that {path} names, and that are not there")

    def read(self, item: Entry) -> Photo:
        """Read the rows of a photo; one without a pixel is left out."""
        objects, left_out = [], []
        for row in item.rows:
            mask = _mask(row, item.size, self.by_rows)
            if mask.any():
                objects.append(Object(row.class_name, mask_of(mask)))
            else:
                left_out.append(LeftOut("masks without a pixel", row.place, may_be_object=False))
        doubts = doubts_about(_mask(row, item.size, self.by_rows) for row in item.rows)
        return Photo(item.photo, item.size, objects, left_out, doubts)


def _are_by_rows(entries: Sequence[Entry]) -> bool | None:
    """Return whether pixels are counted by rows; None where all photos are square, so that nothing tells it."""
    outlines, objects = np.zeros(2, dtype=np.int64), 0
    for entry in entries:
        for row in entry.rows if entry.size[0] != entry.size[1] else ():
            outlines += [_outline(_mask(row, entry.size, by_rows)) for by_rows in (False, True)]
            objects += 1
        if objects >= LOOKED_AT:
            break
    return bool(outlines[1] < outlines[0]) if objects else None


def _tables(folder: Path) -> list[Path]:
    """Return the CSVs below a folder, those of a competition's sample submission left out."""
    return [path for path in files_below(folder, ".csv") if "submission" not in path.name.lower()]


def _head(path: Path) -> pd.DataFrame | None:
    """Return the first rows of a CSV, or the first with runs where empty ones come before; None if it is unreadable."""
    try:
        head = _read(path, HEAD)
        empty = [name for name in head.columns if head[name].str.strip().isin(NO_OBJECT).all()]
        if len(head) < HEAD or not empty or _runs_column(head):
            return head
        rows = _read(path, FAR)
        filled = rows[~rows[empty].isin(NO_OBJECT).all(axis=1)]
        return filled.head(HEAD) if len(filled) else head
    except BenchError:
        return None


def _read(path: Path, rows: int | None = None) -> pd.DataFrame:
    """Return the rows of a CSV as text, empty where nothing is; raise BenchError for another file.

    Columns are divided by what the first line has most of: some spreadsheets write semicolons.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline()
        mark = max(MARKS, key=first.count)
        return pd.read_csv(path, sep=mark, dtype=str, keep_default_na=False, nrows=rows, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserError) as error:
        raise BenchError(f"{path}: no CSV in UTF-8 ({' '.join(str(error).split())}); save it as one") from error


def _runs_column(head: pd.DataFrame) -> str:
    """Return the column whose texts are runs that follow each other; empty where none is."""
    for name in head.columns:
        texts = [text for text in head[name].str.strip() if text not in NO_OBJECT]
        if texts and all(RUNS.fullmatch(text) and _in_order(text) for text in texts):
            return str(name)
    return ""


def _columns(path: Path, head: pd.DataFrame, photos: Mapping[str, Sequence[str]]) -> Columns | None:
    """Return the columns of a table; None where it has no runs, or names no photo."""
    runs, naming = _runs_column(head), _naming(head, photos)
    if not runs or not naming:
        return None
    photo = _photo_column(path, naming)
    plain = {_plain(name): name for name in head.columns if name not in (photo, runs)}
    class_name = next((plain[name] for name in CLASSES if name in plain), "")
    height, width = (plain.get(side, "") for side in SIZES)
    others = [name for name in plain.values() if name not in (class_name, height, width)]
    return Columns(photo, runs, class_name, height, width, others)


def _plain(column: str) -> str:
    return re.sub("[_ ]", "", column.lower())


def _naming(head: pd.DataFrame, photos: Mapping[str, Sequence[str]]) -> dict[str, list[Named]]:
    """Return text and photos of each row, by column, of the columns that name photos.

    A column that is named like one of classes or sizes is returned only if no other column names photos.
    """
    rows: dict[str, list[Named]] = {
        str(name): [(text, _named(text, photos)) for text in texts] for name, texts in head.to_dict("list").items()
    }
    naming = {name: pairs for name, pairs in rows.items() if any(files for _, files in pairs)}
    return {name: naming[name] for name in naming if _plain(name) not in (*CLASSES, *SIZES)} or naming


def _photo_column(path: Path, naming: Mapping[str, Sequence[Named]]) -> str:
    """Return the column of photos: the one with most signs (see _signs), and of these the one that names most photos.

    Raises BenchError where a column of other photos has as many signs and names at least half as many photos, or has
    fewer signs and names more than twice as many.
    """
    counts = {name: sum(bool(files) for _, files in naming[name]) for name in naming}
    signs = {name: _signs(name, naming[name]) for name in naming}
    best = max(naming, key=lambda name: (signs[name], counts[name]))
    for name in naming:
        likely = 2 * counts[name] >= counts[best] if signs[name] == signs[best] else counts[name] > 2 * counts[best]
        if likely and [files for _, files in naming[name]] != [files for _, files in naming[best]]:
            raise BenchError(
                f"{path}: its photos may be those of the column '{best}' or '{name}'; remove the one of other content"
            )
    return best


def _signs(column: str, rows: Sequence[Named]) -> int:
    """Return how many of two signs a column has that it names photos: its own name, and names with suffixes in it."""
    suffixes = any(PurePath(text).name == PurePath(file).name for text, files in rows for file in files)
    return bool(OF_PHOTOS.fullmatch(_plain(column))) + suffixes


def _by_name(folder: Path) -> dict[str, list[str]]:
    """Return the photos below a folder by their name, with and without its suffix."""
    found: dict[str, list[str]] = {}
    for file in image_files(folder):
        for name in {PurePath(file).name, PurePath(file).stem}:
            found.setdefault(name, []).append(file)
    return found


def _named(text: str, photos: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the photos that a text may name; of photos of one name, those whose path ends like the text, if any."""
    files = list(photos.get(PurePath(text).name, ())) if text else []
    whole = [file for file in files if file == text or file.endswith(f"/{text}")]
    return whole or files


def _in_order(runs: str) -> bool:
    """Return whether each run begins behind the one before it."""
    numbers = np.array(runs.split(), dtype=np.float64)
    starts, ends = numbers[::2], numbers[::2] + numbers[1::2]
    return bool((starts[1:] >= ends[:-1]).all())


def _mask(row: Row, size: Size, by_rows: bool) -> np.ndarray:
    """Return the mask bool[H,W] of runs; raise BenchError for those that leave the photo, or are none."""
    if not RUNS.fullmatch(row.runs):
        raise BenchError(f"{row.place}: its runs are no pairs of start and length; correct them")
    values = np.zeros(size[0] * size[1], dtype=bool)
    numbers = [int(text) for text in row.runs.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        if start < 1 or start - 1 + length > values.size:
            raise BenchError(
                f"{row.place}: the run {start} {length} leaves the photo of {size[1]} x {size[0]} pixels, which are "
                f"counted from 1; give the photo that was labelled"
            )
        values[start - 1 : start - 1 + length] = True
    return values.reshape(size) if by_rows else values.reshape(size[::-1]).T


def _outline(mask: np.ndarray) -> int:
    """Return the length of a mask's outline within the photo, px."""
    return int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
