"""Run pycocotools quietly on ground truth and records in memory, neither of which it may change."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers of COCO, in the order of COCOeval.stats."""

Record = dict[str, Any]
Numbers = dict[str, float | None]


def run(evaluator: type[COCOeval], ground_truth: Record, records: list[Record], kind: str) -> COCOeval:
    """Evaluate records that have id, iscrowd and area; evaluator is COCOeval or a subclass, kind segm or bbox.

    The objects are numbered from 1: COCOeval takes id 0 for "no match", and a repeated id for one object.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        objects = [{**record, "id": number} for number, record in enumerate(ground_truth["annotations"], 1)]
        gt = _index(ground_truth, objects)
        evaluation = evaluator(gt, _index(ground_truth, records), iouType=kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def stats(evaluation: COCOeval) -> Numbers:
    """Return the twelve numbers by NAMES."""
    return {name: defined(float(value)) for name, value in zip(NAMES, evaluation.stats, strict=True)}


def defined(value: float) -> float | None:
    """Return a number, or None for COCO's -1, an average over nothing."""
    return None if value < 0 else value


def _index(ground_truth: Record, annotations: list[Record]) -> COCO:
    """Index annotations by hand: COCO.loadRes fails on an empty list and writes into its argument."""
    coco = COCO()
    coco.dataset = {key: ground_truth[key] for key in ("images", "categories")} | {"annotations": annotations}
    coco.createIndex()
    return coco
