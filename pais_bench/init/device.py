"""Find the device that will train, and the pretrained weights that are at hand. torch is not needed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

BACKBONES = ("resnet50", "mobilenet_v2")
"""The backbones of torchvision's networks that have ImageNet weights, whose files' names begin with theirs."""
QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")


class Device(NamedTuple):
    """Hold what trains: CPU cores, and the first GPU's name, memory in GB and compute capability; None without one."""

    cores: int
    gpu: str | None = None
    memory: float = 0.0
    capability: float = 0.0

    def __str__(self) -> str:
        """Return the device in words."""
        return f"{self.gpu}, {self.memory:.0f} GB" if self.gpu else f"{self.cores} CPU cores, no GPU"


def find_device() -> Device:
    """Return this machine's device; a GPU that its driver does not list is none."""
    cores = len(os.sched_getaffinity(0))
    try:
        listed = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
        name, memory, capability = (part.strip() for part in listed[0].rsplit(",", 2))
        return Device(cores, name, float(memory) / 1024, float(capability))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
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
