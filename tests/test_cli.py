"""Check the six commands of the workflow: their results, and one line that names each fault."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from tiny import NETWORK, study, write_study

from pais_bench.cli.main import main

RUN = ("--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "pais")


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pais_bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def succeed(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command and check that it succeeds."""
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    return done


def matmul_precision_after(*commands: Sequence[object]) -> str:
    """Run commands that succeed, and return the precision of torch's products that they leave; it is then as before."""
    before = torch.get_float32_matmul_precision()
    try:
        assert not any(main([*map(str, words)]) for words in commands)
        return torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)


def assert_refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that one line, without a traceback, has the error and the parts."""
    assert done.returncode == 2, done.stderr
    (message,) = (line for line in done.stderr.splitlines() if "error:" in line)
    assert "Traceback" not in done.stderr
    assert all(part in message for part in parts), message


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Return a function that runs a command in this process, and checks that it is refused in one line of some parts.

    A process of its own for each would take most of this file's time.
    """

    def run(words: Sequence[object], *parts: str) -> None:
        code = main([*map(str, words)])
        assert_refused(subprocess.CompletedProcess(words, code, *capsys.readouterr()), *parts)

    return run


def prepare_and_split(path: Path) -> Path:
    """Prepare a study and draw its split, and return the results folder beside it."""
    results = path.parent / "results"
    for command in (["prepare"], ["split", *RUN[:4]]):
        assert main([*command, str(path), "--results", str(results)]) == 0
    return results


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny study, prepared and split."""
    folder = tmp_path_factory.mktemp("prepared")
    path = write_study(folder)
    succeed("prepare", path, "--results", folder / "results")
    succeed("split", path, "--results", folder / "results", *RUN[:4])
    return folder


def test_help_lists_the_six_commands_with_examples() -> None:
    text = cli("--help").stdout
    for command in ("prepare", "split", "train", "predict", "evaluate", "report"):
        assert f"pais-bench {command}" in text
    assert "pais-bench run      demo" in text


def test_a_closed_standard_output_is_no_fault() -> None:
    command = [sys.executable, "-m", "pais_bench", "plan", "baselines"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1


CTRL_C = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
sys.meta_path.insert(0, Finder())
runpy.run_module("pais_bench", run_name="__main__")
"""


@pytest.mark.parametrize("module", ["pais_bench.cli.main", "pais_bench.cli.commands.doctor"])
def test_ctrl_c_before_a_command_has_begun_ends_in_one_line(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", CTRL_C, module], capture_output=True, text=True, check=False)
    assert done.returncode == 130 and done.stdout == ""
    assert done.stderr == "pais-bench: ended by Ctrl-C; run the same command to continue\n"


def test_another_broken_pipe_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_pipe(arguments: object) -> int:
        reader, writer = os.pipe()
        os.close(reader)
        return os.write(writer, b"to a loader")

    monkeypatch.setattr("pais_bench.cli.main.run_command", break_pipe)
    with pytest.raises(BrokenPipeError):
        main(["plan", "demo"])


FAULTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"stpes": 3}, ("unknown key 'stpes'",)),
    ({"training": {"stpes": 3}}, ("unknown key 'training.stpes'",)),
    ({"methods": {"pias": {}}}, ("methods.pias", "there is no 'pias'", "mean_teacher, noisy_boundary, oracle, pais")),
    ({"methods": {"pais": {"options": {"alhpa": 2}}}}, ("methods.pais.options", "unknown key 'alhpa'", "alpha")),
    ({"methods": {"pais": {"options": {"alpha": -2}}}}, ("methods.pais.options", "'alpha'", "got -2")),
    ({"networks": {"x": {"backend": "torchvision"}}}, ("networks.x", "there is no 'torchvision/x'", "mask_rcnn")),
    ({"networks": {"x": {"backend": "keras"}}}, ("networks.x", "there is no 'keras/x'")),
    (
        {"networks": {"mask_rcnn": {"backend": "torchvision", "options": {"backbon": 1}}}},
        ("networks.mask_rcnn.options", "unknown key 'backbon'", "backbone"),
    ),
    ({"dataset": {"name": "shape"}}, ("dataset", "there is no 'shape'", "coco, shapes")),
    ({"dataset": {"name": "shapes", "options": {"colour": 1}}}, ("dataset.options", "unknown key 'colour'")),
    ({"split": {"percents": [0]}}, ("'split.percents.0': input should be greater than 0, got 0",)),
    ({"split": {"percents": [101]}}, ("'split.percents.0'", "less than or equal to 100")),
    ({"split": {"percents": []}}, ("'split.percents'",)),
    ({1: 3}, ("'1'", "keys should be strings")),
    (
        {"dataset": {"name": "coco", "root": "~nobody-is-called-so/a"}},
        ("~nobody-is-called-so/a: there is no",),
    ),
    ({"methods": {"pais": {"training": {"burn_in": 4}}}}, ("methods.pais: burn_in 4 of 4 steps leaves none",)),
    ({"report": {"model": "pupil"}}, ("'report.model'", "'teacher' or 'student'")),
]


@pytest.mark.parametrize(("change", "parts"), FAULTS, ids=[" ".join(parts)[:40] for _, parts in FAULTS])
def test_a_faulty_study_is_named_by_file_and_key(
    tmp_path: Path, change: dict[Any, Any], parts: tuple[str, ...], refuse: Callable[..., None]
) -> None:
    path = write_study(tmp_path)
    path.write_text(yaml.safe_dump(study() | change))
    refuse(["report", path, "--results", tmp_path], *parts)


def test_a_missing_or_broken_study_is_named(tmp_path: Path, refuse: Callable[..., None]) -> None:
    assert_refused(cli("report", "dmeo"), "dmeo: no such study file", "demo")
    refuse(["report", tmp_path / "absent.yaml"], "absent.yaml: no such study file")
    (tmp_path / "broken.yaml").write_text("name: [")
    refuse(["report", tmp_path / "broken.yaml"], "broken.yaml: not valid YAML")
    (tmp_path / "list.yaml").write_text("- 1")
    refuse(["report", tmp_path / "list.yaml"], "list.yaml: a study is a mapping")


def test_a_run_that_is_not_in_the_study_is_refused(prepared: Path, refuse: Callable[..., None]) -> None:
    words = ("train", prepared / "tiny.yaml", "--results", prepared / "results")
    refuse([*words, *RUN[:1], "20", *RUN[2:]], "--percent 20.0: not in study 'tiny'", "choose one of 10.0")
    refuse([*words, *RUN[:-1], "fixmatch"], "--method fixmatch", "supervised, mean_teacher, pais")


def test_a_missing_data_folder_is_named(tmp_path: Path, refuse: Callable[..., None]) -> None:
    path = write_study(tmp_path, dataset={"name": "coco", "root": "nowhere"})
    refuse(["prepare", path, "--results", tmp_path / "results"], "nowhere")
    path = write_study(tmp_path, dataset={"name": "coco"})
    refuse(["prepare", path, "--results", tmp_path / "results"], "root")


def test_an_unprepared_dataset_is_named(tmp_path: Path, refuse: Callable[..., None]) -> None:
    words = ("--results", tmp_path / "results", "--percent", 10, "--fold", 1)
    refuse(["split", write_study(tmp_path), *words], "pais-bench prepare")


def test_an_empty_split_is_named(tmp_path: Path, refuse: Callable[..., None]) -> None:
    path = write_study(tmp_path, split={"percents": [0.01]})
    succeed("prepare", path, "--results", tmp_path)
    refuse(["split", path, "--results", tmp_path, "--percent", 0.01, "--fold", 1], "0.01", "40")


def test_a_percent_is_known_by_the_digits_that_its_folders_have(tmp_path: Path) -> None:
    path = write_study(tmp_path, split={"percents": [33.3333333]})
    succeed("prepare", path, "--results", tmp_path)
    succeed("split", path, "--results", tmp_path, "--percent", "33.3333", "--fold", 1)
    (split,) = tmp_path.rglob("33.3333pct-fold1.json")
    assert json.loads(split.read_text())["percent"] == 33.3333333


def test_a_missing_pretrained_backbone_is_named(prepared: Path, refuse: Callable[..., None]) -> None:
    options = {**NETWORK, "backbone": "resnet50", "pretrained_backbone": "absent.pth"}
    path = prepared / "pretrained.yaml"
    path.write_text(json.dumps(study(networks={"mask_rcnn": {"backend": "torchvision", "options": options}})))
    refuse(["train", path, "--results", prepared / "results", *RUN], "absent.pth", "no such file of pretrained weights")


def test_an_option_out_of_range_is_named_by_the_network(prepared: Path, refuse: Callable[..., None]) -> None:
    options = {**NETWORK, "backbone": "vgg"}
    path = prepared / "vgg.yaml"
    path.write_text(json.dumps(study(networks={"mask_rcnn": {"backend": "torchvision", "options": options}})))
    refuse(["train", path, "--results", prepared / "results", *RUN], "networks.mask_rcnn.options", "backbone", "vgg")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"not an image"), ".png: unreadable image"),
        (lambda path: Image.new("RGB", (30, 20)).save(path), "30 x 20"),
    ],
)
def test_a_damaged_image_stops_the_training_and_is_named(
    damage: Callable[[Path], object], message: str, tmp_path: Path, refuse: Callable[..., None]
) -> None:
    path = write_study(tmp_path)
    results = prepare_and_split(path)
    for image in results.rglob("train/*.png"):
        damage(image)
    refuse(["train", path, "--results", results, *RUN], message, ".png", "replace the file")


def test_predict_and_evaluate_name_the_missing_step_before_them(prepared: Path, refuse: Callable[..., None]) -> None:
    words = (prepared / "tiny.yaml", "--results", prepared / "empty")
    refuse(["predict", *words, *RUN], "pais-bench prepare")
    words = (prepared / "tiny.yaml", "--results", prepared / "results")
    refuse(["predict", *words, *RUN[:-1], "mean_teacher"], "checkpoint.pt", "pais-bench train")
    refuse(["evaluate", *words, *RUN[:-1], "mean_teacher"], "predictions.json", "missing")


def test_the_six_commands_make_a_table(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first two in processes of their own, as a tutorial's test has all six."""
    study_and_results = (str(prepared / "tiny.yaml"), "--results", str(prepared / "results"))
    assert main(["train", *study_and_results, *RUN]) == 0
    assert "pais 10pct-fold1 mask_rcnn: trained; 1 of 3 runs done, 2 left" in capsys.readouterr().err
    for command in ("predict", "evaluate"):
        assert main([command, *study_and_results, *RUN]) == 0
    assert main(["report", *study_and_results]) == 0
    assert "pais" in capsys.readouterr().out
    (run,) = (prepared / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").glob("pais-*/run.json")
    record = json.loads(run.read_text())
    assert record["run"]["method"]["options"]["beta"] == 4 and record["steps"] == 4
    assert record["split"]["labelled"] == 4 and record["split"]["pool"] == 40
    assert record["versions"]["torch"] == torch.__version__.split("+")[0] and record["commit"]
    assert isinstance(json.loads((run.parent / "predictions.json").read_text()), list)  # may be empty after 4 steps
    assert (prepared / "results/reports/tiny/main_table.tex").exists()


def test_the_checkpoints_of_a_study_are_kept_predicted_and_reported(
    tmp_path: Path, refuse: Callable[..., None]
) -> None:
    changes: dict[str, Any] = {
        "training": {**study()["training"], "matmul_precision": "medium"},
        "methods": {"supervised": {}},
    }
    path = write_study(tmp_path, also_evaluate=["student-last", "teacher-best"], **changes)
    results, run = ("--results", prepare_and_split(path)), (*RUN[:-1], "supervised")
    assert matmul_precision_after(["train", path, *results, *run]) == "medium"
    checkpoints = "teacher-last", "student-last", "teacher-best"
    predict = ["predict", path, *results, *run, "--workers", 1, "--checkpoint"]
    assert matmul_precision_after(*([*predict, checkpoint] for checkpoint in checkpoints)) == "medium"
    for checkpoint in checkpoints:
        assert main(["evaluate", str(path), *map(str, (*results, *run)), "--checkpoint", checkpoint]) == 0
    assert main(["report", str(path), *map(str, results)]) == 0
    (folder,) = (tmp_path / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").iterdir()
    names = {file.name for file in folder.iterdir()}
    ends = ("", "-student-last", "-teacher-best")
    stems = ("predictions", "metrics", "errors", "examples")
    assert names == {f"{stem}{end}.json" for stem in stems for end in ends} | {
        *("log.jsonl", "checkpoint.pt", "best-teacher.pt", "run.json", "data.json", "bootstrap.json")
    }
    assert json.loads((folder / "run.json").read_text())["run"]["training"]["matmul_precision"] == "medium"
    metrics = json.loads((folder / "metrics-teacher-best.json").read_text())
    assert (metrics["model"], metrics["checkpoint"]) == ("teacher", "best")
    table = (tmp_path / "results/reports/tiny/checkpoints.md").read_text()
    assert "| network | method | labels | teacher-last | student-last | teacher-best |" in table
    refuse(["predict", path, *results, *run, "--checkpoint", "student-best"], "--checkpoint student-best: not in study")
    path = write_study(tmp_path, report={"model": "student", "checkpoint": "best"}, **changes)
    refuse(["predict", path, *results, *run], "best-student.pt: missing; it is kept while training alone")


def test_examples_show_the_checkpoint_that_the_study_reports(tmp_path: Path) -> None:
    path = write_study(tmp_path, report={"checkpoint": "best"}, also_evaluate=["teacher-last"])
    results = ("--results", str(prepare_and_split(path)))
    assert main(["train", str(path), *results, *RUN]) == 0
    (folder,) = (tmp_path / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").iterdir()
    best = torch.load(folder / "best-teacher.pt", weights_only=True)
    best["teacher"] = {
        name: 1.5 * value if value.is_floating_point() else value for name, value in best["teacher"].items()
    }
    torch.save(best, folder / "best-teacher.pt")
    for checkpoint in ("teacher-best", "teacher-last"):
        assert main(["predict", str(path), *results, *RUN, "--checkpoint", checkpoint]) == 0
    reported, last = (json.loads((folder / f"examples{end}.json").read_text()) for end in ("-teacher-best", ""))
    assert [image["best"] for image in reported] == [["teacher"]] * len(last) and not any(
        "best" in image for image in last
    )
    assert [image["teacher"] for image in reported] != [image["teacher"] for image in last], "other weights"
    assert [image["student"] for image in reported] == [image["student"] for image in last], "its best are not kept"
    assert main(["report", str(path), *results]) == 0
    table = pd.read_csv(tmp_path / "results/reports/tiny/examples.csv")
    assert set(table.loc[table["role"] == "image", "best"]) == {"teacher"}
    weights = [record["mask_weight"] for image in reported for record in image["teacher"]]
    shown = table.loc[table["role"] == "teacher", "mask_weight"]
    near = [any(weight == pytest.approx(other, abs=1e-4) for other in weights) for weight in shown]
    assert all(near), "those of three of the images"
    assert (table["role"] == "image").sum() == 3
    assert (tmp_path / "results/reports/tiny/examples.png").exists()
