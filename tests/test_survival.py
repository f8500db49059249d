"""What survives kills, torn checkpoints, a second trainer, a full disk, a machine without memory? Done for real."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forked import Training, ends_like, until_step
from tiny import study, write_study

from pais_bench import cli, inference, lock
from pais_bench.study_file import load_study
from pais_bench.types import BenchError

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forked: a start costs no import


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_a_training_killed_at_twenty_random_moments_ends_like_one_that_is_not(tmp_path: Path) -> None:
    path = write_study(tmp_path, methods={"pais": study()["methods"]["pais"]})
    values = yaml.safe_load(path.read_text())
    values["training"] |= {"steps": 40, "checkpoint_every": 1, "evaluate_every": 10, "milestones": [30]}
    path.write_text(yaml.safe_dump(values))
    words = (sys.executable, str(ROOT / "benchmarks/kills.py"), str(path), "--kills", "20")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: weights, average, optimiser, log, predictions" in done.stdout


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def zeroed_end(content: bytes) -> bytes:
    return content[:-4096] + bytes(4096)


@pytest.mark.parametrize("spoil", [truncated, empty, flipped, zeroed_end])
def test_a_torn_checkpoint_falls_back_to_the_one_before_it(
    spoil: Callable[[bytes], bytes], training: Training, whole: Training
) -> None:
    assert training.train(before=until_step(training, 3)) == cli.INTERRUPTED
    newest = training.folder / "checkpoint.pt"
    newest.write_bytes(spoil(newest.read_bytes()))
    ends_like(training, whole)
    assert "damaged checkpoint" in training.said.read_text() and "step 2 of 4" in training.said.read_text()


def test_torn_checkpoints_without_a_whole_one_are_refused(training: Training) -> None:
    assert training.train(before=until_step(training, 3)) == cli.INTERRUPTED
    for path in training.folder.glob("checkpoint*.pt"):
        path.write_bytes(b"torn")
    assert training.train() == 2
    training.refused("checkpoint.pt: damaged", "checkpoint.before.pt: damaged", "delete it to train this run anew")


def test_a_foreign_checkpoint_is_refused_and_left_alone(training: Training) -> None:
    assert training.train(before=until_step(training, 3)) == cli.INTERRUPTED
    newest = training.folder / "checkpoint.pt"
    state = torch.load(newest, weights_only=True)
    torch.save({**state, "digest": "12345678"}, newest)
    assert training.train() == 2
    training.refused("checkpoint of run 12345678, not of", "delete it or use another folder")
    assert torch.load(newest, weights_only=True)["digest"] == "12345678"


def test_a_checkpoint_that_would_run_code_is_not_loaded(training: Training, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "harmed"),))

    training.folder.mkdir(parents=True)
    torch.save({"digest": Harmful()}, training.folder / "checkpoint.pt")
    assert training.train() == 2
    training.refused("damaged checkpoint")
    assert not (tmp_path / "harmed").exists()


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def asleep(step: int) -> Callable[[], object]:
    """Let a forked training sleep for a minute after a step, as a long evaluation would."""

    def patched() -> None:
        measure = inference.Validation.measure

        def slow(*words: Any) -> Any:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                words[-1](0)
                time.sleep(0.05)
            return measure(*words)

        inference.Validation.measure = slow  # type: ignore[method-assign]

    return patched


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_in_a_long_evaluation_saves_and_the_evaluation_is_made_up_for(
    number: signal.Signals, training: Training, whole: Training
) -> None:
    pid = training.start(before=asleep(2))
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) == 2)
    time.sleep(0.2)
    begun = time.monotonic()
    os.kill(pid, number)
    assert training.wait(pid) == cli.INTERRUPTED and time.monotonic() - begun < 10
    assert "stopped after step 2 of 4; run the same command to go on" in training.said.read_text()
    assert [line["event"] for line in training.log()] == ["step", "step"]
    ends_like(training, whole)


def test_a_second_trainer_of_a_run_is_refused_by_name(training: Training, whole: Training) -> None:
    def job() -> None:
        os.environ["SLURM_JOB_ID"] = "4711"
        lock.BEAT = 0.2
        asleep(2)()

    first = training.start(before=job)
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) == 2)
    second = Training.__new__(Training)
    second.__dict__ = {**training.__dict__, "said": training.path.with_name("second.txt")}
    assert second.train(before=lambda: setattr(lock, "BEAT", 0.2)) == 2
    second.refused(f"process {first} on ", "SLURM job 4711, since 20", "wait for it, or end it")
    os.kill(first, signal.SIGKILL)
    assert training.wait(first) == -signal.SIGKILL and (training.folder / "lock.json").exists()
    ends_like(training, whole)


def foreign_lock(folder: Path) -> Path:
    """Leave the lock of a machine that is not this one."""
    held = lock.Lock(folder, beat=100)
    held.__enter__()
    path = folder / "lock.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "node17", "pid": 77, "token": "theirs"}))
    return path


def test_a_lock_that_nobody_touches_is_taken_over(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path)
    begun = time.monotonic()
    with lock.Lock(tmp_path, beat=0.1, stale=0.5) as mine:
        assert time.monotonic() - begun > 0.4
        mine.check()
        touched = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > touched)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_that_is_touched_is_respected(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path)
    touching = threading.Timer(0.3, lambda: os.utime(path))
    touching.start()
    with pytest.raises(BenchError, match=r"process 77 on node17, since .*, trains here, and was alive"):
        lock.Lock(tmp_path, beat=0.1, stale=20).__enter__()
    touching.join()
    assert path.exists()


def test_who_loses_the_lock_writes_no_checkpoint(tmp_path: Path) -> None:
    with lock.Lock(tmp_path, beat=100) as mine:
        path = tmp_path / "lock.json"
        path.write_text(json.dumps({"host": "node17", "pid": 77, "since": "now", "token": "theirs"}))
        with pytest.raises(BenchError, match="taken over by process 77 on node17, since now,; nothing more is written"):
            mine.check()
    assert path.exists()


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_of_many_that_take_a_stale_lock_one_gets_it(
    pause: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_lock(tmp_path)
    rename = os.rename
    # Each is held up after it has seen that the lock is still the stale one.
    monkeypatch.setattr(os, "rename", lambda *paths: (time.sleep(pause), rename(*paths)))
    held: list[lock.Lock] = []

    def take() -> None:
        with contextlib.suppress(BenchError):
            held.append(lock.Lock(tmp_path, beat=0.05, stale=0.3).__enter__())

    crowd = [threading.Thread(target=take) for _ in range(8)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert len(held) == 1
    held[0].__exit__()


def test_a_limit_of_file_size_loses_no_step(training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == cli.INTERRUPTED
    size = (training.folder / "checkpoint.pt").stat().st_size
    assert training.train(before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))) == 2
    training.refused("file too large; raise the limit of a file's size")
    assert not (training.folder / "checkpoint.tmp").exists()
    ends_like(training, whole)


def test_a_full_disk_loses_no_step(training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == cli.INTERRUPTED
    (training.folder / "checkpoint.tmp").symlink_to("/dev/full")
    assert training.train() == 2
    training.refused("no space left on device; free some space")
    ends_like(training, whole)


def test_results_that_are_read_only_are_named(training: Training) -> None:
    def nobody() -> None:
        for folder in (training.path.parent, *training.results.rglob("*")):
            if folder.is_dir():
                folder.chmod(0o555)
        training.results.chmod(0o555)
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)

    if os.geteuid() == 0 and not (training.path.parent.stat().st_mode & 0o005):
        for folder in (training.path.parent, *training.path.parent.parents[:-2]):
            folder.chmod(folder.stat().st_mode | 0o055)
    assert training.train(before=nobody) == 2
    training.refused(str(training.results / "runs"), "permission denied; choose another --results")


TAKEN: list[bytearray] = []


def test_memory_that_runs_out_is_told_and_loses_no_step(training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == cli.INTERRUPTED

    def little() -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (now + 2**23, now + 2**23))
        with contextlib.suppress(MemoryError):  # what earlier tests have freed is taken as well, but for 2 MB
            while True:
                TAKEN.append(bytearray(2**16))
        del TAKEN[-32:]

    assert training.train(before=little) == 2, training.said.read_text()
    training.refused("out of memory; ask for more of it")
    ends_like(training, whole)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_lost_in_mid_run_is_named(workers: str, training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == cli.INTERRUPTED
    images = {path: path.read_bytes() for path in training.results.rglob("train/*.png")}
    for path in images:
        path.unlink()
    assert training.train("--workers", workers) == 2
    training.refused(".png: unreadable image", "No such file", "replace the file")
    for path, content in images.items():
        path.write_bytes(content)
    ends_like(training, whole)


def test_a_loss_that_is_not_finite_is_told_with_the_last_checkpoint_kept(training: Training) -> None:
    steep = study(methods={"supervised": {"training": {"lr": 1e30, "clip": None, "warmup_steps": 0}}})
    training.path.write_text(yaml.safe_dump(steep))
    training.folder = training.results / load_study(training.path).runs()[0].folder
    assert training.train() == 2
    training.refused("loss not finite at step", "labelled/", "lower training.lr")
