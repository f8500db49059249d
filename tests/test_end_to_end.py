"""Run a study on real images by its commands; test_tutorials.py runs one on synthetic images by `pais-bench run`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from forked_snakemake import snakemake
from tiny import NETWORK, study

from pais_bench.cli.main import main
from pais_bench.study.load import STUDIES, load_study

ROOT = Path(__file__).parent.parent


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
    """Its first percent and fold: the jobs of the others, of which a study has up to 900, differ in numbers alone."""
    percent = load_study(study_file.stem).split.percents[0]
    values = {"name": "part", "base": study_file.stem, "split": {"percents": [percent], "folds": [1]}}
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(values))
    options = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path), "--dry-run"]
    config = [f"study={tmp_path}/part.yaml", f"results={tmp_path}/results", f"python={sys.executable}"]
    done = snakemake([*options, "--config", *config], tmp_path, tmp_path / "output.txt")
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^train +\d+$", done.stdout, re.MULTILINE)
