"""Describe what the jobs of each rule need of a cluster: partition, memory, time, GPUs. None of it changes a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pais_bench.errors import BenchError
from pais_bench.study.base import StrictConfig
from pais_bench.study.run import Training

Rule = Literal["default", "prepare", "split", "train", "predict", "evaluate", "report"]
ViewsOn = Literal["cpu", "device", "auto"]
"""Where the views of a training are made: by the loader processes, or by the device from images that they decode."""


class Resources(StrictConfig):
    """Set what the jobs of a rule request; what is left out is the profile's, or the cluster's.

    mem_mb (MB) and minutes are those of a first attempt: the second requests twice as much, the fourth four times,
    but not for more than max_mem_mb and max_minutes: SLURM refuses what no node has, or lets it wait for ever.
    gpus are those of one node; with several, or several nodes, a training has a process on each. accumulate is the
    number of micro-batches of a training: less memory, the same step. views_on: see ViewsOn; auto is the device where
    that is a GPU, to the same pixels.
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
    accumulate: int | None = Field(default=None, ge=1)
    views_on: ViewsOn | None = None

    @model_validator(mode="after")
    def _nodes_have_gpus(self) -> Resources:
        if (self.nodes or 1) > 1 and (self.gpus or 0) < 2:
            raise ValueError("several nodes are for trainings on all GPUs of each: give gpus, at least 2")
        return self

    @property
    def devices(self) -> int:
        """Return the number of devices of a training: one where it requests no GPU."""
        return (self.gpus or 1) * (self.nodes or 1)

    def scaled(self, key: Literal["mem_mb", "minutes"], attempt: int) -> int:
        """Return the memory or time that an attempt, counted from 1, requests."""
        first: int = getattr(self, key)
        most: int | None = getattr(self, f"max_{key}")
        return attempt * first if most is None else min(attempt * first, max(first, most))


def resources_for(resources: Mapping[Rule, Resources], rule: Rule) -> Resources:
    """Return what the jobs of a rule request: its own keys, and those of default for the rest."""
    values: dict[str, Any] = {}
    for name in ("default", rule):
        if name in resources:
            values |= resources[name].model_dump(exclude_none=True)
    return Resources(**values)


def check_batch_sizes(training: Training, devices: int, micro_batches: int = 1) -> None:
    """Raise BenchError where devices, each with micro-batches, cannot share the batches of a training equally."""
    for size, together in (
        (training.labelled_batch_size, 1),
        (training.unlabelled_batch_size, training.unlabelled_together),
    ):
        if size // together % (devices * micro_batches):
            shared = f"{devices} devices" + (f" in {micro_batches} micro-batches each" if micro_batches > 1 else "")
            remedy = "use a divisor of it"
            if together > 1:
                remedy = f"training.unlabelled_mix keeps pairs together: use a divisor of {size // together}"
            raise BenchError(f"a batch of {size} images cannot be shared by {shared}; {remedy}")
