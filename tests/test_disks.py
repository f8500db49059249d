"""Check that a training loses no step where its disk becomes full or read-only, on mounted disks."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import Training, assert_ends_like, until_step

from pais_bench.training.preemption import INTERRUPTED
from pais_bench.training.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
SIZE = 24
"""MB of the disk: enough for the tiny data and more than two checkpoints of the tiny network."""


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk in memory; skip where that is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs root, and a machine that allows it")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def wait_after_save(path: Path) -> Callable[[], object]:
    """Return a patch that lets a forked training wait after each checkpoint for a file."""

    def patch() -> None:
        save = Trainer._save

        def save_and_wait(self: Trainer) -> None:
            save(self)
            wait_for(path)

        Trainer._save = save_and_wait  # type: ignore[method-assign]

    return patch


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def fill(disk: Path) -> Path:
    """Write a file until not a byte is left."""
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


def test_a_disk_that_fills_up_loses_no_step(disk: Path, tmp_path: Path, whole: Training) -> None:
    training = Training(disk)
    training.stderr = tmp_path / "stderr.txt"
    pid = training.start(before=wait_after_save(tmp_path / "go"))
    wait_for(training.folder / "checkpoint.pt")
    filled = fill(disk)
    (tmp_path / "go").touch()
    assert training.wait(pid) == 2, training.stderr.read_text()
    training.assert_refused("no space left on device; free some space")
    filled.unlink()
    assert_ends_like(training, whole)


def test_a_disk_that_becomes_read_only_loses_no_step(disk: Path, tmp_path: Path, whole: Training) -> None:
    training = Training(disk)
    training.stderr = tmp_path / "stderr.txt"
    assert training.train(before=until_step(training, 1)) == INTERRUPTED
    mount("-o", "remount,ro", str(disk))
    assert training.train() == 2
    training.assert_refused("read-only file system; choose another folder, or mount it for writing")
    mount("-o", "remount,rw", str(disk))
    assert_ends_like(training, whole)
