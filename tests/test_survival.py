"""Check that a training survives kills, damaged checkpoints, a second trainer, and a lack of disk and memory."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import resource
import shlex
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
from forked import RUN, Training, assert_ends_like, until_step
from tiny import study, write_study

from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.runs.lock_owner import is_held
from pais_bench.study.load import load_study
from pais_bench.training import lock, validation
from pais_bench.training.preemption import INTERRUPTED
from pais_bench.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return Training(tmp_path)


def test_a_training_killed_at_twenty_random_moments_assert_ends_like_one_that_is_not(tmp_path: Path) -> None:
    path = write_study(tmp_path, methods={"pais": study()["methods"]["pais"]})
    values = yaml.safe_load(path.read_text())
    values["training"] |= {"steps": 40, "checkpoint_every": 1, "evaluate_every": 10, "milestones": [30]}
    path.write_text(yaml.safe_dump(values))
    command = (sys.executable, str(ROOT / "benchmarks/kills.py"), str(path), "--kills", "20")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: student, teacher, optimiser, log, predictions" in done.stdout


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def empty(content: bytes) -> bytes:
    return b""


def bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def zero_ended(content: bytes) -> bytes:
    return content[:-4096] + bytes(4096)


@pytest.mark.parametrize("damage", [truncated, empty, bit_flipped, zero_ended])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_it(
    damage: Callable[[bytes], bytes], training: Training, whole: Training
) -> None:
    assert training.train(before=until_step(training, 3)) == INTERRUPTED
    newest = training.folder / "checkpoint.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    assert_ends_like(training, whole)
    assert "damaged checkpoint" in training.stderr.read_text() and "step 2 of 4" in training.stderr.read_text()


def test_damaged_checkpoints_without_a_whole_one_are_refused(training: Training) -> None:
    assert training.train(before=until_step(training, 3)) == INTERRUPTED
    for path in training.folder.glob("checkpoint*.pt"):
        path.write_bytes(b"damaged")
    assert training.train() == 2
    training.assert_refused(
        "checkpoint.pt: damaged", "checkpoint.before.pt: damaged", "delete it to train this run anew"
    )


def test_the_checkpoint_of_another_run_is_refused_and_kept(training: Training) -> None:
    assert training.train(before=until_step(training, 3)) == INTERRUPTED
    newest = training.folder / "checkpoint.pt"
    state = torch.load(newest, weights_only=True)
    torch.save({**state, "digest": "12345678"}, newest)
    assert training.train() == 2
    training.assert_refused("checkpoint of run 12345678, not of", "delete it or use another folder")
    assert torch.load(newest, weights_only=True)["digest"] == "12345678"


def test_a_checkpoint_that_would_run_code_is_not_loaded(training: Training, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "harmed"),))

    training.folder.mkdir(parents=True)
    torch.save({"digest": Harmful()}, training.folder / "checkpoint.pt")
    assert training.train() == 2
    training.assert_refused("no damaged checkpoint, but one that is not loaded", "(posix.mkdir); move it away")
    assert not (tmp_path / "harmed").exists()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def slow_evaluation() -> None:
    """Let the first evaluation of a forked training, after step 2, take a minute."""
    evaluate = validation.Validation.evaluate

    def slow(*arguments: Any) -> Any:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            arguments[-1](0)
            time.sleep(0.05)
        return evaluate(*arguments)

    validation.Validation.evaluate = slow  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_in_a_long_evaluation_saves_and_the_evaluation_is_repeated(
    number: signal.Signals, training: Training, whole: Training
) -> None:
    pid = training.start(before=slow_evaluation)
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) == 2)
    time.sleep(0.2)
    begin = time.monotonic()
    os.kill(pid, number)
    assert training.wait(pid) == INTERRUPTED and time.monotonic() - begin < 10
    assert "stopped after step 2 of 4; run the same command to continue" in training.stderr.read_text()
    assert [line["event"] for line in training.log()] == ["step", "step"]
    assert_ends_like(training, whole)


def deaf_evaluation() -> None:
    """Let every evaluation of a forked training, which leads a group of its own, take a minute whatever it is told."""
    os.setpgrp()
    validation.Validation.evaluate = lambda *_: time.sleep(60)  # type: ignore[method-assign, assignment, return-value]


def group_of_its_own() -> None:
    os.setpgrp()
    slow_evaluation()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_reaches_the_loader_processes_too_saves_without_a_traceback(
    number: signal.Signals, training: Training, whole: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    """Signal all at once, as a terminal does at Ctrl-C and SLURM at the time limit or a preemption."""
    pid = training.start("--workers", "1", before=group_of_its_own)
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) == 2)
    os.killpg(pid, number)
    assert training.wait(pid) == INTERRUPTED
    first, second = training.stderr.read_text().splitlines()
    assert first.endswith("step 0 of 4")
    assert second.endswith("saved and stopped after step 2 of 4; run the same command to continue")
    for command in ("predict", "evaluate"):  # or half a training stands in the tables like a whole one
        assert main([command, str(training.path), "--results", str(training.results), *RUN]) == 2
        assert "its training was stopped before its end; `pais-bench train` continues it" in capsys.readouterr().err
    assert_ends_like(training, whole)


def test_a_crash_ends_the_loader_processes() -> None:
    """Check that they end at the one SIGTERM that Python sends them at its end, before it waits for them."""
    crash = (
        "from pais_bench.data.loader import load_packed\n"
        "loaded = load_packed(abs, range(99), 2, pin_memory=False)\n"  # a name that lives as long as the program
        "for packed in loaded:\n"
        "    raise ValueError('a bug')"
    )
    done = subprocess.run([sys.executable, "-c", crash], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "ValueError: a bug"


def test_a_second_ctrl_c_ends_without_saving(training: Training, whole: Training) -> None:
    pid = training.start("--workers", "1", before=deaf_evaluation)
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) == 2)
    begin = time.monotonic()
    for _ in range(2):
        time.sleep(0.3)
        os.killpg(pid, signal.SIGINT)
    assert training.wait(pid) == 130 and time.monotonic() - begin < 20
    text = training.stderr.read_text()
    assert "ended by Ctrl-C; run the same command to continue" in text and "Traceback" not in text, text
    assert_ends_like(training, whole)


def test_a_training_that_ctrl_c_stops_in_a_terminal_has_not_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Check the shell command of the workflow's rule in a terminal, which signals shell, tee and Python at once."""
    training = Training(tmp_path, steps=2000)
    study, results = shlex.quote(str(training.path)), shlex.quote(str(training.results))
    log = training.results / "logs" / training.folder.relative_to(training.results) / "train.log"
    log.parent.mkdir(parents=True)
    command = f"{sys.executable} -m pais_bench train {study} --results {results} {' '.join(RUN)} --workers 1"
    script = f"set -euo pipefail; trap '' TERM USR1; {command} 2>&1 | tee -i {shlex.quote(str(log))}"
    pid, terminal = pty.fork()
    if not pid:
        os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        os.execlp("bash", "bash", "-c", script)
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) >= 2)
    os.write(terminal, b"\x03")
    assert training.wait(pid) == INTERRUPTED
    os.close(terminal)
    lines = log.read_text().splitlines()
    first, second = lines[0], lines[-1]
    assert first.endswith("step 0 of 2000") and "Traceback" not in str(lines)
    assert "saved and stopped after step " in second and second.endswith("run the same command to continue")
    step = torch.load(training.folder / "checkpoint.pt", weights_only=True)["step"]
    assert f"after step {step} of 2000" in second
    assert main(["failures", str(training.path), "--results", str(training.results)]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[-2:] == [
        "no run failed",
        f"1 of the runs of {training.path} stopped; run the same command to continue",
    ]


def test_a_second_trainer_of_a_run_is_refused_and_names_the_first(training: Training, whole: Training) -> None:
    def job() -> None:
        os.environ["SLURM_JOB_ID"] = "4711"
        lock.BEAT = 0.2
        slow_evaluation()

    first = training.start(before=job)
    wait_until(lambda: (training.folder / "log.jsonl").exists() and len(training.log()) == 2)
    second = Training.__new__(Training)
    second.__dict__ = {**training.__dict__, "stderr": training.path.with_name("second.txt")}
    assert second.train(before=lambda: setattr(lock, "BEAT", 0.2)) == 2
    second.assert_refused(f"process {first} on ", "SLURM job 4711, since 20", "wait for it, or end it")
    os.kill(first, signal.SIGKILL)
    assert training.wait(first) == -signal.SIGKILL and (training.folder / "lock.json").exists()
    assert_ends_like(training, whole)


def test_no_rank_outlives_the_first(tmp_path: Path) -> None:
    """A rank that waits in a collective of its GPU is not told that another ended; here it is halted instead."""
    training = Training(tmp_path, steps=2000)
    words = ["train", str(training.path), "--results", str(training.results), *RUN, "--devices", "2"]
    command = [sys.executable, "-m", "pais_bench", *words, "--accelerator", "cpu"]
    first = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    try:
        wait_until((training.folder / "log.jsonl").exists, seconds=400)
        (second,) = map(int, Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split())
        os.kill(second, signal.SIGSTOP)
    finally:
        first.kill()
        first.wait()
    try:
        wait_until(lambda: has_ended(second))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(second, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or waits for its parent to ask how it ended."""
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z"


def foreign_lock(folder: Path) -> Path:
    """Write a lock as another machine would."""
    lock.Lock(folder, beat=100).__enter__()
    path = folder / "lock.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"host": "node17", "pid": 77, "token": "theirs"}))
    return path


def test_an_untouched_lock_is_taken_over(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path)
    begin = time.monotonic()
    with lock.Lock(tmp_path, beat=0.1, stale=0.5) as ours:
        assert time.monotonic() - begin > 0.4
        ours.check()
        touched = path.stat().st_mtime_ns
        wait_until(lambda: path.stat().st_mtime_ns > touched)
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_holds_no_lock(training: Training) -> None:
    assert not is_held(training.folder)
    pid = training.start(before=slow_evaluation)
    wait_until(lambda: (training.folder / "log.jsonl").exists())
    assert is_held(training.folder)
    os.kill(pid, signal.SIGKILL)
    training.wait(pid)
    assert (training.folder / "lock.json").exists() and not is_held(training.folder)


def test_a_touched_lock_of_another_machine_is_respected(tmp_path: Path) -> None:
    path = foreign_lock(tmp_path)
    touching = threading.Timer(0.3, lambda: os.utime(path))
    touching.start()
    with pytest.raises(BenchError, match=r"process 77 on node17, since .*, trains here, and was alive"):
        lock.Lock(tmp_path, beat=0.1, stale=20).__enter__()
    touching.join()
    assert path.exists()


def test_a_lost_lock_is_reported_before_a_checkpoint_is_written(tmp_path: Path) -> None:
    with lock.Lock(tmp_path, beat=100) as ours:
        path = tmp_path / "lock.json"
        path.write_text(json.dumps({"host": "node17", "pid": 77, "since": "now", "token": "theirs"}))
        with pytest.raises(BenchError, match="taken over by process 77 on node17, since now; nothing more is written"):
            ours.check()
    assert path.exists()


@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_of_many_that_take_over_a_stale_lock_one_gets_it(
    pause: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign_lock(tmp_path)
    rename = os.rename
    # Each waits between the comparison and the removal of the stale lock.
    monkeypatch.setattr(os, "rename", lambda *paths: (time.sleep(pause), rename(*paths)))
    held: list[lock.Lock] = []

    def take() -> None:
        with contextlib.suppress(BenchError):
            held.append(lock.Lock(tmp_path, beat=0.05, stale=0.3).__enter__())

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    held[0].__exit__()


def test_a_file_size_limit_loses_no_step(training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == INTERRUPTED
    size = (training.folder / "checkpoint.pt").stat().st_size
    for limit in (size // 2, size - 64):  # torch's writer has errors of its own for the second
        assert training.train(before=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) == 2
        training.assert_refused("file too large; raise the limit of a file's size")
    assert not (training.folder / "checkpoint.tmp").exists()
    assert_ends_like(training, whole)


def test_a_full_disk_loses_no_step(training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == INTERRUPTED
    before = training.weights()
    (training.folder / "checkpoint.tmp").symlink_to("/dev/full")
    assert training.train() == 2
    training.assert_refused("no space left on device; free some space")
    assert all(torch.equal(value, before[name]) for name, value in training.weights().items())
    assert_ends_like(training, whole)


def open_to_all(training: Training) -> None:
    """Let another user than root look into the folders above the results."""
    if os.geteuid() == 0 and not (training.path.parent.stat().st_mode & 0o005):
        for folder in (training.path.parent, *training.path.parent.parents[:-2]):
            folder.chmod(folder.stat().st_mode | 0o055)


def leave_root() -> None:
    """Become a user whom permissions bind."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def test_a_read_only_results_folder_is_named(training: Training) -> None:
    def drop_permissions() -> None:
        for folder in (training.path.parent, *training.results.rglob("*")):
            if folder.is_dir():
                folder.chmod(0o555)
        training.results.chmod(0o555)
        leave_root()

    open_to_all(training)
    assert training.train(before=drop_permissions) == 2
    training.assert_refused(str(training.results / "runs"), "permission denied; choose another folder, or ask")


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(training: Training) -> None:
    assert training.train(before=until_step(training, 3)) == INTERRUPTED
    open_to_all(training)
    training.folder.chmod(0o777)
    (training.folder / "checkpoint.pt").chmod(0)
    assert training.train(before=leave_root) == 2
    training.assert_refused("checkpoint.pt: permission denied")
    assert "damaged" not in training.stderr.read_text() and "delete" not in training.stderr.read_text()


ALLOCATED: list[bytearray] = []


def test_memory_that_runs_out_is_reported_and_loses_no_step(training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == INTERRUPTED

    def limit_memory() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, used + 2**23))
        with contextlib.suppress(MemoryError):  # allocate what earlier tests have freed too, but for 2 MB
            while True:
                ALLOCATED.append(bytearray(2**16))
        del ALLOCATED[-32:]

    def limit_memory_of_steps() -> None:  # not of the lock: a thread of Python 3.11 that gets none at its start hangs
        fit = Trainer.fit

        def limited(self: Trainer, *arguments: Any, **options: Any) -> None:
            limit_memory()
            fit(self, *arguments, **options)

        Trainer.fit = limited  # type: ignore[method-assign]

    assert training.train(before=limit_memory_of_steps) == 2, training.stderr.read_text()
    training.assert_refused("out of memory; ask for more of it")
    assert_ends_like(training, whole)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_image_that_disappears_during_training_is_named(workers: str, training: Training, whole: Training) -> None:
    assert training.train(before=until_step(training, 1)) == INTERRUPTED
    images = {path: path.read_bytes() for path in training.results.rglob("train/*.png")}
    for path in images:
        path.unlink()
    assert training.train("--workers", workers) == 2
    training.assert_refused(".png: no such image", "put it there")
    for path, content in images.items():
        path.write_bytes(content)
    assert_ends_like(training, whole)


def test_a_loss_that_is_not_finite_is_reported(training: Training) -> None:
    steep = study(methods={"supervised": {"training": {"lr": 1e30, "grad_clip": None, "warmup_steps": 0}}})
    training.path.write_text(yaml.safe_dump(steep))
    training.folder = training.results / load_study(training.path).runs()[0].folder
    assert training.train() == 2
    training.assert_refused("loss not finite at step", "labelled/", "lower training.lr")
