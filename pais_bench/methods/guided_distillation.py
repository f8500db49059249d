"""Take pseudo-labels from a trained, frozen teacher first, and from the student's EMA later.

Guided Distillation [arXiv 2308.02668]; the constants are those of its release, which the paper has in part.
"""

from __future__ import annotations

from pais_bench.methods._guided import Guided, GuidedOptions
from pais_bench.types import Instances, Targets


class Options(GuidedOptions):
    """Set the filter, the weight and the guided burn-in."""


class Method(Guided):
    """Keep confident detections with masks that are not tiny."""

    def assign_weights(self, detections: Instances) -> Targets:
        """Drop masks of at most `pixels` pixels; every weight is 1."""
        return Targets.unweighted(detections[detections.masks.flatten(1).sum(1) > self.options.pixels])
