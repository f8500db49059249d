"""Check that a folder in COCO format is read, and an incomplete one refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pais_bench.annotations.store import Store
from pais_bench.datasets.coco import Dataset, Options
from pais_bench.errors import BenchError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a dataset of two training images and one for validation."""
    root = tmp_path / "root"
    for year, ids in (("train2017", (2, 1)), ("val2017", (3,))):
        (root / year).mkdir(parents=True)
        for number in ids:
            Image.new("RGB", (6, 4)).save(root / year / f"{number}.png")
        images = [{"id": number, "file_name": f"{number}.png", "height": 4, "width": 6} for number in ids]
        square = {"id": 1, "image_id": ids[0], "category_id": 1, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
        write(root, year, {"images": images, "annotations": [square], "categories": [{"id": 1, "name": "car"}]})
    return root


def write(root: Path, year: str, content: Any) -> None:
    """Write an annotation file."""
    path = root / "annotations" / f"instances_{year}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def prepare(root: Path | None, folder: Path, **options: str) -> None:
    """Prepare the dataset with options."""
    Dataset(Options(**options), root).prepare(folder, "mine")


def test_any_layout_through_options(root: Path, tmp_path: Path) -> None:
    (root / "train2017" / "deep").mkdir()
    (root / "train2017" / "2.png").rename(root / "train2017" / "deep" / "2.png")
    (root / "train2017").rename(root / "pictures")
    old = root / "annotations" / "instances_train2017.json"
    (root / "mine.json").write_text(old.read_text().replace('"2.png"', '"deep/2.png"'))
    old.unlink()
    prepare(root, tmp_path / "out", train_annotations="mine.json", train_images="pictures")
    assert Store.open(tmp_path / "out", "train").path(2) == (root / "pictures" / "deep" / "2.png").resolve()


def test_classes_are_chosen_by_name_and_all_images_stay(root: Path, tmp_path: Path) -> None:
    for year in ("train2017", "val2017"):
        path = root / "annotations" / f"instances_{year}.json"
        content = json.loads(path.read_text())
        (car,) = content["annotations"]
        content["categories"].append({"id": 7, "name": "bus"})
        content["annotations"].append({**car, "id": 2, "category_id": 7})
        path.write_text(json.dumps(content))
    Dataset(Options(classes=["bus"]), root).prepare(tmp_path / "bus", "mine")
    store = Store.open(tmp_path / "bus", "train")
    assert list(store.categories) == [(7, "bus")] and sorted(store.image_ids) == [1, 2]
    assert [one["category_id"] for one in store.coco_dict()["annotations"]] == [7]
    with pytest.raises(BenchError, match=r"train2017\.json: no class 'van', .*it has car, bus"):
        Dataset(Options(classes=["bus", "van"]), root).prepare(tmp_path / "van", "mine")
    content["annotations"][1]["category_id"] = 9
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"val2017\.json: annotation 2"):
        Dataset(Options(classes=["bus"]), root).prepare(tmp_path / "bad", "mine")
    path.write_text(
        json.dumps({**content, "annotations": [3, {"category_id": []}], "categories": ["x", {"name": "bus"}]})
    )
    with pytest.raises(BenchError, match=r"val2017\.json: "):
        Dataset(Options(classes=["bus"]), root).prepare(tmp_path / "worse", "mine")


def test_root_is_missing_or_absent(tmp_path: Path) -> None:
    with pytest.raises(
        BenchError, match=r"dataset\.root: missing; give the folder that holds annotations/instances_tr"
    ):
        prepare(None, tmp_path)
    with pytest.raises(BenchError, match=r"nowhere: no such folder; set dataset\.root to the folder that holds"):
        prepare(tmp_path / "nowhere", tmp_path)


def test_a_mapping_instead_of_a_list(root: Path, tmp_path: Path) -> None:
    """Check the one fault of a file that test_validate.py does not have."""
    write(root, "train2017", {"images": {}, "annotations": [], "categories": []})
    with pytest.raises(BenchError, match=r"instances_train2017\.json: .*has a dict as 'images'; an instances file"):
        prepare(root, tmp_path / "out")


def test_real_coco(shared_data: Path, tmp_path: Path) -> None:
    prepare(shared_data / "coco_mini", tmp_path)
    stores = {name: Store.open(tmp_path, name) for name in ("train", "val")}
    counts = {"train": (89, 811, 9), "val": (49, 495, 7)}
    for name, store in stores.items():
        source = json.loads((shared_data / f"coco_mini/annotations/instances_{name}2017.json").read_text())
        anns = [ann for image_id in store.image_ids for ann in store.annotations(image_id)]
        assert (len(store.image_ids), len(anns), sum(ann["iscrowd"] for ann in anns)) == counts[name]
        assert store.coco_dict() == source
        assert store.image_ids == tuple(image["id"] for image in source["images"])
        ordered = sorted(source["annotations"], key=lambda ann: store.image_ids.index(ann["image_id"]))
        assert anns == ordered, "by image, and within one in the order of the file"
    assert len(stores["train"].categories) == 80
    assert stores["train"].label_of[1] == 0
    assert stores["train"].label_of[90] == 79
    with Image.open(stores["val"].path(stores["val"].image_ids[0])) as image:
        assert image.size[::-1] == stores["val"].size(stores["val"].image_ids[0])


def unlabelled(root: Path, number: int) -> None:
    """Write one unlabelled image as COCO does, without a list of annotations."""
    (root / "unlabeled2017").mkdir()
    Image.new("RGB", (6, 4)).save(root / "unlabeled2017" / f"{number}.png")
    image = {"id": number, "file_name": f"{number}.png", "height": 4, "width": 6}
    content = {"images": [image], "categories": [{"id": 1, "name": "car"}]}
    (root / "annotations" / "image_info_unlabeled2017.json").write_text(json.dumps(content))


def test_an_unlabelled_subset(root: Path, tmp_path: Path) -> None:
    unlabelled(root, 9)
    prepare(root, tmp_path / "out")
    assert Store.subsets(tmp_path / "out") == ("train", "val")
    prepare(root, tmp_path / "out", unlabelled_annotations="annotations/image_info_unlabeled2017.json")
    assert Store.subsets(tmp_path / "out") == ("train", "val", "unlabelled")
    store = Store.open(tmp_path / "out", "unlabelled")
    assert store.image_ids == (9,)
    assert store.annotations(9) == []
    assert store.path(9).is_file()


def test_unlabelled_images_have_numbers_of_their_own(root: Path, tmp_path: Path) -> None:
    unlabelled(root, 2)
    prepare(root, tmp_path / "out", unlabelled_annotations="annotations/image_info_unlabeled2017.json")
    paths = {name: Store.open(tmp_path / "out", name).path(2) for name in ("train", "unlabelled")}
    assert paths["train"].parent.name == "train2017" and paths["unlabelled"].parent.name == "unlabeled2017"


def test_an_unlabelled_image_is_no_training_image(root: Path, tmp_path: Path) -> None:
    unlabelled(root, 2)
    name = json.loads((root / "annotations" / "instances_train2017.json").read_text())["images"][0]["file_name"]
    path = root / "annotations" / "image_info_unlabeled2017.json"
    content = json.loads(path.read_text())
    content["images"][0] |= {"id": 77, "file_name": f"../train2017/{name}"}
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"unlabeled2017\.json: .*train2017.* is an image of .* too; remove"):
        prepare(root, tmp_path / "out", unlabelled_annotations="annotations/image_info_unlabeled2017.json")
    assert not (tmp_path / "out").exists()
