"""Store tables as uncompressed Arrow files, so that reading one row touches no other.

Numbers and offsets are mapped. Texts, nearly all of a file, are read on demand: mapped, they would count as memory of
every process that has read them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import weakref
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pais_bench.errors import BenchError
from pais_bench.whole_file import partial_path

IMAGES = pa.schema(
    [
        ("id", pa.int64()),
        ("height", pa.int64()),
        ("width", pa.int64()),
        ("record", pa.large_string()),
        ("offset", pa.int64()),
        ("count", pa.int64()),
        ("sorted_id", pa.int64()),
        ("sorted_row", pa.int64()),
    ]
)
"""A row per image, in the source's order; record is JSON; offset and count are the rows of its annotations."""
ANNOTATIONS = pa.schema(
    [
        ("position", pa.int64()),
        ("category_id", pa.int64()),
        ("iscrowd", pa.uint8()),
        ("record", pa.large_string()),
    ]
)
"""A row per annotation, image after image; position is its index in the source's list; record is JSON."""

DTYPES = {pa.int64(): np.int64, pa.uint8(): np.uint8}


class Table:
    """Read columns of a batch that lies in a mapped file; no column is copied."""

    def __init__(self, batch: pa.RecordBatch, path: Path, address: int) -> None:
        """Keep a batch of a file that is mapped from an address on."""
        self.batch, self._file = batch, path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)
        self._numbers: dict[str, np.ndarray[Any, Any]] = {}
        self._texts: dict[str, tuple[np.ndarray[Any, Any], int]] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_large_string(column.type):
                content = column.buffers()[2]
                self._texts[name] = _offsets(column), content.address - address if content else 0
            else:
                self._numbers[name] = _values(column)

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """Return a column of numbers."""
        return self._numbers[name]

    def texts(self, name: str, start: int, stop: int) -> list[str]:
        """Read the ASCII texts of adjacent rows; raise BenchError if the file has become shorter."""
        offsets, position = self._texts[name]
        borders = offsets[start : stop + 1].tolist()
        size = borders[-1] - borders[0]
        content = os.pread(self._file.fileno(), size, position + borders[0]) if size else b""
        if len(content) != size:
            raise BenchError(f"{self._file.name}: shorter than when it was opened; run `pais-bench prepare` again")
        text, first = content.decode("ascii"), borders[0]
        return [text[begin - first : end - first] for begin, end in pairwise(borders)]


def write_table(path: Path, batch: pa.RecordBatch) -> None:
    """Write a batch whole or not at all."""
    with (
        partial_path(path) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, batch.schema) as out,
    ):
        out.write_batch(batch)


def map_table(path: Path, schema: pa.Schema, remedy: str) -> Table:
    """Map a file; raise BenchError unless it is one batch of this schema. Its values are not read."""
    try:
        content = pa.memory_map(str(path)).read_buffer()
        reader = pa.ipc.open_file(content)
        if reader.num_record_batches == 1 and reader.schema.equals(schema):
            return Table(reader.get_batch(0), path, content.address)
    except (pa.ArrowException, OSError, ValueError) as error:
        if os.strerror(errno.ENOMEM) in str(error):  # pyarrow gives the number in words alone
            raise MemoryError(path) from error
        raise BenchError(f"{path}: not readable ({' '.join(str(error).split())}); {remedy}") from error
    raise BenchError(f"{path}: of another version of this package; {remedy}")


def digest(batches: Mapping[str, pa.RecordBatch]) -> str:
    """Return the sha256 of values, their order and names; file, folder and version of Arrow do not enter."""
    sha256 = hashlib.sha256()
    for table, batch in batches.items():
        sha256.update(f"{table} {batch.num_rows}\n".encode())
        for key, value in sorted((batch.schema.metadata or {}).items()):
            sha256.update(key + b" %d\n" % len(value) + value)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            sha256.update(f"{name}\n".encode())
            if pa.types.is_large_string(column.type):
                offsets = _offsets(column)
                sha256.update(np.diff(offsets).astype("<i8").data)
                sha256.update(memoryview(column.buffers()[2] or b"")[: offsets[-1]])
            else:
                values = _values(column)
                sha256.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)
    return sha256.hexdigest()


def _values(column: pa.Array) -> np.ndarray[Any, Any]:
    """Return the numbers of a column that begins at the start of its buffer.

    to_numpy() does the same, but its first call imports pandas.
    """
    return np.frombuffer(column.buffers()[1] or b"", dtype=DTYPES[column.type])[: len(column)]


def _offsets(column: pa.Array) -> np.ndarray[Any, Any]:
    """Return the n + 1 offsets of n texts; Arrow may leave them out of an empty column."""
    return np.frombuffer(column.buffers()[1], dtype=np.int64)[: len(column) + 1] if len(column) else np.zeros(1, int)
