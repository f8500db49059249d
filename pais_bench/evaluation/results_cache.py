"""Keep what is computed from predictions in a file beside them, for as long as it belongs to their content."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from pais_bench.annotations.store import Store
from pais_bench.evaluation.coco.check import checked_records
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.evaluation.results_file import named_in_errors, read_records
from pais_bench.provenance import sha256_of
from pais_bench.whole_file import write_text

Record = dict[str, Any]


class ResultsCache(ABC):
    """Compute a result of predictions on a subset's images once; stem is the name of its file in place of predictions.

    key: what the result depends on beside predictions and images.
    """

    stem: ClassVar[str]
    key: ClassVar[Mapping[str, Any]]

    def __init__(self, store: Store) -> None:
        """Keep the subset; its annotations are read at the first computation."""
        self.store = store

    @abstractmethod
    def compute(self, records: Sequence[Record]) -> Record:
        """Return the result of checked records, as JSON can hold it."""

    @abstractmethod
    def is_whole(self, content: Record) -> bool:
        """Return whether a file that was read has what compute() returns."""

    def content(self, predictions: Path) -> Record:
        """Return what compute() returns, with the key: read, if it belongs to predictions and images, or else computed.

        What is computed is written beside the predictions. Raises BenchError for those that do not fit the images.
        """
        path = predictions.with_name(predictions.name.replace("predictions", self.stem))
        state = predictions.stat()
        key = {
            **self.key,
            "predictions": _sha256(predictions, state.st_size, state.st_mtime_ns),
            "images": self.store.digest,
        }
        kept = self._read(path)
        if {name: kept.get(name) for name in key} == key:
            return kept
        records = read_records(predictions)
        with named_in_errors(predictions):
            records = checked_records(self._annotations, records)
        content = {**key, **self.compute(records)}
        write_text(path, json.dumps(content) + "\n")
        return content

    def _read(self, path: Path) -> Record:
        """Return the content of a file; nothing where it is absent or damaged, as it can be computed again."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) and self.is_whole(content) else {}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            return {}

    @cached_property
    def _annotations(self) -> Record:
        return self.store.coco_dict()

    @cached_property
    def ground_truth(self) -> GroundTruth:
        """Return the objects of the subset."""
        return GroundTruth.of(self._annotations)


@cache
def _sha256(path: Path, size: int, modified: int) -> str:
    """Return the sha256 of a file, once for each content: every table of a report asks for it."""
    return sha256_of(path)
