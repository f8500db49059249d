"""Train on the labels that a trained, frozen teacher gives to all unlabelled images, with one threshold per class.

Data Distillation [arXiv 1712.04440].
"""

from __future__ import annotations

from pais_bench.methods._frequency_matching import FrequencyMatching, FrequencyMatchingOptions


class Options(FrequencyMatchingOptions):
    """Set how the thresholds are fitted."""


class Method(FrequencyMatching):
    """Keep what the teacher scores above the threshold of its class."""
