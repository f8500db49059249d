"""Train on the labelled images only: the baseline of every gain."""

from __future__ import annotations

from pais_bench.methods.base import MethodBase
from pais_bench.study.base import StrictConfig


class Options(StrictConfig):
    """Accept no options."""


class Method(MethodBase):
    """Ignore the unlabelled images; the teacher is the EMA of the student."""

    uses_unlabelled = False

    def __init__(self, options: Options) -> None:
        self.unlabelled_weight = 0.0
