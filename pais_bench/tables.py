"""How do columns lie in a file such that reading one row touches no other? As uncompressed Arrow.

Numbers and offsets are mapped. What lists and texts hold, nearly all of a file, is read where it is asked for: mapped,
it would count as memory of every process that has walked over it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import weakref
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pais_bench.masks import POLYGONS, RUNS
from pais_bench.types import BenchError

IMAGES = pa.schema(
    [
        ("id", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("file_name", pa.large_string()),
        ("extra", pa.large_string()),
        ("offset", pa.int64()),
        ("count", pa.int64()),
        ("sorted_id", pa.int64()),
        ("sorted_row", pa.int64()),
    ]
)
"""A row per image, in the source's order; offset and count are the rows of its annotations."""
ANNOTATIONS = pa.schema(
    [
        ("id", pa.int64()),
        ("position", pa.int64()),
        ("category_id", pa.int64()),
        ("iscrowd", pa.uint8()),
        ("area", pa.float64()),
        ("bbox", pa.list_(pa.float64(), 4)),
        ("polygons", POLYGONS),
        ("runs", RUNS),
        ("packed", pa.large_string()),
        ("extra", pa.large_string()),
    ]
)
"""A row per annotation, image after image; position is its place in the source's list. extra is JSON, or empty."""

DTYPES = {pa.int64(): np.int64, pa.uint32(): np.uint32, pa.uint8(): np.uint8, pa.float64(): np.float64}


class Table:
    """Give the columns of a batch as arrays that share its memory."""

    def __init__(self, batch: pa.RecordBatch, path: Path, start: int) -> None:
        """Look at every column of a batch that lies in a file mapped from address start on; none is copied."""
        self.batch, file = batch, path.open("rb", buffering=0)
        weakref.finalize(self, file.close)
        self._views: dict[str, Any] = {}
        for name in batch.schema.names:
            *offsets, values = _views(batch.column(name))
            self._views[name] = [*offsets, _Read(file, values, start) if offsets and len(values) else values]

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """Give a column of numbers; bbox is [n,4]."""
        column: np.ndarray[Any, Any] = self._views[name][-1]
        return column

    def text(self, name: str, row: int) -> str:
        """Give one text."""
        offsets, symbols = self._views[name]
        text: bytes = symbols[offsets[row] : offsets[row + 1]].tobytes()
        return text.decode("utf-8")

    def list(self, name: str, row: int) -> list[Any]:
        """Give one list, or list of lists."""
        *levels, values = self._views[name]
        start, end = levels[0][row], levels[0][row + 1]
        if len(levels) == 1:
            return list(values[start:end].tolist())
        borders = levels[1][start : end + 1].tolist()
        flat, first = values[borders[0] : borders[-1]].tolist(), borders[0]
        return [flat[one - first : other - first] for one, other in zip(borders[:-1], borders[1:], strict=True)]


class _Read:
    """Give slices of an array by reading its file, which processes may share."""

    def __init__(self, file: FileIO, mapped: np.ndarray[Any, Any], start: int) -> None:
        self.file, self.dtype, self.offset = file, mapped.dtype, mapped.ctypes.data - start

    def __getitem__(self, part: slice) -> np.ndarray[Any, Any]:
        size = (part.stop - part.start) * self.dtype.itemsize
        found = os.pread(self.file.fileno(), size, self.offset + part.start * self.dtype.itemsize) if size else b""
        if len(found) != size:
            raise BenchError(f"{self.file.name}: shorter than when it was opened; run `pais-bench prepare` again")
        return np.frombuffer(found, dtype=self.dtype)


def write_table(path: Path, batch: pa.RecordBatch) -> None:
    """Write a batch whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def map_table(path: Path, schema: pa.Schema, remedy: str) -> Table:
    """Open a file; raise BenchError unless it is one batch of this schema. Its values are not looked at."""
    try:
        whole = pa.memory_map(str(path)).read_buffer()
        reader = pa.ipc.open_file(whole)
        if reader.num_record_batches == 1 and reader.schema.equals(schema):
            return Table(reader.get_batch(0), path, whole.address)
    except (pa.ArrowException, OSError, ValueError) as error:
        if os.strerror(errno.ENOMEM) in str(error):  # pyarrow tells the number in words alone
            raise MemoryError(path) from error
        raise BenchError(f"{path}: not readable ({' '.join(str(error).split())}); {remedy}") from error
    raise BenchError(f"{path}: of another version of this package; {remedy}")


def taken(column: pa.Array, order: np.ndarray[Any, Any]) -> pa.Array:
    """Give the rows of a column in another order; for long lists this is much faster than Arrow's own take."""
    if not pa.types.is_large_list(column.type) or not len(column):
        return column.take(pa.array(order))
    offsets, length = column.offsets.to_numpy(), np.diff(column.offsets.to_numpy())[order]
    borders = np.concatenate([[0], np.cumsum(length)])
    within = np.arange(borders[-1]) + np.repeat(offsets[:-1][order] - borders[:-1], length)
    return pa.LargeListArray.from_arrays(borders, taken(column.values, within), type=column.type)


def digest(batches: Mapping[str, pa.RecordBatch]) -> str:
    """Give the sha256 of values, their order and names, whatever the file, the place and the version of Arrow."""
    found = hashlib.sha256()
    for table, batch in batches.items():
        found.update(f"{table} {batch.num_rows}\n".encode())
        for key, value in sorted((batch.schema.metadata or {}).items()):
            found.update(key + b" %d\n" % len(value) + value)
        for name in batch.schema.names:
            found.update(f"{name}\n".encode())
            *levels, values = _views(batch.column(name))
            for offsets in levels:
                found.update(np.diff(offsets).astype("<i8").data)
            found.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)
    return found.hexdigest()


def _views(column: pa.Array) -> list[np.ndarray[Any, Any]]:
    """Give the offsets of every level and then the values of a column that begins at the start of its buffers.

    Not by to_numpy(), whose first call imports pandas.
    """
    kind = column.type
    if pa.types.is_large_list(kind):
        return [_offsets(column), *_views(column.values)]
    if pa.types.is_large_string(kind):
        borders = _offsets(column)
        return [borders, np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8)[: borders[-1]]]
    if pa.types.is_fixed_size_list(kind):
        return [_views(column.values)[0].reshape(-1, kind.list_size)]
    return [np.frombuffer(column.buffers()[1] or b"", dtype=DTYPES[kind])[: len(column)]]


def _offsets(column: pa.Array) -> np.ndarray[Any, Any]:
    """Give the n + 1 borders of the rows; Arrow may leave them out of an empty column."""
    return np.frombuffer(column.buffers()[1], dtype=np.int64)[: len(column) + 1] if len(column) else np.zeros(1, int)
