"""Check the command log-to: every number of a log once, also when it is started again or follows a training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pais_bench.cli.main import main
from pais_bench.loggers.base import numbers_of

ROOT = Path(__file__).parent.parent
NAME = "shapes/10pct-fold1/torchvision-mask_rcnn/pais-0123abcd"


def step(number: int, loss: float = 0.5) -> dict[str, Any]:
    losses = {"labelled/mask": loss, "unlabelled/mask": float("nan")}
    head = {"event": "step", "step": number, "seconds": number / 4, "lr": 0.001}
    return {**head, "loss": losses, "pseudo": {"precision": 0.25, "sample": [[1, 2]]}, "skipped": False}


def evaluation(number: int, ap: float = 0.125) -> dict[str, Any]:
    models = {model: {"segm_AP": ap, "segm_AP50": None} for model in ("student", "teacher")}
    return {"event": "evaluation", "step": number, "seconds": number / 4, "images_seen": 12 * number, **models}


LINES = [step(10), step(20), evaluation(20), step(30)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "runs" / NAME
    folder.mkdir(parents=True)
    write(folder, LINES)
    return folder


def write(run: Path, lines: list[dict[str, Any]], mode: str = "w") -> None:
    with (run / "log.jsonl").open(mode) as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pais_bench", "log-to", *map(str, words)]


def call(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, **variables}
    return subprocess.run(command(*words), cwd=folder, env=environment, capture_output=True, text=True)


def events(folder: Path) -> Counter[tuple[str, int, float, float]]:
    """Return the numbers of all event files: name, step, time and value."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found: Counter[tuple[str, int, float, float]] = Counter()
    for path in folder.rglob("events.out.tfevents.*"):
        for event in loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                found[value.tag, event.step, event.wall_time, round(value.tensor.float_val[0], 6)] += 1
    return found


def expected(lines: list[dict[str, Any]]) -> Counter[tuple[str, int, float, float]]:
    return Counter(
        (name, line["step"], line["seconds"], value) for line in lines for name, value in numbers_of(line).items()
    )


def test_the_numbers_of_a_line_are_finite_and_named_by_their_place() -> None:
    common = {"training/seconds": 2.5, "training/lr": 0.001, "training/pseudo/precision": 0.25}
    assert numbers_of(step(10)) == {**common, "training/loss/labelled/mask": 0.5}
    common = {"evaluation/seconds": 5, "evaluation/images_seen": 240}
    assert numbers_of(evaluation(20)) == {
        **common,
        **{f"evaluation/{m}/segm_AP": 0.125 for m in ("student", "teacher")},
    }


def test_every_number_is_an_event_once_also_of_a_log_that_was_written_anew(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    done = call(tmp_path, "tensorboard", run)
    assert done.returncode == 0 and "4 new lines of 1 runs sent to tensorboard, tensorboard" in done.stderr, done.stderr
    assert events(tmp_path / "tensorboard" / NAME) == expected(LINES)
    # A resumed training takes the lines after its checkpoint back, and writes them again.
    (run / "log.jsonl").unlink()
    more = [*LINES, evaluation(40), step(40)]
    write(run, more)
    (run / "data-01234567").mkdir()
    write(run / "data-01234567", [step(99)])
    with (run / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "step": 50, "sec')
    done = call(tmp_path, "tensorboard", "results")
    assert "2 new lines of 1 runs" in done.stderr, done.stderr
    assert events(tmp_path / "tensorboard") == expected(more), "neither twice, nor of other data, nor half a line"


def test_it_follows_trainings_and_those_that_begin_later(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = command("tensorboard", tmp_path / "results", "--to", tmp_path / "events", "--follow")
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    wanted = expected(LINES)
    try:
        for round_ in range(2):
            deadline = time.monotonic() + 60
            while events(tmp_path / "events") != wanted:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
            if round_ == 0:
                write(run, [step(40)], "a")
                other = run.with_name("supervised-89ab0123")
                other.mkdir()
                write(other, LINES)
                wanted = expected([*LINES, step(40), *LINES])
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert events(tmp_path / "events" / NAME) == expected([*LINES, step(40)])


def test_every_number_is_a_metric_of_mlflow_once(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    variables = {"MLFLOW_TRACKING_URI": (tmp_path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
    assert "4 new lines" in call(tmp_path, "mlflow", run, **variables).stderr
    write(run, [step(40)], "a")
    (run / "run.json").write_text("{}")
    assert "1 new lines" in call(tmp_path, "mlflow", run, **variables).stderr
    metrics = [path for path in (tmp_path / "mlruns").glob("*/*/metrics/**/*") if path.is_file()]
    logged: Counter[tuple[str, int, float, float]] = Counter()
    for path in metrics:
        name = path.as_posix().partition("/metrics/")[2]
        for line in path.read_text().splitlines():
            milliseconds, value, number = line.split()[:3]
            logged[name, int(number), int(milliseconds) / 1000, float(value)] += 1
    assert logged == expected([*LINES, step(40)])


def test_an_offline_run_of_wandb_is_not_logged_twice(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    other = run.with_name("supervised-89ab0123")
    other.mkdir()
    write(other, [step(10)])
    done = call(tmp_path, "wandb", "results", WANDB_MODE="offline")
    assert done.returncode == 0 and "5 new lines of 2 runs" in done.stderr, done.stderr
    written = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_size)
    few, many = (path.read_bytes() for path in written)
    assert many.count(b"training/loss/labelled/mask") - few.count(b"training/loss/labelled/mask") >= 2
    assert b"evaluation/teacher/segm_AP" in many and b"evaluation/teacher/segm_AP" not in few
    done = call(tmp_path, "wandb", run, WANDB_MODE="offline")
    assert done.returncode == 2 and "send it with `wandb sync`, or remove it" in done.stderr
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 2


@pytest.mark.parametrize("service", ["tensorboard", "wandb", "mlflow"])
def test_an_absent_package_is_named_with_the_command_that_installs_it(
    service: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == service]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if not (Path(path) / service).is_dir()])
    assert main(["log-to", service, str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the package '{service}' is not installed in {sys.executable}; install it there: pip install" in line


def test_a_folder_without_a_run_and_a_broken_line_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log-to", "tensorboard", str(tmp_path / "nothing")]) == 2
    assert "nothing: no run has a log here; name the folder of a run, below results/runs/" in capsys.readouterr().err
    pytest.importorskip("tensorboard")
    write(run, [{"step": 40}], "a")
    done = call(tmp_path, "tensorboard", run)
    assert done.returncode == 2 and 'log.jsonl: has a line that is none of a log, {"step": 40}; remove' in done.stderr
    assert events(tmp_path / "tensorboard") == expected(LINES), "what is before it is sent"
