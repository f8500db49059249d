"""What if a finished teacher labels everything once? Data Distillation, with one threshold per class."""

from __future__ import annotations

from pydantic import Field

from pais_bench.config import Frozen
from pais_bench.methods._thresholds import FrequencyMatched


class Options(Frozen):
    """Set how the thresholds are found [arXiv 1712.04440; paper.md 7]."""

    calibration_images: int = Field(default=200, ge=1)
    """Unlabelled images on which the teacher's objects per class are counted."""
    unlabelled_weight: float = Field(default=1.0, ge=0)


class Method(FrequencyMatched):
    """Trust what a trained, frozen teacher scores above its class's threshold, from the first step to the last."""
