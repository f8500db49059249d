"""Read COCO annotation files and COCO results files of any codebase."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.annotations.ingest import convert
from pais_bench.errors import BenchError

Record = dict[str, Any]


def read_ground_truth(path: Path) -> Record:
    """Return the content of a COCO annotation file; raise BenchError that names it and its first wrong record."""
    subset = plugins.load("datasets", "coco").read(path, path.parent)
    convert(subset)
    return {"images": subset.images, "annotations": subset.annotations, "categories": subset.categories}


def read_records(path: Path) -> list[Record]:
    """Return the records of a COCO results file; raise BenchError unless it is a list of mappings.

    evaluation/coco/check.py checks whether they fit a ground truth.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); name a COCO results file") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BenchError(f"{path}: not valid JSON ({reason}); write the results again") from error
    if not isinstance(content, list):
        raise BenchError(f"{path}: holds a {type(content).__name__}; a COCO results file is a list of records")
    for index, record in enumerate(content):
        if not isinstance(record, dict):
            raise BenchError(f"{path}: record {index} is a {type(record).__name__}; a result is a mapping of keys")
    return content


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Put a file's name before the message of a BenchError about its records."""
    try:
        yield
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
