"""Check the synthetic streets: what they hold, the layout of their files, and a study on them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from PIL import Image
from streets import draw_tree
from tiny import write_study
from tree import prepare

from pais_bench.annotations.store import Store
from pais_bench.datasets import _cityscapes


def content(root: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_streets_have_every_class_groups_and_empty_images(tmp_path: Path) -> None:
    root = draw_tree(tmp_path / "streets", train=60, val=2)
    store = Store.open(prepare(root, tmp_path / "prepared"), "train")
    annotations = [annotation for image_id in store.image_ids for annotation in store.annotations(image_id)]
    counts = Counter(_cityscapes.CLASSES[ann["category_id"]] for ann in annotations if not ann["iscrowd"])
    assert set(counts) == set(_cityscapes.CLASSES.values()) and counts["car"] > counts["person"] > counts["train"]
    assert {ann["category_id"] for ann in annotations if ann["iscrowd"]} == {24, 26}
    assert any(not store.annotations(image_id) for image_id in store.image_ids)
    objects = [item for path in root.rglob("*_polygons.json") for item in json.loads(path.read_text())["objects"]]
    points = [point for item in objects for point in item["polygon"]]
    assert min(x for x, _ in points) < 0 and max(x for x, _ in points) > 256, "polygons leave the frame"


def test_the_tree_is_laid_out_as_the_archives_and_follows_the_seed(tmp_path: Path) -> None:
    few, many, other = (
        draw_tree(tmp_path / str(number), train=train, val=2, size=64, seed=number // 2)
        for number, train in enumerate((4, 12, 12))
    )
    assert content(few).items() < content(many).items() and not content(few).items() <= content(other).items()
    assert sorted(path.name for path in few.iterdir()) == ["gtFine", "leftImg8bit"]
    names = sorted(path.name for path in (many / "gtFine/train/ulm").glob("ulm_000003_000019*"))
    assert names == [f"ulm_000003_000019_gtFine_{end}" for end in ("instanceIds.png", "labelIds.png", "polygons.json")]
    with Image.open(few / "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png") as photo:
        assert (photo.mode, photo.size) == ("RGB", (128, 64))


def test_a_study_of_cityscapes_prepares_and_splits(tmp_path: Path) -> None:
    draw_tree(tmp_path / "tree", train=20, val=4, size=64)
    dataset = {"name": "cityscapes", "root": "tree", "options": {"complete": False}}
    path = write_study(tmp_path, dataset=dataset)
    for command, *arguments in (("prepare",), ("split", "--percent", "10", "--fold", "1")):
        process = subprocess.run(
            [sys.executable, "-m", "pais_bench", command, path, "--results", tmp_path / "results", *arguments],
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
    assert "2 of 20 images labelled" in process.stderr
    assert len(Store.open(tmp_path / "results/datasets/cityscapes", "val").image_ids) == 4
