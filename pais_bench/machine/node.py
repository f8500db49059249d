"""Check cores, memory, shared memory and limits of this machine against what a training's processes use."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from pais_bench.machine.finding import Finding
from pais_bench.study.resources import resources_for
from pais_bench.study.study import Study

OPEN_FILES = 1024
"""Below which loader processes may run out of file descriptors: every batch that waits is one, and every log."""
PREFETCHED = 2
"""Batches that torch's DataLoader keeps ready for each loader process."""
SHM = 1e9
"""Bytes of shared memory below which it is told where the need is not known; containers have 64 MB as a rule."""
CGROUP = Path("/sys/fs/cgroup")
WORKFLOW = (3, 11)
"""The oldest Python of the environment `workflow`."""


def check_node(study: Study | None) -> Iterator[Finding]:
    """Yield the findings about Python, cores, memory, shared memory and open files."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < WORKFLOW:
        yield Finding("warn", f"Python {version}: the workflow needs 3.11, which uv downloads where there is a network")
    else:
        yield Finding("ok", f"Python {version}")
    cores, memory = len(os.sched_getaffinity(0)), _memory()
    yield Finding("ok", f"{cores} cores, {memory / 1e9:.1f} GB of memory are free")
    quota = cpu_quota(_read(CGROUP / "cpu.max"))
    if quota and quota < cores:
        text = (
            f"a cgroup gives this process the time of {quota:.1f} of {cores} cores; give --cores {max(1, int(quota))}"
        )
        yield Finding("warn", text)
    workers = cores - 1
    if study:
        train = resources_for(study.resources, "train")
        processes = (train.cpus or 1) * (train.gpus or 1)
        workers = (train.cpus - 1) if train.cpus else workers
        if processes > cores:
            text = f"resources.train: a training is given {processes} CPUs, here are {cores}; lower cpus, or"
            yield Finding("warn", f"{text} train on another machine")
    yield from _check_shared_memory(study, workers)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < OPEN_FILES:
        yield Finding("warn", f"a process may open {soft} files; raise it (ulimit -n 4096; the hard limit is {hard})")
    else:
        yield Finding("ok", f"a process may open {soft if soft >= 0 else 'any number of'} files")


def loader_bytes(study: Study, workers: int) -> int:
    """Return the most shared memory that the loader processes of a node keep filled, in bytes.

    Every unlabelled image has two views; a view has three bytes a pixel, and as many pixels as the sizes allow.
    """
    view = 3 * study.input.max_size_train * min(max(study.input.min_size_train), study.input.max_size_train)
    trainings = [run.training for run in study.runs()]
    views = max(training.labelled_batch_size + 2 * training.unlabelled_batch_size for training in trainings)
    return max(1, workers) * PREFETCHED * views * view


def cpu_quota(cpu_max: str) -> float | None:
    """Return the cores that cpu.max of a cgroup (version 2), as '200000 100000', gives; None without a limit."""
    quota, _, period = cpu_max.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None


def _check_shared_memory(study: Study | None, workers: int) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        yield Finding("fail", "/dev/shm: missing, and loader processes hand batches over in it; mount a tmpfs there")
        return
    needed = loader_bytes(study, workers) if study else SHM
    text = f"/dev/shm: {free / 1e9:.1f} GB are free"
    if study:
        text += f", and {max(1, workers)} loader processes fill up to {needed / 1e9:.1f} GB"
    if free < needed:
        text += "; give a container more (--shm-size=8g of Docker), or lower --workers"
        yield Finding("warn", text)
    else:
        yield Finding("ok", text)


def _memory() -> int:
    """Return the bytes of memory that are available, or what a cgroup gives in all where that is less."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            available = 1024 * int(line.split()[1])
    most = _read(CGROUP / "memory.max").strip()
    return min(available, int(most)) if most.isdigit() else available


def _read(path: Path) -> str:
    """Return the text of a file of the kernel; nothing where it is absent."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
