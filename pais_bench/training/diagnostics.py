"""Describe a step's pseudo-labels for the log: their number, accuracy and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pais_bench.evaluation import pseudo_labels as metric
from pais_bench.types import Batch, Targets

SAMPLE = 32
"""Number of pseudo-labels of a logged step that are written one by one."""
COLUMNS = ("score", "mask_iou", "class_weight", "mask_weight")


def describe(pseudo_labels: Sequence[Targets], batch: Batch) -> dict[str, Any]:
    """Describe the pseudo-labels of a step, which are in pixels of the weak views, one Targets an image.

    Returns the summary of evaluation/pseudo_labels.py against the held-out labels; the means of COLUMNS; weights:
    histograms of both weights; and, of the images with held-out labels, score_bins (calibration of the score as
    probability of being correct), mask_iou_bins (of the predicted mask IoU) and sample: at most SAMPLE rows of COLUMNS
    and the true mask IoU.
    """
    counts, matches, known = metric.Counts(), [], []
    for targets, image in zip(pseudo_labels, batch.unlabelled, strict=True):
        if image.ground_truth is not None:
            matches.append(metric.match(targets.instances.to(torch.device("cpu")), image.ground_truth))
            counts.add(matches[-1], len(image.ground_truth.labels))
            known.append(_columns(targets))
    every = np.concatenate([np.zeros((4, 0)), *(_columns(targets) for targets in pseudo_labels)], axis=1)
    means = {name: float(values.mean()) if len(values) else None for name, values in zip(COLUMNS, every, strict=True)}
    score, mask_iou, *weights = np.concatenate([np.zeros((4, 0)), *known], axis=1)
    correct = np.concatenate([np.zeros(0), *(match.matched_iou > 0 for match in matches)])
    best = np.concatenate([np.zeros(0), *(match.best_iou for match in matches)])
    sampled = np.linspace(0, len(best) - 1, min(SAMPLE, len(best))).astype(int)
    rows = np.stack([score, mask_iou, *weights, best], axis=1)[sampled]
    return {
        **counts.summary(),
        **means,
        "weights": {name: metric.histogram(values) for name, values in zip(COLUMNS[2:], every[2:], strict=True)},
        "score_bins": metric.calibration(score, correct),
        "mask_iou_bins": metric.calibration(mask_iou, best),
        "sample": [[round(value, 4) for value in row] for row in rows.tolist()],
    }


def _columns(targets: Targets) -> np.ndarray:
    """Return COLUMNS as f64[4,N]."""
    instances = targets.instances
    columns = (instances.scores, instances.mask_iou, targets.class_weight, targets.mask_weight)
    return np.stack([column.detach().cpu().numpy().astype(np.float64) for column in columns])
