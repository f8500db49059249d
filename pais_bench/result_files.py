"""What do a COCO annotation file and a COCO results file of anybody hold? Read, and checked for pycocotools.

pycocotools trusts what it is given: a broken RLE makes it read where it may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.parts import convert
from pais_bench.types import BenchError

Record = dict[str, Any]


def read_truth(path: Path) -> Record:
    """Give the content of a COCO annotation file; raise BenchError that names it and its first wrong record."""
    part = plugins.load("datasets", "coco").read(path, path.parent)
    convert(part)
    return {"images": part.images, "annotations": part.annotations, "categories": part.categories}


def read_records(path: Path) -> list[Record]:
    """Give the records of a COCO results file; raise BenchError unless it is a list of mappings.

    Whether they fit a truth is for the metric to say.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); name a COCO results file") from error
    except (ValueError, RecursionError) as error:
        told = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BenchError(f"{path}: not valid JSON ({told}); write the results again") from error
    if not isinstance(content, list):
        raise BenchError(f"{path}: holds a {type(content).__name__}; a COCO results file is a list of records")
    for number, record in enumerate(content):
        if not isinstance(record, dict):
            raise BenchError(f"{path}: record {number} is a {type(record).__name__}; a result is a mapping of keys")
    return content


@contextmanager
def of_file(path: Path) -> Iterator[None]:
    """Put the file's name before the message of a fault that is found in its records."""
    try:
        yield
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
