"""Read COCO annotation files and COCO results files of any codebase."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pais_bench import plugins
from pais_bench.annotations.ingest import convert, drop_parents
from pais_bench.annotations.store import ProgressCallback, ignore_progress
from pais_bench.errors import BenchError

Record = dict[str, Any]


def read_ground_truth(path: Path, progress: ProgressCallback = ignore_progress) -> Record:
    """Return the content of a COCO annotation file as `prepare` stores it; its notes go to progress.

    Raises BenchError that names the file and its first wrong record.
    """
    subset = drop_parents({"val": plugins.load("datasets", "coco").read(path, path.parent)})["val"]
    converted = convert(subset)
    for line in converted.notes:
        progress(line)
    return {"images": subset.images, "annotations": converted.annotations, "categories": subset.categories}


def read_records(path: Path) -> list[Record]:
    """Return the records of a COCO results file; raise BenchError with the remedy unless it is a list of mappings.

    evaluation/coco/check.py checks whether they fit a ground truth.
    """
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); name a COCO results file") from error
    except (ValueError, RecursionError) as error:
        if not text.strip():
            raise BenchError(f"{path}: empty; a COCO results file without detections is []") from error
        if text.lstrip().startswith(b"{") and str(error).startswith("Extra data"):
            raise BenchError(f"{path}: holds a record per line; write them as one list, [ ... ]") from error
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise BenchError(f"{path}: not valid JSON ({reason}); write the results again") from error
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
