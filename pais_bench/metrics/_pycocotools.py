"""How is pycocotools asked? Quietly, by a truth and records in memory, neither of which it may change."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers of COCO, in the order of COCOeval.stats."""

Record = dict[str, Any]
Numbers = dict[str, float | None]


def run(kind: type[COCOeval], truth: Record, found: list[Record], what: str, image_ids: Sequence[int]) -> COCOeval:
    """Evaluate records that have id, iscrowd and area; kind may match otherwise than COCOeval, what is segm or bbox."""
    with contextlib.redirect_stdout(io.StringIO()):
        expected = _index(truth, [dict(annotation) for annotation in truth["annotations"]])
        evaluation = kind(expected, _index(truth, found), iouType=what)
        evaluation.params.imgIds = list(image_ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def stats(evaluation: COCOeval) -> Numbers:
    """Give the twelve numbers by NAMES."""
    return {name: defined(float(value)) for name, value in zip(NAMES, evaluation.stats, strict=True)}


def defined(value: float) -> float | None:
    """Turn COCO's -1, an average over nothing, into None."""
    return None if value < 0 else value


def _index(truth: Record, annotations: list[Record]) -> COCO:
    """Index by hand: COCO.loadRes fails on an empty list and writes into its argument."""
    coco = COCO()
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    coco.createIndex()
    return coco
