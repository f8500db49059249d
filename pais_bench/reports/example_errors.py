"""Match the detections of example images with their objects, to show where a method errs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pais_bench.evaluation.pseudo_labels import match_greedily

DETECTOR = ["image", "method", "role"]


def mark_correct(points: pd.DataFrame, ground_truth: str) -> pd.DataFrame:
    """Return rows of masks with the column correct: 1 where a detection has an object of its own, 0 where it has none.

    points has image, method, role, category, counts, height, width, score. Detections are matched by falling score,
    each with the free object of its class of the highest mask IoU from 0.5 on. Other rows have NaN.
    """
    correct = pd.Series(np.nan, index=points.index)
    truth = {key: group for key, group in points[points["role"] == ground_truth].groupby(["image", "method"])}
    detections = points[~points["role"].isin(("image", ground_truth))]
    for (image, method, _), group in detections.groupby(DETECTOR, sort=False):
        correct[group.index] = _matched(group, truth.get((image, method), points.iloc[:0]))
    return points.assign(correct=correct)


def _matched(detections: pd.DataFrame, objects: pd.DataFrame) -> NDArray[np.float64]:
    """Return 1 or 0 for each detection of an image."""
    if objects.empty:
        return np.zeros(len(detections))
    same = detections["category"].to_numpy()[:, None] == objects["category"].to_numpy()[None]
    iou = np.where(same, coco_mask.iou(_encoded(detections), _encoded(objects), [0] * len(objects)), 0)
    return (match_greedily(iou, detections["score"].to_numpy(dtype=float)) > 0).astype(float)


def count_errors(points: pd.DataFrame, ground_truth: str, models: Sequence[str]) -> int:
    """Return the false detections and the missed objects of an image, over all its methods and models."""
    errors = 0
    for _, rows in points.groupby("method"):
        objects = int((rows["role"] == ground_truth).sum())
        for model in models:
            correct = rows.loc[rows["role"] == model, "correct"]
            errors += int((correct == 0).sum()) + objects - int((correct == 1).sum())
    return errors


def _encoded(masks: pd.DataFrame) -> list[dict[str, object]]:
    """Return the masks of rows as the COCO API takes them."""
    columns = zip(masks["height"], masks["width"], masks["counts"], strict=True)
    return [{"size": [int(height), int(width)], "counts": counts.encode()} for height, width, counts in columns]
