"""Check the commands plan and failures, and the resources that the jobs of a study request."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from forked_snakemake import snakemake
from tiny import study, write_study

from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.study.load import load_study
from pais_bench.study.resources import Resources, resources_for
from pais_bench.study.run import Run

ROOT = Path(__file__).parent.parent


def logged(results: Path, run: Run, steps: int, seconds: float) -> Path:
    """Write the log of a run at a step, with a line that is being written."""
    folder = results / run.folder
    folder.mkdir(parents=True)
    line = json.dumps({"event": "step", "step": steps, "seconds": seconds})
    (folder / "log.jsonl").write_text(line + '\n{"event": "st')
    return folder


def test_a_plan_before_the_first_run_has_the_grid_and_no_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, split={"percents": [5, 10], "folds": [1, 2]})
    assert main(["plan", str(path), "--results", str(tmp_path / "results")]) == 0
    plan = capsys.readouterr().out
    assert "tiny: 12 runs; 0 trained, 0 predicted, 0 evaluated, 0 started" in plan
    assert "unknown step time, no run is logged yet: torchvision/mask_rcnn mean_teacher" in plan
    assert "device hours left: unknown" in plan and "disk: unknown" in plan and "weights:" not in plan
    mask_rcnn = study()["networks"]["mask_rcnn"]
    options = {**mask_rcnn["options"], "pretrained_backbone": str(tmp_path / "resnet50.pth")}
    path = write_study(tmp_path, networks={"mask_rcnn": {**mask_rcnn, "options": options}})
    assert main(["plan", str(path), "--results", str(tmp_path / "results")]) == 0
    weights = f"weights: networks.mask_rcnn.options.pretrained_backbone: {tmp_path}/resnet50.pth is not there; "
    assert weights in capsys.readouterr().out


def test_a_plan_refuses_what_would_stop_the_study_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    results = tmp_path / "results"
    other = write_study(tmp_path, title="another").rename(tmp_path / "other.yaml")
    (results / "reports/tiny").mkdir(parents=True)
    (results / "reports/tiny/study.json").write_text(json.dumps({"study": str(other)}))
    (results / "datasets/shapes").mkdir(parents=True)
    classes = {"classes": [{"id": 1, "name": "disc"}]}
    (results / "datasets/shapes/dataset.json").write_text(json.dumps(classes))
    for changes, folder, message in (
        ({}, results, "other.yaml, another study of the name 'tiny'; give this study a name of its own"),
        ({"name": "mine", "metrics": ["coco", "cityscapes"]}, results, "category 1 'disc' is not a Cityscapes class"),
        (
            {"networks": {"knet": {"backend": "torchvision"}}, "methods": {"soft_teacher": {}}},
            results,
            "methods.soft_teacher: needs a network with a box scorer, which torchvision/knet has not",
        ),
        ({"name": "mine"}, tmp_path / "file/results", "file: is a file; let --results name a folder"),
    ):
        assert main(["plan", str(write_study(tmp_path, **changes)), "--results", str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    write_study(tmp_path)
    other.write_text((tmp_path / "tiny.yaml").read_text())
    assert main(["plan", str(tmp_path / "tiny.yaml"), "--results", str(results)]) == 0, "a copy of the same study"
    other.unlink()
    assert main(["plan", str(write_study(tmp_path, title="edited")), "--results", str(results)]) == 0, "renamed"


def test_a_plan_measures_the_rest_and_chains_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = {"supervised": {}, "data_distillation": {"teacher": "supervised"}}
    training = study()["training"] | {"steps": 1000}
    resources = {"default": {"partition": "cpu"}, "train": {"gpus": 2}}
    path = write_study(tmp_path, methods=methods, training=training, resources=resources)
    results = tmp_path / "results"
    supervised, distilled = load_study(path).runs()
    logged(results, supervised, 400, 40 * 36.0)  # 3.6 s a step, 600 steps are left: 0.6 h
    folder = logged(results, distilled, 500, 500 * 7.2)  # 500 steps are left: 1 h
    assert main(["plan", str(path), "--results", str(results)]) == 0
    plan = capsys.readouterr().out
    assert "2 runs; 0 trained, 0 predicted, 0 evaluated, 2 started" in plan
    assert "torchvision/mask_rcnn supervised: 3600 ms a step, measured" in plan
    assert "device hours left: 3.2\n" in plan and "longest chain left: 1.6 hours" in plan
    (folder / "run.json").write_bytes(bytes(10**7))
    assert main(["plan", str(path), "--results", str(results)]) == 0
    plan = capsys.readouterr().out
    assert "1 trained" in plan and "device hours left: 1.2\n" in plan and "0.02 GB at the end, by the 1 trained" in plan


def test_a_plan_counts_the_steps_of_a_shared_burn_in_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = {"supervised": {}, "mean_teacher": {}}
    training = study()["training"] | {"steps": 1000, "burn_in": 400}
    path = write_study(tmp_path, methods=methods, training=training, split={"percents": [5, 10]})
    results = tmp_path / "results"
    supervised, mean_teacher, *waiting = load_study(path).runs()
    for run, seconds in ((supervised.burn_in, 1440), (supervised, 3600), (mean_teacher, 1440 + 600 * 18)):
        (logged(results, run, run.training.steps, seconds) / "run.json").touch()
    assert main(["plan", str(path), "--results", str(results)]) == 0
    plan = capsys.readouterr().out
    assert "tiny: 4 runs; 2 trained" in plan and "burn-ins that runs of a split share: 1 of 2 trained" in plan
    assert "torchvision/mask_rcnn burn_in: 3600 ms a step, measured" in plan
    assert "device hours left: 4.0\n" in plan and "longest chain left: 3.4 hours" in plan
    logged(results, waiting[1], 500, 1440 + 100 * 18)  # half of 1,000 steps that take 12.24 s or 6.48 s: 1.3 h
    assert main(["plan", str(path), "--results", str(results)]) == 0
    assert "device hours left: 2.3\n" in capsys.readouterr().out


def test_a_burn_in_that_no_run_waits_for_costs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Have runs that trained these steps themselves, as before another method came to share them."""
    training = study()["training"] | {"steps": 1000, "burn_in": 400}
    path = write_study(tmp_path, methods={"supervised": {}, "mean_teacher": {}}, training=training)
    results = tmp_path / "results"
    first, second = load_study(path).runs()
    (logged(results, first, 1000, 3600) / "run.json").touch()
    assert main(["plan", str(path), "--results", str(results)]) == 0
    plan = capsys.readouterr().out
    assert "share: 0 of 1 trained" in plan and "burn_in" in plan.split("unknown step time", 1)[1]
    (logged(results, second, 1000, 3600) / "run.json").touch()
    assert main(["plan", str(path), "--results", str(results)]) == 0
    plan = capsys.readouterr().out
    assert "share: 1 of 1 trained" in plan and "unknown" not in plan and "device hours left: 0.0\n" in plan


def test_a_plan_tells_what_sam_adds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sam = tmp_path / "sam2"
    methods = {"supervised": {}, "sam_refined": {"options": {"sam": str(sam)}}}
    training = study()["training"] | {"steps": 1000, "burn_in": 400, "unlabelled_batch_size": 8}
    path = write_study(tmp_path, methods=methods, training=training, split={"percents": [5, 10]})
    results = tmp_path / "results"
    assert main(["plan", str(path), "--results", str(results)]) == 0
    assert f"  sam_refined: {sam}: no such folder; `sam` names the folder" in capsys.readouterr().out
    sam.mkdir()
    (sam / "config.json").touch()
    (sam / "model.safetensors").write_bytes(b"no header")
    assert main(["plan", str(path), "--results", str(results)]) == 0
    assert "model.safetensors: not a file of safetensors; download it again" in capsys.readouterr().out
    header = json.dumps({"__metadata__": {}, "a": {"shape": [2000, 1000]}, "b": {"shape": [500_000]}}).encode()
    (sam / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    started, done = (run for run in load_study(path).runs() if run.method.label == "sam_refined")
    logged(results, started, 500, 100.0)  # of 600 steps with unlabelled images 500 are left
    assert main(["plan", str(path), "--results", str(results)]) == 0
    assert "  sam_refined: SAM of 2.5 M weights encodes 8800 images: the encoder of Hiera" in capsys.readouterr().out
    (logged(results, done, 1000, 100.0) / "run.json").touch()
    (results / started.folder / "run.json").touch()
    assert main(["plan", str(path), "--results", str(results)]) == 0
    assert "SAM" not in capsys.readouterr().out, "nothing is left"


def test_a_failed_run_is_listed_with_the_end_of_its_log_and_its_command(
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
    options = ["--results", str(results), "--lines", "2", "--python", "torchvision=/opt/python"]
    assert main(["failures", str(path), *options]) == 0
    output = capsys.readouterr().out
    assert output.count("continue with: ") == 1 and "line 18\n    line 19\n" in output and "line 17" not in output
    command = f"/opt/python -m pais_bench train {path} --results {results} --percent 10 --fold 1 --network mask_rcnn"
    assert f"continue with: {command} --method supervised" in output
    path = write_study(tmp_path, also_evaluate=["student-last"])  # whose other jobs were run by hand, without a log
    for name in ("predictions.json", "metrics.json", "predictions-student-last.json"):
        (results / done.folder / name).touch()
    (results / "logs" / done.folder / "evaluate-student-last.log").write_text("pais-bench evaluate: error: faulty\n")
    assert main(["failures", str(path), *options]) == 0
    output = capsys.readouterr().out
    assert "2 of the runs of" in output and "--method pais --checkpoint student-last\n" in output
    assert main(["failures", str(path), "--python", "/opt/python"]) == 2
    assert "--python /opt/python: not a name and a path; give NAME=PATH" in capsys.readouterr().err


def test_a_failed_grid_ends_with_its_failures(tmp_path: Path) -> None:
    methods = {"steep": {"name": "supervised", "training": {"lr": 1e30, "warmup_steps": 0}}}
    path = write_study(tmp_path, methods=methods)
    options = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--cores", "1", "--keep-going"]
    config = [f"study={path}", f"results={tmp_path}/results", f"python={sys.executable}"]
    words = [*options, "--scheduler", "greedy", "--config", *config]
    done = snakemake(words, tmp_path, tmp_path / "output.txt", PYTHONPATH=str(ROOT))
    assert done.returncode != 0
    output = done.stdout[done.stdout.index(f"1 of the runs of {path} failed") :]
    assert "loss not finite at step" in output and "--method steep" in output and "Traceback" not in output


def test_the_resources_of_a_rule_override_the_defaults() -> None:
    resources = {"default": Resources(partition="cpu", mem_mb=1000), "train": Resources(partition="gpu", gpus=2)}
    assert resources_for(resources, "train") == Resources(partition="gpu", mem_mb=1000, gpus=2)  # type: ignore[arg-type]
    assert resources_for(resources, "report") == Resources(partition="cpu", mem_mb=1000)  # type: ignore[arg-type]


def test_later_attempts_request_more_up_to_the_maximum() -> None:
    resources = Resources(mem_mb=3000, max_mem_mb=8000, minutes=60)
    assert [resources.scaled("mem_mb", attempt) for attempt in (1, 2, 3, 4)] == [3000, 6000, 8000, 8000]
    assert [resources.scaled("minutes", attempt) for attempt in (1, 2, 3)] == [60, 120, 180]
    assert Resources(mem_mb=9000, max_mem_mb=8000).scaled("mem_mb", 2) == 9000, "never less than the first attempt"


def test_resources_change_no_run_and_typos_are_named(tmp_path: Path) -> None:
    plain = load_study(write_study(tmp_path)).runs()
    assert load_study(write_study(tmp_path, resources={"train": {"gpus": 4}})).runs() == plain
    with pytest.raises(BenchError, match="unknown key 'resources.train.gpu'"):
        load_study(write_study(tmp_path, resources={"train": {"gpu": 4}}))
    with pytest.raises(BenchError, match="several nodes are for trainings on all GPUs of each"):
        load_study(write_study(tmp_path, resources={"train": {"nodes": 2}}))
