"""Define what a metric does: it computes the numbers of one protocol or several from COCO result records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

Record = dict[str, Any]
Numbers = dict[str, float | None]


class MetricBase(ABC):
    """Compute numbers from ground truth and predictions; the class is named Metric in each file.

    protocols: the printed name of each protocol by its key in metrics.json | needs_masks: whether results that are
    boxes alone have none of its numbers | counts_stuff: whether it is given the classes of stuff too, instead of things
    alone | root: the folder of the dataset's raw data, where official ground truth may lie; None: there is none.
    """

    protocols: ClassVar[Mapping[str, str]]
    needs_masks: ClassVar[bool] = True
    counts_stuff: ClassVar[bool] = False

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def require(self, classes: Sequence[Record] | None) -> None:  # noqa: B027  (it may stay empty)
        """Raise BenchError where a package is missing, or where it is not for these classes; by default it is for all.

        classes are categories of a COCO annotation file; None where they are not known yet.
        """

    @abstractmethod
    def evaluate(self, ground_truth: Record, records: Sequence[Record]) -> dict[str, Numbers]:
        """Return the numbers of each protocol, and of each class where it has them, 0..1; None where undefined.

        ground_truth is the content of a COCO annotation file. records are COCO results as coco/check.py returns them:
        image_id, category_id, segmentation (a compressed RLE), score, and bbox (x y width height in px). Those of other
        images do not count. No argument is changed.
        """
