"""Does the plan count what is done, measure what is left, and does the digest name what failed and how it goes on?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import study, write_study

from pais_bench import cli
from pais_bench.config import Run
from pais_bench.demands import Demand, demand
from pais_bench.study_file import load_study
from pais_bench.types import BenchError

ROOT = Path(__file__).parent.parent


def logged(results: Path, run: Run, steps: int, seconds: float) -> Path:
    """Leave the log of a run that got so far, with the line that was being written."""
    folder = results / run.folder
    folder.mkdir(parents=True)
    line = json.dumps({"event": "step", "step": steps, "seconds": seconds})
    (folder / "log.jsonl").write_text(line + '\n{"event": "st')
    return folder


def test_a_plan_before_the_first_run_knows_the_grid_and_no_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, split={"percents": [5, 10], "folds": [1, 2]})
    assert cli.main(["plan", str(path), "--results", str(tmp_path / "results")]) == 0
    told = capsys.readouterr().out
    assert "tiny: 12 runs; 0 trained, 0 predicted, 0 evaluated, 0 begun" in told
    assert "unknown, because no run of theirs has been logged: torchvision/mask_rcnn mean_teacher" in told
    assert "hours: unknown" in told and "disk: unknown" in told


def test_a_plan_measures_what_is_left_and_chains_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = {"supervised": {}, "data_distillation": {"teacher": "supervised"}}
    training = study()["training"] | {"steps": 1000}
    resources = {"default": {"partition": "cpu"}, "train": {"gpus": 2}}
    path = write_study(tmp_path, methods=methods, training=training, resources=resources)
    results = tmp_path / "results"
    supervised, distilled = load_study(path).runs()
    logged(results, supervised, 400, 40 * 36.0)  # 3.6 s a step, 600 steps are left: 0.6 h
    folder = logged(results, distilled, 500, 500 * 7.2)  # 500 steps are left: 1 h
    assert cli.main(["plan", str(path), "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "2 runs; 0 trained, 0 predicted, 0 evaluated, 2 begun" in told
    assert "torchvision/mask_rcnn supervised: 3600 ms a step, measured" in told
    assert "device hours left: 3.2\n" in told and "longest chain left: 1.6 hours" in told
    (folder / "run.json").write_bytes(bytes(10**7))
    assert cli.main(["plan", str(path), "--results", str(results)]) == 0
    told = capsys.readouterr().out
    assert "1 trained" in told and "device hours left: 1.2\n" in told and "0.02 GB at the end, by the 1 trained" in told


def test_a_failed_run_is_listed_with_its_last_words_and_its_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path)
    results = tmp_path / "results"
    failed, running, done = load_study(path).runs()
    for run in (failed, running, done):
        log = results / "logs" / run.folder / "train.log"
        log.parent.mkdir(parents=True)
        log.write_text("".join(f"line {number}\n" for number in range(20)))
        (results / run.folder).mkdir(parents=True)
    (results / running.folder / "lock.json").touch()
    (results / done.folder / "run.json").touch()
    words = ["failures", str(path), "--results", str(results), "--lines", "2", "--python", "torchvision=/opt/python"]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert told.count("goes on: ") == 1 and "line 18\n    line 19\n" in told and "line 17" not in told
    asked = f"/opt/python -m pais_bench train {path} --results {results} --percent 10 --fold 1 --network mask_rcnn"
    assert f"goes on: {asked} --method supervised" in told


def test_a_grid_that_fails_ends_with_its_failures(tmp_path: Path) -> None:
    methods = {"supervised": {}, "steep": {"name": "supervised", "training": {"lr": 1e30, "warmup_steps": 0}}}
    path = write_study(tmp_path, methods=methods)
    words = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--cores", "1", "--keep-going"]
    config = [f"study={path}", f"results={tmp_path}/results", f"python={sys.executable}"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words, "--scheduler", "greedy", "--config", *config],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode != 0
    digest = done.stderr[done.stderr.index(f"1 of the runs of {path} failed") :]
    assert "loss not finite at step" in digest and "--method steep" in digest and "Traceback" not in digest


def test_a_demand_is_its_own_keys_over_the_defaults() -> None:
    asked = {"default": Demand(partition="cpu", mem_mb=1000), "train": Demand(partition="gpu", gpus=2)}
    assert demand(asked, "train") == Demand(partition="gpu", mem_mb=1000, gpus=2)  # type: ignore[arg-type]
    assert demand(asked, "report") == Demand(partition="cpu", mem_mb=1000)  # type: ignore[arg-type]


def test_later_attempts_ask_for_more_up_to_what_a_node_has() -> None:
    asked = Demand(mem_mb=3000, max_mem_mb=8000, minutes=60)
    assert [asked.grown("mem_mb", attempt) for attempt in (1, 2, 3, 4)] == [3000, 6000, 8000, 8000]
    assert [asked.grown("minutes", attempt) for attempt in (1, 2, 3)] == [60, 120, 180]
    assert Demand(mem_mb=9000, max_mem_mb=8000).grown("mem_mb", 2) == 9000  # of default, say: the first attempt counts


def test_resources_change_no_run_and_typos_are_named(tmp_path: Path) -> None:
    plain = load_study(write_study(tmp_path)).runs()
    assert load_study(write_study(tmp_path, resources={"train": {"gpus": 4}})).runs() == plain
    with pytest.raises(BenchError, match="unknown key 'resources.train.gpu'"):
        load_study(write_study(tmp_path, resources={"train": {"gpu": 4}}))
    with pytest.raises(BenchError, match="several nodes are for trainings on all GPUs of each"):
        load_study(write_study(tmp_path, resources={"train": {"nodes": 2}}))
