"""Filter class and mask apart, correct classes by CLIP, and weight pixels by certainty: PL-DC [arXiv 2505.11075]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from pais_bench.methods._adaptive_thresholds import AdaptiveThresholds, Fraction
from pais_bench.methods._clip import ClipClassifier, clip_share
from pais_bench.methods._soft_predictions import class_probability
from pais_bench.methods.base import MethodOptions
from pais_bench.types import Instances, Targets

if TYPE_CHECKING:
    from torch import Tensor


class Options(MethodOptions):
    """Set the filter of class and mask, the correction of classes and the pixel weights."""

    class_threshold: Fraction = 0.85
    mask_threshold: Fraction = 0.9
    adaptive_from: tuple[Fraction, Fraction] | None = None
    """Start of a class's two thresholds without labels, which then follow the teacher; None: both are fixed."""
    pixels: int = Field(default=5, ge=0)
    """Masks of at most so many pixels are dropped."""
    pixel_weights: bool = True
    clip: Path | None = None
    """Weights of the CLIP network that corrects classes; None: nothing corrects them."""
    clip_model: str = "convnext_large_d_320"
    descriptions: Path | None = None
    """YAML file with a list of descriptions of each class for CLIP; None: its name."""


class Method(AdaptiveThresholds):
    """Keep detections of which class and mask are certain, and learn most from the certain pixels of a mask."""

    options: Options
    needs_soft_predictions = True

    def __init__(self, options: Options) -> None:
        super().__init__(options, (options.class_threshold, options.mask_threshold), options.adaptive_from)
        self.refines = options.clip is not None
        if self.refines:
            self.calibration_images = 0

    def prepare(
        self, detections: Sequence[Instances], ground_truth: Sequence[Instances], class_names: Sequence[str]
    ) -> None:
        """Start the thresholds, and load CLIP."""
        super().prepare(detections, ground_truth, class_names)
        o = self.options
        if o.clip is not None:
            self.clip = ClipClassifier(o.clip, o.clip_model, class_names, o.descriptions)

    def qualities(self, detections: Instances) -> tuple[Tensor, Tensor]:
        """Return the probability of each class f32[N], and the mean probability f32[N] inside of each mask."""
        assert detections.soft_masks is not None
        soft = detections.soft_masks.values.flatten(1)
        inside = soft > 0.5
        certainty = (soft * inside).sum(1) / (inside.sum(1) + 1e-6)
        return class_probability(detections), certainty

    def refine(self, image: Tensor, detections: Instances, progress: float) -> Instances:
        """Take the best class of w CLIP + (1 - w) teacher, with w falling from 0.5 to 0 along a cosine."""
        assert detections.class_probs is not None
        probs = detections.class_probs.lerp(self.clip(image, detections.masks), clip_share(progress))
        scores, labels = probs.max(1)
        return replace(detections, scores=scores, labels=labels, class_probs=probs)

    def assign_weights(self, detections: Instances) -> Targets:
        """Drop tiny masks; every weight is 1, and that of a pixel |2p - 1|, p being the teacher's probability."""
        kept = detections[detections.masks.flatten(1).sum(1) > self.options.pixels]
        if not self.options.pixel_weights or kept.soft_masks is None:
            return Targets.unweighted(kept)
        certainty = replace(kept.soft_masks, values=(2 * kept.soft_masks.values - 1).abs())
        return replace(Targets.unweighted(kept), pixel_weight=certainty)
