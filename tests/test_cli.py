"""Does the command line say in one line what is wrong, and lose nothing?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import NETWORK, study, write_study

from pais_bench.cli import main

RUN = ("--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "pais")


def cli(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pais_bench", *map(str, words)], capture_output=True, text=True, check=False
    )


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that there is one line, without a traceback, that has the parts."""
    assert done.returncode == 2, done.stderr
    message = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(message) == 1 and "Traceback" not in done.stderr, done.stderr
    for part in parts:
        assert part in message[0], message[0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the tiny study, prepared and split."""
    folder = tmp_path_factory.mktemp("prepared")
    path = write_study(folder)
    for words in (("prepare",), ("split", "--percent", "10", "--fold", "1")):
        assert cli(words[0], path, "--results", folder / "results", *words[1:]).returncode == 0
    return folder


def test_help_shows_the_six_verbs_with_examples() -> None:
    text = cli("--help").stdout
    for verb in ("prepare", "split", "train", "predict", "evaluate", "report"):
        assert f"pais-bench {verb}" in text
    assert "snakemake --workflow-profile profiles/local" in text


def test_a_reader_that_has_gone_is_no_fault() -> None:
    command = [sys.executable, "-m", "pais_bench", "plan", "baselines"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 1


def test_a_pipe_that_broke_elsewhere_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_a_pipe(words: object) -> int:
        reader, writer = os.pipe()
        os.close(reader)
        return os.write(writer, b"to a loader")

    monkeypatch.setattr("pais_bench.cli._main", break_a_pipe)
    with pytest.raises(BrokenPipeError):
        main(["plan", "demo"])


@pytest.mark.parametrize("verb", ["prepare", "split", "train", "predict", "evaluate", "report"])
def test_every_verb_has_help(verb: str) -> None:
    done = cli(verb, "--help")
    assert done.returncode == 0 and "STUDY" in done.stdout


FAULTS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"stpes": 3}, ("unknown key 'stpes'",)),
    ({"training": {"stpes": 3}}, ("unknown key 'training.stpes'",)),
    ({"methods": {"pias": {}}}, ("methods.pias", "there is no 'pias'", "mean_teacher, noisy_boundary, pais")),
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
    ({"split": {"percents": [0]}}, ("'split.percents.0'", "greater than 0", "got 0")),
    ({"split": {"percents": [101]}}, ("'split.percents.0'", "less than or equal to 100")),
    ({"split": {"percents": []}}, ("'split.percents'",)),
    ({"model": "pupil"}, ("'model'", "'teacher' or 'student'")),
]


@pytest.mark.parametrize(("change", "parts"), FAULTS, ids=[" ".join(parts)[:40] for _, parts in FAULTS])
def test_a_wrong_study_is_named_by_file_and_key(tmp_path: Path, change: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(cli("report", write_study(tmp_path, **change), "--results", tmp_path), "tiny.yaml", *parts)


def test_an_absent_or_broken_study_is_named(tmp_path: Path) -> None:
    refused(cli("report", "dmeo"), "dmeo: no such study file", "demo")
    refused(cli("report", tmp_path / "absent.yaml"), "absent.yaml: no such study file")
    (tmp_path / "broken.yaml").write_text("name: [")
    refused(cli("report", tmp_path / "broken.yaml"), "broken.yaml: not valid YAML")
    (tmp_path / "list.yaml").write_text("- 1")
    refused(cli("report", tmp_path / "list.yaml"), "list.yaml: a study is a mapping")


def test_a_run_that_is_not_in_the_study_is_refused(prepared: Path) -> None:
    words = ("train", prepared / "tiny.yaml", "--results", prepared / "results")
    refused(cli(*words, *RUN[:1], "20", *RUN[2:]), "--percent 20.0: not in study 'tiny'", "choose one of 10.0")
    refused(cli(*words, *RUN[:-1], "fixmatch"), "--method fixmatch", "supervised, mean_teacher, pais")


def test_an_absent_data_folder_is_named(tmp_path: Path) -> None:
    path = write_study(tmp_path, dataset={"name": "coco", "root": "nowhere"})
    refused(cli("prepare", path, "--results", tmp_path / "results"), "nowhere")
    path = write_study(tmp_path, dataset={"name": "coco"})
    refused(cli("prepare", path, "--results", tmp_path / "results"), "root")


def test_an_unprepared_dataset_is_named(tmp_path: Path) -> None:
    words = ("--results", tmp_path / "results", "--percent", 10, "--fold", 1)
    refused(cli("split", write_study(tmp_path), *words), "pais-bench prepare")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    path = write_study(tmp_path, split={"percents": [0.01]})
    assert cli("prepare", path, "--results", tmp_path).returncode == 0
    refused(cli("split", path, "--results", tmp_path, "--percent", 0.01, "--fold", 1), "0.01", "40")


def test_missing_weights_are_named(prepared: Path) -> None:
    options = {**NETWORK, "backbone": "resnet50", "weights": "absent.pth"}
    changed = study(networks={"mask_rcnn": {"backend": "torchvision", "options": options}})
    path = prepared / "weights.yaml"
    path.write_text(json.dumps(changed))
    refused(
        cli("train", path, "--results", prepared / "results", *RUN), "absent.pth", "no such file of pretrained weights"
    )


def test_an_option_out_of_range_is_named_by_the_network(prepared: Path) -> None:
    changed = study(networks={"mask_rcnn": {"backend": "torchvision", "options": {**NETWORK, "backbone": "vgg"}}})
    path = prepared / "vgg.yaml"
    path.write_text(json.dumps(changed))
    refused(
        cli("train", path, "--results", prepared / "results", *RUN), "networks.mask_rcnn.options", "backbone", "vgg"
    )


def test_an_unreadable_image_stops_the_training_and_is_named(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    words = ("--results", tmp_path / "results")
    assert cli("prepare", path, *words).returncode == 0
    assert cli("split", path, *words, *RUN[:4]).returncode == 0
    for image in (tmp_path / "results").rglob("train/*.png"):
        image.write_bytes(b"not an image")
    refused(cli("train", path, *words, *RUN), ".png: unreadable image", "replace the file")


def test_predict_and_evaluate_ask_for_what_comes_before_them(prepared: Path) -> None:
    words = (prepared / "tiny.yaml", "--results", prepared / "empty")
    refused(cli("predict", *words, *RUN), "pais-bench prepare")
    words = (prepared / "tiny.yaml", "--results", prepared / "results")
    refused(cli("predict", *words, *RUN[:-1], "mean_teacher"), "checkpoint.pt", "pais-bench train")
    refused(cli("evaluate", *words, *RUN[:-1], "mean_teacher"), "predictions.json", "missing")


def test_the_six_verbs_make_a_table(prepared: Path) -> None:
    results = ("--results", prepared / "results")
    done = cli("train", prepared / "tiny.yaml", *results, *RUN)
    assert done.returncode == 0, done.stderr
    assert "pais 10pct-fold1 mask_rcnn: trained; 1 of 3 runs done, 2 left" in done.stderr
    assert cli("predict", prepared / "tiny.yaml", *results, *RUN).returncode == 0
    assert cli("evaluate", prepared / "tiny.yaml", *results, *RUN).returncode == 0
    done = cli("report", prepared / "tiny.yaml", *results)
    assert done.returncode == 0 and "pais" in done.stdout, done.stderr
    (run,) = (prepared / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").glob("pais-*/run.json")
    told = json.loads(run.read_text())
    assert told["run"]["method"]["options"]["beta"] == 4 and told["steps"] == 4
    assert told["split"]["labelled"] == 4 and told["split"]["pool"] == 40
    assert told["versions"]["torch"] == torch.__version__.split("+")[0] and told["commit"]
    assert isinstance(json.loads((run.parent / "predictions.json").read_text()), list)  # 4 steps may find nothing
    assert (prepared / "results/reports/tiny/main_table.tex").exists()


def test_the_weights_that_a_study_asks_for_are_kept_predicted_and_tabled(tmp_path: Path) -> None:
    path = write_study(tmp_path, also=["student-last", "teacher-best"], methods={"supervised": {}})
    results, run = ("--results", tmp_path / "results"), (*RUN[:-1], "supervised")
    for words in (("prepare", path), ("split", path, *RUN[:4]), ("train", path, *run)):
        done = cli(*words, *results)
        assert done.returncode == 0, done.stderr
    for weights in ("teacher-last", "student-last", "teacher-best"):
        for verb in ("predict", "evaluate"):
            done = cli(verb, path, *results, *run, "--weights", weights)
            assert done.returncode == 0, done.stderr
    assert cli("report", path, *results).returncode == 0
    (folder,) = (tmp_path / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").iterdir()
    names = {one.name for one in folder.iterdir()}
    ends = ("", "-student-last", "-teacher-best")
    assert names == {f"{stem}{end}.json" for stem in ("predictions", "metrics", "panels") for end in ends} | {
        *("log.jsonl", "checkpoint.pt", "best-teacher.pt", "run.json", "bootstrap.json")
    }
    told = json.loads((folder / "metrics-teacher-best.json").read_text())
    assert (told["model"], told["checkpoint"]) == ("teacher", "best")
    table = (tmp_path / "results/reports/tiny/weights.md").read_text()
    assert "| network | method | labels | teacher-last | student-last | teacher-best |" in table
    refused(cli("predict", path, *results, *run, "--weights", "student-best"), "--weights student-best: not in study")
    path = write_study(tmp_path, model="student", checkpoint="best", methods={"supervised": {}})
    refused(cli("predict", path, *results, *run), "best-student.pt: missing; it is kept while training alone")


def test_panels_show_the_weights_that_the_study_prints(tmp_path: Path) -> None:
    path = write_study(tmp_path, checkpoint="best", also=["teacher-last"])
    results = ("--results", tmp_path / "results")
    for words in (("prepare", path), ("split", path, *RUN[:4]), ("train", path, *RUN)):
        assert cli(*words, *results).returncode == 0
    (folder,) = (tmp_path / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").iterdir()
    best = torch.load(folder / "best-teacher.pt", weights_only=True)
    best["teacher"] = {
        name: 1.5 * value if value.is_floating_point() else value for name, value in best["teacher"].items()
    }
    torch.save(best, folder / "best-teacher.pt")
    for weights in ("teacher-best", "teacher-last"):
        assert cli("predict", path, *results, *RUN, "--weights", weights).returncode == 0
    printed, last = (json.loads((folder / f"panels{end}.json").read_text()) for end in ("-teacher-best", ""))
    assert [one["best"] for one in printed] == [["teacher"]] * 3 and not any("best" in one for one in last)
    assert [one["teacher"] for one in printed] != [one["teacher"] for one in last], "other weights see other things"
    assert [one["student"] for one in printed] == [one["student"] for one in last], "its best ones were not kept"
    assert cli("report", path, *results).returncode == 0
    drawn = pd.read_csv(tmp_path / "results/reports/tiny/panels.csv")
    assert set(drawn.loc[drawn["role"] == "image", "best"]) == {"teacher"}
    weighed = [record["mask_weight"] for one in printed for record in one["teacher"]]
    assert sorted(drawn.loc[drawn["role"] == "teacher", "mask_weight"]) == pytest.approx(sorted(weighed), abs=1e-4)
    assert (tmp_path / "results/reports/tiny/panels.png").exists()


def test_images_of_another_size_than_told_are_not_silently_used(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    words = ("--results", tmp_path / "results")
    assert cli("prepare", path, *words).returncode == 0
    assert cli("split", path, *words, *RUN[:4]).returncode == 0
    for image in (tmp_path / "results").rglob("train/*.png"):
        Image.new("RGB", (30, 20)).save(image)
    refused(cli("train", path, *words, *RUN), ".png", "30 x 20", "replace the file")
