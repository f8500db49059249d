"""Find the device that will train, and the pretrained weights that are at hand. torch is not needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pais_bench.errors import BenchError
from pais_bench.machine.gpu import read_gpus

BACKBONES = ("resnet50", "mobilenet_v2")
"""The backbones of torchvision's networks that have ImageNet weights, whose files' names begin with theirs."""


class Device(NamedTuple):
    """Hold what trains: CPU cores, and the first GPU's name, memory in GB and compute capability; None without one."""

    cores: int
    gpu: str | None = None
    memory: float = 0.0
    capability: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        """Return the device in words."""
        return f"{self.gpu}, {self.memory:.0f} GB" if self.gpu else f"{self.cores} CPU cores, no GPU"


def find_device() -> Device:
    """Return this machine's device; a GPU that its driver does not list is none."""
    cores = len(os.sched_getaffinity(0))
    try:
        gpus = read_gpus()
    except BenchError:  # `pais-bench doctor` tells it
        return Device(cores)
    for gpu in gpus[:1]:
        if gpu.total is not None and gpu.capability is not None:
            return Device(cores, gpu.name, gpu.total / 1024, gpu.capability)
    return Device(cores)


def weight_folders() -> list[Path]:
    """Return where weights are looked for: ~/data/weights, and the cache of torch.hub."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hub = Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub" / "checkpoints"
    return [Path.home() / "data" / "weights", hub]


def find_weights(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the ImageNet weights of each backbone that the folders have, the first folder's before the others'."""
    found: dict[str, Path] = {}
    for folder in folders:
        for backbone in BACKBONES:
            for path in sorted(folder.glob(f"{backbone}*.pth")):
                found.setdefault(backbone, path)
    return found
