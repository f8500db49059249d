"""Weight pseudo-labels by the dynamic aligning loss: PAIS [ICCV 2023, arXiv 2308.05359]."""

from __future__ import annotations

from pais_bench.methods._dynamic_aligning import DynamicAligning, DynamicAligningOptions


class Options(DynamicAligningOptions):
    """Set every constant of the dynamic aligning loss."""


class Method(DynamicAligning):
    """Weight the class loss by the class score, and the mask loss by the mask IoU that the network predicts."""
