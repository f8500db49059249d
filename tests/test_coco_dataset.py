"""Is a folder in COCO format read as it is, and is one that is incomplete refused in words?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pais_bench.datasets.coco import Dataset, Options
from pais_bench.store import Store
from pais_bench.types import BenchError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Lay out a dataset of two training images and one for validation."""
    root = tmp_path / "root"
    for year, ids in (("train2017", (2, 1)), ("val2017", (3,))):
        (root / year).mkdir(parents=True)
        for number in ids:
            Image.new("RGB", (6, 4)).save(root / year / f"{number}.png")
        images = [{"id": number, "file_name": f"{number}.png", "height": 4, "width": 6} for number in ids]
        write(root, year, {"images": images, "annotations": [], "categories": [{"id": 1, "name": "one"}]})
    return root


def write(root: Path, year: str, content: Any) -> None:
    """Write an annotation file."""
    path = root / "annotations" / f"instances_{year}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def prepare(root: Path | None, folder: Path, **options: str) -> None:
    """Prepare with some options."""
    Dataset(Options(**options), root).prepare(folder, "mine")


def test_prepares(root: Path, tmp_path: Path) -> None:
    prepare(root, tmp_path / "out")
    store = Store.open(tmp_path / "out", "train")
    assert store.image_ids == (2, 1)
    assert [store.path(number).is_file() for number in store.image_ids] == [True, True]


def test_any_layout_through_options(root: Path, tmp_path: Path) -> None:
    (root / "train2017" / "deep").mkdir()
    (root / "train2017" / "2.png").rename(root / "train2017" / "deep" / "2.png")
    (root / "train2017").rename(root / "pictures")
    old = root / "annotations" / "instances_train2017.json"
    (root / "mine.json").write_text(old.read_text().replace('"2.png"', '"deep/2.png"'))
    old.unlink()
    prepare(root, tmp_path / "out", train_annotations="mine.json", train_images="pictures")
    assert Store.open(tmp_path / "out", "train").path(2) == (root / "pictures" / "deep" / "2.png").resolve()


def test_without_a_root(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="dataset.root: missing; give the folder that holds annotations/instances_tr"):
        prepare(None, tmp_path)


def test_root_is_absent(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="nowhere: no such folder; set dataset.root to the folder that holds"):
        prepare(tmp_path / "nowhere", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("annotations/instances_val2017.json", "no such annotation file"),
        ("val2017", "no such image folder"),
    ],
)
def test_absent_file_or_folder(root: Path, tmp_path: Path, name: str, message: str) -> None:
    (root / name).rename(root / "elsewhere")
    with pytest.raises(BenchError, match=f"{name}: {message}; put .*dataset.options"):
        prepare(root, tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [{"id": 1', "not valid JSON .*; fetch the file again"),
        ("\x00\x01", "not valid JSON"),
        ([{"id": 1}], "holds a list; an instances file in COCO format is a mapping"),
        ({"images": [], "categories": []}, "has no list 'annotations'"),
        ({"images": {}, "annotations": [], "categories": []}, "has no list 'images'"),
        ({"images": [], "annotations": [], "categories": []}, "has no category"),
    ],
)
def test_wrong_content(root: Path, tmp_path: Path, content: Any, message: str) -> None:
    write(root, "train2017", content)
    with pytest.raises(BenchError, match=rf"instances_train2017\.json: .*{message}"):
        prepare(root, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_missing_images_are_counted_and_named(root: Path, tmp_path: Path) -> None:
    (root / "train2017" / "1.png").unlink()
    with pytest.raises(BenchError, match=r"train2017: 1 of the 2 images of .* are missing, the first: 1\.png; put"):
        prepare(root, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_real_coco(shared_data: Path, tmp_path: Path) -> None:
    prepare(shared_data / "coco_mini", tmp_path)
    stores = {name: Store.open(tmp_path, name) for name in ("train", "val")}
    counts = {"train": (89, 811, 9), "val": (49, 495, 7)}
    for name, store in stores.items():
        given = json.loads((shared_data / f"coco_mini/annotations/instances_{name}2017.json").read_text())
        found = [note for number in store.image_ids for note in store.annotations(number)]
        assert (len(store.image_ids), len(found), sum(note["iscrowd"] for note in found)) == counts[name]
        assert store.image_ids == tuple(image["id"] for image in given["images"])
        by_id = {note["id"]: note for note in given["annotations"]}
        assert all(note == by_id[note["id"]] for note in found), "records are kept exactly"
    assert len(stores["train"].categories) == 80
    assert stores["train"].label_of[1] == 0
    assert stores["train"].label_of[90] == 79
    with Image.open(stores["val"].path(stores["val"].image_ids[0])) as image:
        assert image.size[::-1] == stores["val"].size(stores["val"].image_ids[0])


def unlabelled(root: Path, number: int) -> None:
    """Lay out one unlabelled image, as COCO has it: no list of annotations."""
    (root / "unlabeled2017").mkdir()
    Image.new("RGB", (6, 4)).save(root / "unlabeled2017" / f"{number}.png")
    image = {"id": number, "file_name": f"{number}.png", "height": 4, "width": 6}
    content = {"images": [image], "categories": [{"id": 1, "name": "one"}]}
    (root / "annotations" / "image_info_unlabeled2017.json").write_text(json.dumps(content))


def test_an_unlabelled_part(root: Path, tmp_path: Path) -> None:
    unlabelled(root, 9)
    prepare(root, tmp_path / "out")
    assert Store.parts(tmp_path / "out") == ("train", "val")
    prepare(root, tmp_path / "out", unlabelled_annotations="annotations/image_info_unlabeled2017.json")
    assert Store.parts(tmp_path / "out") == ("train", "val", "unlabelled")
    store = Store.open(tmp_path / "out", "unlabelled")
    assert store.image_ids == (9,)
    assert store.annotations(9) == []
    assert store.path(9).is_file()


def test_an_unlabelled_image_is_no_training_image(root: Path, tmp_path: Path) -> None:
    unlabelled(root, 2)
    with pytest.raises(BenchError, match=r"unlabeled2017\.json: image 2 is in .*instances_train2017\.json too; remove"):
        prepare(root, tmp_path / "out", unlabelled_annotations="annotations/image_info_unlabeled2017.json")
    assert not (tmp_path / "out").exists()
