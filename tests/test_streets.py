"""Are the drawn streets what they claim: rare and frequent classes, groups, deserted streets, one seed one set?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from tiny import write_study

from pais_bench.datasets import _cityscapes
from pais_bench.datasets.streets import Dataset, Options
from pais_bench.store import Store


def prepare(folder: Path, **options: int) -> Path:
    """Prepare a small dataset."""
    Dataset(Options(**options), None).prepare(folder, "streets")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Give every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare enough images for statistics, once."""
    return prepare(tmp_path_factory.mktemp("streets"), train=60, val=6)


def test_classes_are_not_equally_frequent(folder: Path) -> None:
    store = Store.open(folder, "train")
    notes = [note for number in store.image_ids for note in store.annotations(number)]
    counts = Counter(_cityscapes.CLASSES[note["category_id"]] for note in notes if not note["iscrowd"])
    assert set(counts) == set(_cityscapes.CLASSES.values())
    assert counts.most_common(2)[0][0] == "car" and counts["car"] > 2 * counts["person"] > 2 * counts["train"]
    assert {note["category_id"] for note in notes if note["iscrowd"]} >= {24, 26}
    empty = sum(not store.annotations(number) for number in store.image_ids)
    assert 1 <= empty <= 0.2 * len(store.image_ids)


def test_cars_touch_and_sizes_differ(folder: Path) -> None:
    store = Store.open(folder, "train")
    touching, areas = 0, []
    for number in store.image_ids:
        notes = [note for note in store.annotations(number) if note["category_id"] == 26 and not note["iscrowd"]]
        areas += [note["area"] for note in notes]
        masks = [np.pad(rle.decode(note["segmentation"]), 1) for note in notes]
        grown = [mask | np.roll(mask, 1, 1) | np.roll(mask, -1, 1) for mask in masks]
        touching += bool(grown) and np.sum(grown, axis=0).max() > 1
    assert touching > 0.5 * len(store.image_ids)
    assert np.percentile(areas, 90) > 10 * np.percentile(areas, 10)


def test_the_tree_is_laid_out_as_the_archives_are(folder: Path) -> None:
    tree = folder / "tree"
    assert sorted(path.name for path in tree.iterdir()) == ["gtFine", "leftImg8bit"]
    assert sorted(path.name for path in (tree / "leftImg8bit/val").iterdir()) == ["frankfurt", "lindau"]
    names = sorted(path.name for path in (tree / "gtFine/train/ulm").glob("ulm_000003_000019*"))
    stem = "ulm_000003_000019_gtFine"
    assert names == [f"{stem}_instanceIds.png", f"{stem}_labelIds.png", f"{stem}_polygons.json"]
    with Image.open(tree / "leftImg8bit/train/ulm/ulm_000003_000019_leftImg8bit.png") as photo:
        assert (photo.mode, photo.size) == ("RGB", (256, 128))


def test_polygons_leave_the_frame_and_hide_each_other(folder: Path) -> None:
    points = []
    for path in (folder / "tree").rglob("*_polygons.json"):
        points += [point for one in json.loads(path.read_text())["objects"] for point in one["polygon"]]
    assert min(x for x, _ in points) < 0 and max(x for x, _ in points) > 256


def test_the_seed_alone_decides(tmp_path: Path) -> None:
    first, again, other = (prepare(tmp_path / str(k), train=5, val=2, size=64, seed=k // 2) for k in (0, 1, 2))
    assert content(first) == content(again)
    assert content(first) != content(other)


def test_image_k_is_the_same_whatever_the_number(tmp_path: Path) -> None:
    few, many = (content(prepare(tmp_path / str(n), train=n, val=1, size=64) / "tree") for n in (4, 8))
    assert few.items() <= many.items() and len(few) < len(many)


def test_preparing_again_leaves_nothing_of_before(tmp_path: Path) -> None:
    prepare(tmp_path, train=6, val=2, size=64)
    prepare(tmp_path, train=3, val=1, size=64)
    tables = [f"{part}.{table}.arrow" for part in ("train", "val") for table in ("annotations", "images")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["dataset.json", "tree", *tables])
    assert len(list(tmp_path.rglob("*_leftImg8bit.png"))) == 4


def test_a_moved_store_finds_its_images(tmp_path: Path) -> None:
    prepare(tmp_path / "here", train=3, val=1, size=64).rename(tmp_path / "there")
    store = Store.open(tmp_path / "there", "train")
    assert all(store.path(number).is_file() for number in store.image_ids)


@pytest.mark.parametrize("name", ["streets", "cityscapes"])
def test_a_study_prepares_and_splits(tmp_path: Path, name: str) -> None:
    dataset = {"name": "streets", "options": {"train": 20, "val": 4, "size": 64}}
    if name == "cityscapes":
        prepare(tmp_path / "streets", train=20, val=4, size=64)
        dataset = {"name": name, "root": "streets/tree", "options": {"complete": False}}
    path = write_study(tmp_path, dataset=dataset)
    for words in (("prepare",), ("split", "--percent", "10", "--fold", "1")):
        done = subprocess.run(
            [sys.executable, "-m", "pais_bench", words[0], path, "--results", tmp_path / "results", *words[1:]],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert "2 of 20 images labelled" in done.stderr
    assert len(Store.open(tmp_path / "results/datasets" / name, "val").image_ids) == 4
