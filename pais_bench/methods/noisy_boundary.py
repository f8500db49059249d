"""Train a mask head that tolerates noisy boundaries on Data Distillation's labels: Noisy Boundaries [CVPR 2022]."""

from __future__ import annotations

from pais_bench.methods import data_distillation


class Options(data_distillation.Options):
    """Set how the thresholds are fitted."""


class Method(data_distillation.Method):
    """Keep what the teacher scores above the threshold; the noise-tolerant head and the boundary weight do the rest."""

    network_options = {"mask_head": "noise_tolerant", "boundary_weight": 3.0}
