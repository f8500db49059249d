"""Run a study end to end: synthetic images by `pais-bench run`, real ones by its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from forked_snakemake import snakemake
from PIL import Image
from tiny import NETWORK, SUPERVISED_AND_PAIS, study, write_study

from pais_bench.cli.main import main
from pais_bench.study.load import STUDIES

ROOT = Path(__file__).parent.parent


def run(path: Path) -> subprocess.CompletedProcess[str]:
    """Run a study in its own folder, with the interpreter of this test."""
    command = [sys.executable, "-m", "pais_bench", "run", path.name, "--", "--cores", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, "--config", f"python={sys.executable}"],
        cwd=path.parent,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_shapes_end_to_end(tmp_path: Path) -> None:
    training = study()["training"] | {"burn_in": 2}
    done = run(write_study(tmp_path, training=training, methods=SUPERVISED_AND_PAIS))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[:2] == [
        "tiny: 2 runs; 0 trained, 0 predicted, 0 evaluated, 0 started",
        "  burn-ins that runs of a split share: 0 of 1 trained",
    ]
    for folder in (tmp_path / "results/runs").glob("*/*/*/*"):
        begun_with = json.loads((folder / "run.json").read_text())["begun_with"]
        (burn_in,) = folder.parent.glob("burn_in-*")
        assert begun_with == ("" if folder == burn_in else str(burn_in.relative_to(tmp_path / "results")))
    assert done.stdout.endswith("page: results/reports/tiny/report.html\n")
    assert re.search(r"^mask_rcnn +pais +\d+\.\d", done.stdout, re.MULTILINE), "the main table"
    done_runs = r" torchvision/mask_rcnn (?!burn_in)\w+: done, mask AP \d+\.\d$"
    assert len(re.findall(done_runs, done.stderr, re.MULTILINE)) == 2
    assert done.stderr.splitlines()[-1].endswith("2 of 2 runs done")
    report = tmp_path / "results/reports/tiny"
    table = pd.read_csv(report / "main_table.csv")
    assert set(table["method"]) == {"supervised", "pais"} and set(table["percent"]) == {10}
    for name in ("convergence", "label_efficiency"):
        assert (report / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(report / f"{name}.png") as figure:
            assert figure.width > 800
    for path in (tmp_path / "results/runs").rglob("examples.json"):
        examples = json.loads(path.read_text())
        assert len(examples) == 6, "fewer than eight validation images have two objects, so all are taken"
        assert {"image_id", "teacher", "student"} == set(examples[0])
        records = [record for example in examples for record in example["teacher"]]
        labelled_alone = re.search("supervised|burn_in", str(path))
        assert all(("class_weight" in record) != bool(labelled_alone) for record in records)
    names = {path.name for path in report.iterdir()}
    assert {"examples.png", "pseudo_label_quality.pdf", "score_iou.csv", "calibration.png", "report.html"} <= names
    again = run(tmp_path / "tiny.yaml")
    assert again.stdout.splitlines()[0] == "tiny: 2 runs; 2 trained, 2 predicted, 2 evaluated, 0 started"
    assert again.stdout.split("Mask AP", 1)[1] == done.stdout.split("Mask AP", 1)[1]
    assert "Nothing to be done" in (tmp_path / "results/logs/workflow/tiny.log").read_text()


def test_real_coco_images_from_prepare_to_report(shared_data: Path, tmp_path: Path) -> None:
    values = study(
        name="coco_mini",
        dataset={"name": "coco", "label": "coco_mini", "root": str(shared_data / "coco_mini")},
        input={"min_size_train": [96, 128], "max_size_train": 192, "min_size_test": 128, "max_size_test": 192},
        networks={"mask_rcnn": {"backend": "torchvision", "options": {**NETWORK, "anchor_sizes": [16, 48, 128]}}},
        methods={"pais": {"options": {"score_threshold": 0.0, "mask_iou_threshold": 0.0}}},
    )
    values["training"] |= {"steps": 12, "milestones": [10]}  # after 4 steps the masks are all empty
    path = tmp_path / "coco_mini.yaml"
    path.write_text(yaml.safe_dump(values))
    study_and_results = (str(path), "--results", str(tmp_path / "results"))
    split = ("--percent", "10", "--fold", "1")
    run = (*split, "--network", "mask_rcnn", "--method", "pais")
    commands: dict[str, tuple[str, ...]] = {"prepare": (), "split": split, "train": (*run, "--threads", "1")}
    commands |= {"predict": (*run, "--threads", "1"), "evaluate": run, "report": ()}
    for command, options in commands.items():
        assert main([command, *study_and_results, *options]) == 0, command
    (folder,) = (tmp_path / "results/runs/coco_mini/10pct-fold1/torchvision-mask_rcnn").glob("pais-*")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images"] == 49 and len(metrics["per_class"]) == 80
    assert 0 <= metrics["segm"]["AP"] <= 1
    drawn = json.loads((folder / "run.json").read_text())["split"]
    assert (drawn["labelled"], drawn["pool"]) == (8, 89)
    records = json.loads((folder / "predictions.json").read_text())
    assert records and records[0].keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
    report = tmp_path / "results/reports/coco_mini"
    assert {"main_table.tex", "convergence.pdf", "label_efficiency.png"} <= {path.name for path in report.iterdir()}


@pytest.mark.parametrize("study_file", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_resolves_to_jobs(study_file: Path, tmp_path: Path) -> None:
    options = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--dry-run"]
    config = [f"study={study_file.stem}", f"results={tmp_path}/results", f"python={sys.executable}"]
    done = snakemake([*options, "--config", *config], tmp_path, tmp_path / "output.txt")
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^train +\d+$", done.stdout, re.MULTILINE)
