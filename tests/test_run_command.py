"""Check the command run: the view of the runs, its refusals, Ctrl-C, and a wheel of the package in an empty folder."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomllib
from rich.console import Console
from snakemake.cli import parse_config
from tiny import SUPERVISED_AND_PAIS, study, write_study

from pais_bench.cli.commands import run as run_command
from pais_bench.cli.main import main
from pais_bench.study.load import load_study
from pais_bench.workflow import view
from pais_bench.workflow.controller import Controller
from pais_bench.workflow.progress import Progress, RunProgress

ROOT = Path(__file__).parent.parent
LONG = study()["training"] | {"steps": 1000, "milestones": [900], "evaluate_every": 500}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pais_bench", "run", *map(str, words)]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


class Grid:
    """Hold a study of two runs whose files the test writes."""

    def __init__(self, folder: Path) -> None:
        path = write_study(folder, methods=SUPERVISED_AND_PAIS, training=LONG)
        self.results = folder / "results"
        self.progress = Progress(load_study(path), self.results)
        self.supervised, self.pais = (self.results / run.folder for run in load_study(path).runs())
        for run in (self.supervised, self.pais):
            run.mkdir(parents=True)

    def log(self, run: Path, step: int, seconds: float, ap: float | None = None) -> None:
        lines: list[dict[str, Any]] = [{"event": "step", "step": step, "seconds": seconds}]
        if ap is not None:
            lines.append({"event": "evaluation", "step": step, "teacher": {"segm_AP": ap}, "student": {"segm_AP": 1}})
        with (run / "log.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def finish(self, run: Path, ap: float) -> None:
        (run / "lock.json").unlink()
        for name in ("run.json", "predictions.json"):
            (run / name).write_text("{}")
        (run / "metrics.json").write_text(json.dumps({"segm": {"AP": ap}}))


def rendered(runs: list[RunProgress], rows: int = 9, note: str = "") -> list[str]:
    """Return the lines of the table in a terminal without colours."""
    console = Console(file=io.StringIO(), width=120)
    console.print(view.table(runs, rows, note))
    assert isinstance(console.file, io.StringIO)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip(" ─")]


def test_the_table_before_within_and_after_a_study(tmp_path: Path) -> None:
    grid = Grid(tmp_path)
    first = grid.progress.read()
    assert rendered(first, note="environment [red]: installing") == [
        "0 of 2 runs done, 2 waiting, time left unknown before the first logged step",
        "split network method state step steps/s left mask AP",
        "10pct-fold1 torchvision/mask_rcnn supervised waiting 0 of 1000 – – –",
        "10pct-fold1 torchvision/mask_rcnn pais waiting 0 of 1000 – – –",
        "environment [red]: installing",
    ]
    for run in (grid.supervised, grid.pais):
        (run / "lock.json").touch()
    grid.log(grid.supervised, 500, 500 * 1.2, 0.1234)
    (grid.pais / "log.jsonl").write_text('{"event": "step", "step": 1, "sec')
    second = grid.progress.read()
    # 500 steps of 1.2 s are left of the one; the other has no step yet, and 1000 at the same pace are 20 minutes.
    assert rendered(second) == [
        "0 of 2 runs done, 2 training, about 20 min of training left",
        "split network method state step steps/s left mask AP",
        "10pct-fold1 torchvision/mask_rcnn supervised training 500 of 1000 0.833 10 min 12.3",
        "10pct-fold1 torchvision/mask_rcnn pais training 0 of 1000 – – –",
    ]
    assert list(view.news(first, second)) == [
        "10pct-fold1 torchvision/mask_rcnn supervised: training, step 500 of 1000, mask AP 12.3",
        "10pct-fold1 torchvision/mask_rcnn pais: training, step 0 of 1000",
    ]
    (grid.pais / "log.jsonl").unlink()
    grid.log(grid.supervised, 1000, 1200, 0.2)
    grid.log(grid.pais, 600, 600 * 6.0, float("nan"))
    grid.finish(grid.supervised, 0.25)
    (grid.pais / "lock.json").unlink()
    third = grid.progress.read()
    assert rendered(third)[0] == "1 of 2 runs done, 1 stopped, about 40 min of training left"
    assert rendered(third)[2:] == [
        "10pct-fold1 torchvision/mask_rcnn supervised done 1000 of 1000 0.833 – 25.0",
        "10pct-fold1 torchvision/mask_rcnn pais stopped 600 of 1000 0.167 – –",
    ]
    assert list(view.news(second, third))[0].endswith("supervised: done, mask AP 25.0")
    assert list(view.news(second, third))[2] == rendered(third)[0]
    assert rendered(third, rows=1)[2:] == [
        "10pct-fold1 torchvision/mask_rcnn pais stopped 600 of 1000 0.167 – –",
        "and 1 more: 1 done",
    ], "what is under way comes first where the terminal is low"


def test_a_log_that_a_resumed_training_wrote_anew_is_read_again(tmp_path: Path) -> None:
    grid = Grid(tmp_path)
    grid.log(grid.pais, 400, 40.0, 0.5)
    assert (grid.progress.read()[1].step, grid.progress.read()[1].ap) == (400, 0.5)
    log = grid.pais / "log.jsonl"
    log.rename(log.with_suffix(".before"))
    grid.log(grid.pais, 300, 30.0)
    grid.log(grid.pais, 350, 35.0)
    last = grid.progress.read()[1]
    assert (last.step, last.seconds, last.ap) == (350, 35.0, None)


SMI = """#!/bin/sh
echo "NVIDIA H100 80GB HBM3, 535.104.05, 9.0, 81559, 61079, 87"
echo "NVIDIA H100 80GB HBM3, 535.104.05, 9.0, [N/A], [N/A], [N/A]"
"""


def test_a_log_that_vanishes_while_it_is_read_ends_no_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Move it between the look at its size and its opening, as a training on other data may."""
    grid, original = Grid(tmp_path), Path.open
    grid.log(grid.pais, 100, 50.0)

    def vanish(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "log.jsonl":
            path.unlink(missing_ok=True)
        return original(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", vanish)
        assert [run.state for run in grid.progress.read()] == ["waiting", "waiting"]
    grid.log(grid.pais, 200, 90.0)
    assert [run.step for run in grid.progress.read()] == [0, 200]


def test_top_prints_the_runs_and_the_gpus_of_this_machine(tmp_path: Path) -> None:
    """Let the driver be a script, as its words are the interface."""
    grid = Grid(tmp_path)
    (grid.pais / "lock.json").touch()
    grid.log(grid.pais, 400, 200.0, 0.5)
    words = [sys.executable, "-m", "pais_bench", "top", str(tmp_path / "tiny.yaml"), "--results", str(grid.results)]
    path = tmp_path / "bin" / "nvidia-smi"
    for script in ("", SMI):
        if script:
            path.parent.mkdir()
            path.write_text(script)
            path.chmod(0o755)
        variables = environment(PATH=f"{path.parent}:{os.environ['PATH']}")
        done = subprocess.run(words, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
        assert lines[0] == "0 of 2 runs done, 1 training, 1 waiting, about 13 min of training left"
        assert "10pct-fold1 torchvision/mask_rcnn pais training 400 of 1000 2 5 min 50.0" in lines
        expected = ["GPU 0 NVIDIA H100 80GB HBM3: 87 %, 59.6 of 79.6 GiB are free"]
        expected += ["GPU 1 NVIDIA H100 80GB HBM3: ? %, memory unknown"]
        assert [line for line in lines if line.startswith("GPU")] == (expected if script else [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "nowhere"], "--profile nowhere: no folder with a config.yaml; name local, slurm, or such"),
        (["--", "--config", "results=x"], "--config results=x: name the study and --results before `--`"),
        (["--results", "set #2"], "set #2: Snakemake takes what follows ' #' for a comment"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path)
    assert main(["run", str(path), "--results", str(tmp_path / "results"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pais-bench run: error: ") and message in line
    assert not (tmp_path / "results").exists()


def test_a_target_is_made_where_trainings_request_a_gpu(tmp_path: Path) -> None:
    path, results = write_study(tmp_path, resources={"train": {"gpus": 1}}), tmp_path / "results"
    (split,) = {run.split for run in load_study(path).runs()}
    target = results / "splits" / "shapes" / split.family / f"{split.stem}.json"
    flags = [str(target), "--config", f"python={sys.executable}", "--resources", "mem_mb=8000", "devices=3"]
    done = subprocess.run(
        command(path, "--results", results, "-n", "--", *flags), env=environment(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "        prepare, split\n" in text, "and nothing else"
    command_line = run_command._snakemake(
        Namespace(study="s.yaml", results=Path("r"), flags=flags, dry_run=False), Path("p"), [], ["devices=1"]
    )
    start = command_line.index("--resources")
    assert command_line[start : start + 4] == ["--resources", "devices=1", "mem_mb=8000", "devices=3"]


def test_slurm_writes_its_logs_into_the_results_folder() -> None:
    arguments = Namespace(study="s.yaml", results=Path("/scratch/r"), flags=[], dry_run=False)
    command_line = run_command._snakemake(arguments, ROOT / "profiles" / "slurm", [], [])
    assert command_line[command_line.index("--slurm-logdir") + 1] == "/scratch/r/logs/slurm"
    assert "--slurm-logdir" not in run_command._snakemake(arguments, ROOT / "profiles" / "local", [], [])


@pytest.mark.parametrize(
    "name", ["20251127_2", "007", "1.10", "1e5", "true", "results", "/data/a b/r", "@r", "[x]", "it's", "x.yaml"]
)
def test_a_path_is_no_number_to_snakemake(name: str) -> None:
    (value,) = parse_config([f"results={run_command._plain(name)}"]).values()
    assert os.path.normpath(value) == name


def test_two_runs_of_a_study_have_logs_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "tiny.log"
    first = Controller(["sh", "-c", "echo one; sleep 1; echo two"], log)
    second = Controller(["sh", "-c", "echo 'pais-bench train: error: refused'"], log)
    assert (second.wait(20), first.wait(20)) == (0, 0)
    assert first.last_lines(5) == ["one", "two"] and second.errors() == ["pais-bench train: error: refused"]
    assert Controller(["true"], log).wait(20) == 0
    assert log.read_text() == "", "it is written anew"


class Interrupting(list[str]):
    """Hold a command that sends the Ctrl-C of a terminal to this process while it is started."""

    def __iter__(self) -> Iterator[str]:
        os.kill(os.getpid(), signal.SIGINT)
        return super().__iter__()


def test_ctrl_c_while_the_workflow_starts_reaches_it(tmp_path: Path) -> None:
    controller = Controller(Interrupting(["sleep", "30"]), tmp_path / "workflow.log")
    assert controller.wait(20) == -signal.SIGINT and controller.signals == [signal.SIGINT]


@pytest.mark.parametrize("nohup", [False, True])
def test_the_end_of_a_terminal_ends_the_workflow_unless_nohup_started_it(tmp_path: Path, nohup: bool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    try:
        controller = Controller(["sleep", "2"], tmp_path / "workflow.log")
        os.kill(os.getpid(), signal.SIGHUP)
        assert controller.wait(20) == (0 if nohup else -signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if nohup else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_workflow_that_nobody_can_watch_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Close the pipe of stderr, as in `pais-bench run STUDY 2>&1 | head`."""
    progress = Progress(load_study(write_study(tmp_path)), tmp_path / "results")
    reader, writer = os.pipe()
    os.close(reader)
    controller = Controller(["sleep", "30"], tmp_path / "workflow.log")
    with os.fdopen(writer, "wb", buffering=0) as closed:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(closed, write_through=True))
        with pytest.raises(BrokenPipeError):
            run_command._watch(controller, progress)
        sys.stderr.detach()
    assert controller.wait(0) == -signal.SIGINT


def test_a_job_that_fails_is_named_with_its_exit_code_and_its_log(tmp_path: Path) -> None:
    """Let the data be refused by prepare, so that no training starts, in an interpreter that is not built first."""
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train.json").write_text('{"images": 3}')
    names = {"train_annotations": "train.json", "train_images": "train"}
    options = names | {name.replace("train", "val"): value for name, value in names.items()}
    write_study(tmp_path, dataset={"name": "coco", "label": "mine", "root": "data", "options": options})
    words = command("tiny.yaml", "--", "--config", f"python={sys.executable}")
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    fault, end = done.stderr.splitlines()[-2:]
    assert fault.startswith("pais-bench prepare: error: ") and "train.json" in fault
    assert end.startswith("pais-bench run: error: the workflow ended with exit code 1; results/logs/workflow/tiny.log")
    assert fault in (tmp_path / "results/logs/workflow/tiny.log").read_text()


def test_ctrl_c_saves_the_trainings_and_the_same_command_continues(tmp_path: Path) -> None:
    training = LONG | {"steps": 100000, "milestones": [90000], "evaluate_every": 100000}
    path = write_study(tmp_path, methods={"supervised": {}}, training=training)
    (run,) = load_study(path).runs()
    folder = tmp_path / "results" / run.folder
    words = command("tiny.yaml", "--", "--config", f"python={sys.executable}")
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "log.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "pais-bench run: ended by Ctrl-C; run the same command to continue"
    assert (folder / "checkpoint.pt").exists() and not (folder / "lock.json").exists()
    (one,) = Progress(load_study(path), tmp_path / "results").read()
    assert one.state == "stopped" and one.step > 0


def test_the_extras_require_what_the_environments_do() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = ("torchvision", "workflow")
    lines = {
        line.split("#")[0].strip() for name in names for line in (ROOT / f"envs/{name}.in").read_text().splitlines()
    }
    wanted = {line.replace("[reports]", "") for line in lines}
    alone = {"timm": "timm>=1.0.20", "clip": "open-clip-torch>=3", "sam": "transformers>=4.56"}  # in no environment
    assert all(extras.pop(name) == ["pais-bench[torchvision]", package] for name, package in alone.items())
    assert {line for extra in extras.values() for line in extra if not line.startswith("pais-bench[")} <= wanted


def test_an_installed_package_runs_from_an_empty_folder(tmp_path: Path) -> None:
    """Build a wheel and import it from where it is unpacked, so that nothing of the checkout is found."""
    source, site, home = tmp_path / "source", tmp_path / "site", tmp_path / "cache"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("envs", "pais_bench", "profiles", "rules"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("Snakefile", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import setuptools.build_meta; setuptools.build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    empty = tmp_path / "empty"
    empty.mkdir()
    variables = environment(PYTHONPATH=str(site), XDG_CACHE_HOME=str(home))
    quiet = ("--", "--quiet", "host")
    for study_name, backends in (("demo", {"torchvision"}), ("backends", {"torchvision", "mmdet", "detectron2"})):
        words = command(study_name, "-n", *quiet)
        done = subprocess.run(words, cwd=empty, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        built = set(re.findall(rf"output: {re.escape(str(home))}/pais_bench/.envs/(\w+)-", done.stdout))
        # All of a study's frameworks have to be here for this Python to train it.
        assert built == (set() if study_name == "demo" else backends)
    assert not [path for path in empty.iterdir() if path.name != ".snakemake"], "a dry-run makes no results"
    builder = runpy.run_path(str(site / "pais_bench/_project/envs/build.py"))
    assert builder["folder"]("torchvision") == runpy.run_path(str(ROOT / "envs/build.py"))["folder"]("torchvision")
