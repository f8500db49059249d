"""Read what only soft predictions of a network tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pais_bench.types import Instances

if TYPE_CHECKING:
    from torch import Tensor


def class_probability(detections: Instances) -> Tensor:
    """Return the probability f32[N] of each detection's class, in which no mask takes part."""
    assert detections.class_probs is not None
    return detections.class_probs.gather(1, detections.labels[:, None])[:, 0]
