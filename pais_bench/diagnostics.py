"""Does the unlabelled part do anything, and is it right? What is logged of a step's pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pais_bench import plugins
from pais_bench.types import Batch, Targets

SAMPLE = 32
"""How many pseudo-labels of a logged step are written one by one."""
COLUMNS = ("score", "quality", "class_weight", "mask_weight")


def describe(pseudo: Sequence[Targets], batch: Batch) -> dict[str, Any]:
    """Describe the pseudo-labels of a step, which are in pixels of the weak views, one Targets an image.

    Gives the summary of metrics/pseudo_labels.py against the hidden truth; the means of COLUMNS; weights: histograms of
    both weights; and, of the images whose truth is known, score_bins (calibration of the score as probability to be
    right), quality_bins (of the predicted mask IoU) and sample: at most SAMPLE rows of COLUMNS and the true mask IoU.
    """
    metric = plugins.load("metrics", "pseudo_labels")
    counts, verdicts, known = metric.Counts(), [], []
    for targets, image in zip(pseudo, batch.unlabelled, strict=True):
        if image.truth is not None:
            verdicts.append(metric.judge(targets.instances.to(torch.device("cpu")), image.truth))
            counts.add(verdicts[-1], len(image.truth.labels))
            known.append(_columns(targets))
    every = np.concatenate([np.zeros((4, 0)), *(_columns(targets) for targets in pseudo)], axis=1)
    told = {name: float(values.mean()) if len(values) else None for name, values in zip(COLUMNS, every, strict=True)}
    score, quality, *weights = np.concatenate([np.zeros((4, 0)), *known], axis=1)
    right = np.concatenate([np.zeros(0), *(one.matched > 0 for one in verdicts)])
    best = np.concatenate([np.zeros(0), *(one.best for one in verdicts)])
    chosen = np.linspace(0, len(best) - 1, min(SAMPLE, len(best))).astype(int)
    rows = np.stack([score, quality, *weights, best], axis=1)[chosen]
    return {
        **counts.summary(),
        **told,
        "weights": {name: metric.histogram(values) for name, values in zip(COLUMNS[2:], every[2:], strict=True)},
        "score_bins": metric.calibration(score, right),
        "quality_bins": metric.calibration(quality, best),
        "sample": [[round(value, 4) for value in row] for row in rows.tolist()],
    }


def _columns(targets: Targets) -> np.ndarray:
    """Give COLUMNS as f64[4,N]."""
    found = targets.instances
    columns = (found.scores, found.quality, targets.class_weight, targets.mask_weight)
    return np.stack([column.detach().cpu().numpy().astype(np.float64) for column in columns])
