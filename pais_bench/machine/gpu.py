"""Read the GPUs of this machine as their driver tells them, and check whether a torch runs on them."""

from __future__ import annotations

import csv
import ctypes
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pais_bench.errors import BenchError
from pais_bench.machine.finding import Finding, ask

QUERY = (
    "nvidia-smi",
    "--query-gpu=name,driver_version,compute_cap,memory.total,memory.free,utilization.gpu",
    "--format=csv,noheader,nounits",
)
NO_DEVICE = "no devices were found"
"""What nvidia-smi says, in lower case, where a driver is installed and no GPU is."""

Version = tuple[int, int]


class Gpu(NamedTuple):
    """Hold what the driver tells of a GPU: memories in MiB, use in percent; None where it is silent."""

    name: str
    driver: str
    capability: Version | None
    total: int | None
    free: int | None
    use: int | None

    @property
    def memory(self) -> str | None:
        """Return how much of the memory is free, in GiB."""
        if self.total is None or self.free is None:
            return None
        return f"{self.free / 1024:.1f} of {self.total / 1024:.1f} GiB are free"


def read_gpus() -> list[Gpu]:
    """Return the GPUs that the driver lists, none without a driver; raise BenchError where it does not answer."""
    try:
        listed = ask(*QUERY) or ""
    except BenchError as error:
        if NO_DEVICE in str(error).lower():
            return []
        raise
    rows = [row for row in csv.reader(listed.splitlines(), skipinitialspace=True) if len(row) == len(Gpu._fields)]
    return [Gpu(name, driver, _version(capability), *map(_integer, rest)) for name, driver, capability, *rest in rows]


def gpu_lines() -> list[str]:
    """Return the use and the memory of each GPU in a line; nothing where the driver does not answer."""
    try:
        gpus = read_gpus()
    except BenchError:
        return []
    return [
        f"GPU {index} {gpu.name}: {'?' if gpu.use is None else gpu.use} %, {gpu.memory or 'memory unknown'}"
        for index, gpu in enumerate(gpus)
    ]


def check_gpus() -> Iterator[Finding]:
    """Yield a finding for each GPU."""
    try:
        gpus = read_gpus()
    except BenchError as error:
        yield Finding("warn", f"no GPU: {error}; trainings use the CPU until the driver is repaired")
        return
    if not gpus:
        yield Finding("ok", "no GPU: nvidia-smi lists none; trainings use the CPU here")
    for index, gpu in enumerate(gpus):
        text = f"GPU {index}: {gpu.name}, driver {gpu.driver}"
        if gpu.total is None or gpu.free is None:
            yield Finding("ok", f"{text}; its driver does not tell its memory")
        elif gpu.free < gpu.total / 2:
            rest = "`nvidia-smi` names the processes that have the rest: wait for them"
            yield Finding("warn", f"{text}, {gpu.memory}; {rest}")
        else:
            yield Finding("ok", f"{text}, {gpu.memory}")


def driver_cuda() -> Version | None:
    """Return the newest CUDA that the driver of this machine knows; None without a driver."""
    try:
        driver, number = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
        if driver.cuDriverGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10


def check_torch() -> Iterator[Finding]:
    """Yield whether the torch of this Python runs on the GPUs of this machine."""
    import torch

    try:
        gpus = read_gpus()
    except BenchError:
        gpus = []  # check_gpus tells it
    built = _version(torch.version.cuda or "")
    if torch.version.hip is None:
        yield from compare_torch(torch.__version__, built, torch.cuda.get_arch_list(), gpus, driver_cuda())


def compare_torch(
    torch: str, built: Version | None, archs: Sequence[str], gpus: Sequence[Gpu], driver: Version | None
) -> Iterator[Finding]:
    """Compare a torch, by the CUDA and the architectures (as sm_90) that it is built for, with GPUs and their driver.

    A driver runs every minor version of the CUDA that it knows, and older ones (CUDA's minor version compatibility).
    """
    if built is None:
        if gpus:
            yield Finding("fail", f"torch {torch} is built without CUDA and trains on the CPU; install one with CUDA")
        return
    if driver and driver[0] < built[0]:
        yield Finding(
            "fail",
            f"torch {torch} is built for CUDA {_dotted(built)}, and the driver knows {_dotted(driver)}; ask for a "
            f"driver of CUDA {built[0]}, or train with a Python of your own (--config python=PATH) whose torch is for "
            f"CUDA {driver[0]}",
        )
    for gpu in gpus:
        if gpu.capability and archs and not _has_code(archs, gpu.capability):
            yield Finding(
                "fail",
                f"torch {torch} has no code for {gpu.name}, compute capability {_dotted(gpu.capability)}, only "
                f"{', '.join(archs)}; train on another GPU, or with a Python of your own (--config python=PATH)",
            )
    if not gpus:
        numbers = [arch for arch in map(_arch, archs) if arch]
        oldest = f", and has code for compute capability {_dotted(min(numbers))} and later" if numbers else ""
        yield Finding("ok", f"torch {torch} needs GPUs with a driver of CUDA {built[0]}{oldest}")


def _has_code(archs: Sequence[str], capability: Version) -> bool:
    """Return whether code runs: sm_XY on the same major version from Y on, PTX (compute_XY) on all that are later."""
    for name in archs:
        arch = _arch(name)
        if arch is None or arch > capability:
            continue
        if name.startswith("compute_") or (name[-1].isdigit() and arch[0] == capability[0]) or arch == capability:
            return True
    return False


def _arch(name: str) -> Version | None:
    """Return 9, 0 of sm_90 or sm_90a."""
    found = re.fullmatch(r"(?:sm|compute)_(\d+)(\d)[a-z]?", name)
    return (int(found[1]), int(found[2])) if found else None


def _version(text: str) -> Version | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _integer(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
