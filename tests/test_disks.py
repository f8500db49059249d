"""What does a training do on a disk that is full, or that turns read-only under it? On disks that really are."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from forked import Training, ends_like, until_step

from pais_bench import cli, engine

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SIZE = 24
"""MB of the disk: the tiny data, and more checkpoints than two of the tiny network."""


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a small disk in memory; skip where nobody may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(place))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root, and a machine that allows it")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def slowly(go: Path) -> Callable[[], object]:
    """Let a forked training wait after its first checkpoint for a file."""

    def patched() -> None:
        save = engine.Trainer._save

        def waits(self: engine.Trainer) -> None:
            save(self)
            wait_for(go)

        engine.Trainer._save = waits  # type: ignore[method-assign]

    return patched


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def fill(disk: Path) -> Path:
    """Write until there is no space left, to the last byte."""
    path = disk / "full"
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
    return path


def test_a_disk_that_is_full_loses_no_step(disk: Path, tmp_path: Path, whole: Training) -> None:
    training = Training(disk)
    training.said = tmp_path / "said.txt"
    assert training.train(before=until_step(training, 1)) == cli.INTERRUPTED
    filled = fill(disk)
    before = training.weights()
    assert training.train() == 2, training.said.read_text()
    training.refused("no space left on device; free some space")
    assert all(torch.equal(value, before[name]) for name, value in training.weights().items())
    filled.unlink()
    ends_like(training, whole)


def test_a_disk_that_fills_up_in_mid_run_loses_no_step(disk: Path, tmp_path: Path, whole: Training) -> None:
    training = Training(disk)
    training.said = tmp_path / "said.txt"
    pid = training.start(before=slowly(tmp_path / "go"))
    wait_for(training.folder / "checkpoint.pt")
    filled = fill(disk)
    (tmp_path / "go").touch()
    assert training.wait(pid) == 2, training.said.read_text()
    training.refused("no space left on device; free some space")
    filled.unlink()
    ends_like(training, whole)


def test_a_disk_that_has_turned_read_only_loses_no_step(disk: Path, tmp_path: Path, whole: Training) -> None:
    training = Training(disk)
    training.said = tmp_path / "said.txt"
    assert training.train(before=until_step(training, 1)) == cli.INTERRUPTED
    mount("-o", "remount,ro", str(disk))
    assert training.train() == 2
    training.refused("read-only file system; choose another --results, or mount it for writing")
    mount("-o", "remount,rw", str(disk))
    ends_like(training, whole)
