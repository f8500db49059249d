"""What if the mask head expects noise at the boundary? Noisy Boundaries: Data Distillation's labels, another head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.methods._thresholds import FrequencyMatched


class Options(Frozen):
    """Set how the thresholds are found [CVPR 2022; paper.md 7]."""

    calibration_images: int = Field(default=200, ge=1)
    """Unlabelled images on which the teacher's objects per class are counted."""
    unlabelled_weight: float = Field(default=1.0, ge=0)


class Method(FrequencyMatched):
    """Trust a trained, frozen teacher; a noise-tolerant mask head and a boundary map learn from its pseudo-labels."""

    network: Mapping[str, Any] = {"mask_head": "noise_tolerant", "boundary_weight": 3.0}
