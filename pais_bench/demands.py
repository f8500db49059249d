"""What does a job ask of a cluster? Partition, memory, time and GPUs, rule by rule; none of it changes a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pais_bench.frozen import Frozen

Rule = Literal["default", "prepare", "split", "train", "predict", "evaluate", "report"]


class Demand(Frozen):
    """Set what the jobs of a rule ask for; what is left out is the profile's, or the cluster's.

    mem_mb (MB) and minutes are those of a first attempt: the second asks for twice, the third for three times as much,
    but not for more than max_mem_mb and max_minutes: SLURM refuses what no node has, or lets it wait for ever.
    gpus are those of one node; with several, or several nodes, a training has a process on each.
    """

    partition: str | None = None
    account: str | None = None
    mem_mb: int | None = Field(default=None, ge=1)
    minutes: int | None = Field(default=None, ge=1)
    max_mem_mb: int | None = Field(default=None, ge=1)
    max_minutes: int | None = Field(default=None, ge=1)
    cpus: int | None = Field(default=None, ge=1)
    gpus: int | None = Field(default=None, ge=0)
    nodes: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _nodes_have_gpus(self) -> Demand:
        if (self.nodes or 1) > 1 and (self.gpus or 0) < 2:
            raise ValueError("several nodes are for trainings on all GPUs of each: give gpus, at least 2")
        return self

    def grown(self, key: Literal["mem_mb", "minutes"], attempt: int) -> int:
        """Give what an attempt, counted from 1, asks for of what grows."""
        first: int = getattr(self, key)
        most: int | None = getattr(self, f"max_{key}")
        return attempt * first if most is None else min(attempt * first, max(first, most))


def demand(asked: Mapping[Rule, Demand], rule: Rule) -> Demand:
    """Give what the jobs of a rule ask for: its own keys, and those of default for the rest."""
    values: dict[str, Any] = {}
    for name in ("default", rule):
        if name in asked:
            values |= asked[name].model_dump(exclude_none=True)
    return Demand(**values)
