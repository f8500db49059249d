"""Does the unlabelled part do anything, and is it right? What is logged of a step's pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pais_bench import plugins
from pais_bench.types import Batch, Targets


def describe(pseudo: Sequence[Targets], batch: Batch) -> dict[str, float | None]:
    """Give number, precision, recall and mask IoU against the hidden truth, and the means of scores and weights.

    pseudo are the targets in pixels of the weak views, one an image of the unlabelled batch.
    """
    metric = plugins.load("metrics", "pseudo_labels")
    counts = metric.Counts()
    for targets, image in zip(pseudo, batch.unlabelled, strict=True):
        if image.truth is not None:
            counts.add(metric.compare(targets.instances.to(torch.device("cpu")), image.truth))
    means: dict[str, float | None] = {}
    for name, values in {
        "score": [targets.instances.scores for targets in pseudo],
        "quality": [targets.instances.quality for targets in pseudo],
        "class_weight": [targets.class_weight for targets in pseudo],
        "mask_weight": [targets.mask_weight for targets in pseudo],
    }.items():
        every = torch.cat(values)
        means[name] = float(every.mean()) if len(every) else None
    return {**counts.summary(), **means}
