"""Read COCO annotation files and COCO results files of any codebase."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.annotations.ingest import drop_parents, ingest
from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.store import ProgressCallback, ignore_progress
from pais_bench.errors import BenchError

Record = dict[str, Any]


def read_ground_truth(path: Path, progress: ProgressCallback = ignore_progress) -> Record:
    """Return the content of a COCO annotation file as `prepare` stores it; its notes go to progress.

    Raises BenchError that names the file and its first wrong record.
    """
    if not path.is_file():
        raise BenchError(f"{path}: no such annotation file; name one in COCO format")
    subset = drop_parents({"val": plugins.load("datasets", "coco").read(path, path.parent)})["val"]
    ingested = ingest(subset)
    for line in ingested.notes:
        progress(line)
    return {"images": subset.images, "annotations": ingested.annotations, "categories": subset.categories}


def read_records(path: Path) -> list[Record]:
    """Return the records of a COCO results file as as_records() does.

    evaluation/coco/check.py checks whether they fit a ground truth.
    """
    try:
        content = read_json_file(path, empty="empty; a COCO results file without detections is []")
    except BenchError as error:
        cause = error.__cause__
        if isinstance(cause, JSONDecodeError) and cause.msg == "Extra data" and cause.doc.lstrip().startswith("{"):
            raise BenchError(f"{path}: holds a record per line; write them as one list, [ ... ]") from error
        raise
    return as_records(path, content)


def as_records(path: Path, content: Any) -> list[Record]:
    """Return the content of a COCO results file; raise BenchError with the remedy unless it is a list of mappings."""
    if not isinstance(content, list):
        raise BenchError(f"{path}: holds a {type(content).__name__}; {_list_remedy(content)}")
    for index, record in enumerate(content):
        if not isinstance(record, dict):
            raise BenchError(f"{path}: record {index} is a {type(record).__name__}; a result is a mapping of keys")
    return content


def _list_remedy(content: Any) -> str:
    """Return how the list of records follows from another content."""
    expected = "a COCO results file is a list of records"
    lists = [key for key, value in content.items() if isinstance(value, list)] if isinstance(content, dict) else []
    if len(lists) == 1 and len(content) == 1 and not lists[0].isdigit():
        return f"{expected}: write the list '{lists[0]}' alone"
    if "annotations" in lists:
        return f"{expected}: write the list 'annotations' alone, with a score in every record"
    if lists and all(key.isdigit() for key in lists):
        return f"{expected}: join the lists of all images, with image_id in every record"
    return expected


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Put a file's name before the message of a BenchError about its records."""
    try:
        yield
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error
