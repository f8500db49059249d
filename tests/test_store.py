"""Does a prepared dataset hold what it was given, and refuse what is wrong?"""

from __future__ import annotations

import copy
import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from pais_bench.store import Part, Store, write_store
from pais_bench.types import BenchError

TABLES = ("images", "annotations")
DIGEST = "f7c3419c92232bcf04a18f6b73bd67e0176a457655c78089cd89a12879842105"
"""That of the records below. Should it ever change, so does the identity of every split that was drawn."""
MIXED = '{"parts": {"train": {"folder": "images", "sha256": "0", "files": []}}}'
SQUARE = [10.25, 10.0, 20.0, 10.0, 20.0, 20.5]


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """Encode as a COCO file has it: counts as text."""
    region = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": region["counts"].decode()}


def note(number: int, image: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    """Make an annotation record."""
    box = [10.25, 10, 9.75, 10.5]
    return {"id": number, "image_id": image, "category_id": 7, "iscrowd": crowd, "area": 51.5, "bbox": box} | {
        "segmentation": segmentation
    }


@pytest.fixture
def records() -> dict[str, Any]:
    """Give images in an order that is not sorted, the middle one empty, with all three kinds of masks."""
    mask = np.zeros((40, 30), bool)
    mask[5:20, 4:9] = True
    crowd = {"size": [40, 30], "counts": [100, 50, 1050]}
    return {
        "images": [
            {"id": number, "file_name": f"sub/{number}.png", "height": 40, "width": 30, "license": 4}
            for number in (30, 5, 12)
        ],
        "annotations": [note(8, 30, [SQUARE]), note(3, 12, compressed(mask)), note(4, 30, crowd, crowd=1)],
        "categories": [{"id": 9, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}],
    }


def part(records: dict[str, Any], folder: Path) -> Part:
    """Make a part whose messages name file.json."""
    return Part("file.json", folder, **records)


def store(records: dict[str, Any], folder: Path) -> Store:
    """Write and open."""
    write_store(folder, "mine", {"train": part(records, folder / "images"), "val": part(records, folder / "images")})
    return Store.open(folder, "train")


def test_gives_back_what_was_written(records: dict[str, Any], tmp_path: Path) -> None:
    found = store(records, tmp_path)
    assert found.image_ids == (30, 5, 12)
    assert found.categories == ((7, "dog"), (9, "cat"))
    assert found.label_of == {7: 0, 9: 1}
    assert found.size(12) == (40, 30)
    assert found.path(12) == tmp_path / "images" / "sub" / "12.png"
    assert found.annotations(30) == [records["annotations"][0], records["annotations"][2]]
    assert found.annotations(12) == [records["annotations"][1]]
    assert found.annotations(5) == []


def test_gives_back_all_that_the_source_had(records: dict[str, Any], tmp_path: Path) -> None:
    records["annotations"][0] |= {"score": 0.5, "attributes": {"hidden": [None, True]}}
    records["annotations"][1]["segmentation"]["tool"] = "\ud800"
    records["images"][1] |= {"id": -(2**63), "coco_url": None}
    extra = {"info": {"year": 2017}, "licenses": [{"id": 4}], "big": 10**30}
    write_store(tmp_path, "mine", {"train": Part("file.json", tmp_path, **records, extra=extra)})
    assert Store.open(tmp_path, "train").coco_dict() == {**extra, **records}


def test_a_copy_in_another_process_maps_the_same_files(records: dict[str, Any], tmp_path: Path) -> None:
    found = store(records, tmp_path)
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    assert pickle.loads(sent).annotations(12) == found.annotations(12)


def test_any_part(records: dict[str, Any], tmp_path: Path) -> None:
    plain = {**records, "annotations": []}
    write_store(tmp_path, "mine", {"train": part(records, tmp_path), "unlabelled": part(plain, tmp_path)})
    assert Store.parts(tmp_path) == ("train", "unlabelled")
    found = Store.open(tmp_path, "unlabelled")
    assert found.annotations(5) == []
    assert len(found.objects().image_id) == 0
    assert found.coco_dict() == plain
    found.verify()


def test_objects_are_columns_in_the_order_of_the_images(records: dict[str, Any], tmp_path: Path) -> None:
    found = store(records, tmp_path).objects()
    assert found.image_id.tolist() == [30, 30, 12]
    assert found.category_id.tolist() == [7, 7, 7]
    assert found.crowd.tolist() == [False, True, False]


def test_manifest(records: dict[str, Any], tmp_path: Path) -> None:
    found = store(records, tmp_path)
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    assert manifest["label"] == "mine"
    assert manifest["classes"] == [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}]
    files = {f"train.{table}.arrow": (tmp_path / f"train.{table}.arrow").stat().st_size for table in TABLES}
    counts = {"images": 3, "annotations": 3, "repaired": 0}
    assert manifest["parts"]["train"] == {"folder": "images", **counts, "files": files, "sha256": found.digest}
    written = {"dataset.json"} | {f"{name}.{table}.arrow" for name in ("train", "val") for table in TABLES}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_digest_tells_content_from_place(records: dict[str, Any], tmp_path: Path) -> None:
    first = store(records, tmp_path / "a").digest
    assert store(records, tmp_path / "b").digest == first
    records["annotations"][0]["bbox"] = [10.25, 10, 9.75, 10.25]
    assert store(records, tmp_path / "c").digest != first


def test_digest_is_of_values_alone(records: dict[str, Any], tmp_path: Path) -> None:
    """Whole numbers for floats, and another order of keys, are the same content; another order of records is not."""
    assert store(records, tmp_path / "a").digest == DIGEST
    records["annotations"][0]["bbox"] = [10.25, 10.0, 9.75, 10.5]
    records["images"][0] = dict(reversed(records["images"][0].items()))
    assert store(records, tmp_path / "b").digest == DIGEST
    records["annotations"].reverse()
    assert store(records, tmp_path / "c").digest != DIGEST


def test_images_inside_move_along_images_outside_stay(records: dict[str, Any], tmp_path: Path) -> None:
    prepared, elsewhere = tmp_path / "prepared", tmp_path / "elsewhere"
    parts = {"train": part(records, prepared / "images"), "val": part(records, elsewhere)}
    write_store(prepared, "mine", parts)
    moved = shutil.move(prepared, tmp_path / "moved")
    assert Store.open(Path(moved), "train").path(5) == tmp_path / "moved" / "images" / "sub" / "5.png"
    assert Store.open(Path(moved), "val").path(5) == elsewhere.resolve() / "sub" / "5.png"


def test_what_an_evaluator_adds_stays_out_of_the_store(records: dict[str, Any], tmp_path: Path) -> None:
    found = store(records, tmp_path)
    for annotation in found.coco_dict()["annotations"]:
        annotation["ignore"] = 1
    assert "ignore" not in found.annotations(30)[0]
    assert [image["id"] for image in found.coco_dict()["images"]] == [30, 5, 12]


def test_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not a prepared dataset; run `pais-bench prepare` for this dataset first"):
        Store.open(tmp_path, "train")


def test_unknown_part(records: dict[str, Any], tmp_path: Path) -> None:
    store(records, tmp_path)
    with pytest.raises(BenchError, match="no part 'test'; choose one of train, val"):
        Store.open(tmp_path, "test")


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"parts": {"train": {"folder": "images"}}}', MIXED])
def test_damaged_manifest(records: dict[str, Any], tmp_path: Path, manifest: str) -> None:
    store(records, tmp_path)
    (tmp_path / "dataset.json").write_text(manifest)
    with pytest.raises(BenchError, match=r"dataset\.json: not .*run `pais-bench prepare` for this dataset again"):
        Store.open(tmp_path, "train")


def test_changed_or_missing_records(records: dict[str, Any], tmp_path: Path) -> None:
    store(records, tmp_path)
    path = tmp_path / "train.annotations.arrow"
    content = path.read_bytes()
    changed = content.replace(np.float64(51.5).tobytes(), np.float64(51.75).tobytes(), 1)
    path.write_bytes(changed)
    Store.open(tmp_path, "val").verify()
    with pytest.raises(BenchError, match="the records of part 'train' were changed since; .* again"):
        Store.open(tmp_path, "train").verify()
    path.write_bytes(content[:-10] + bytes(10))
    with pytest.raises(BenchError, match=r"train\.annotations\.arrow: not readable \(.*\); .* again"):
        Store.open(tmp_path, "train")
    path.write_bytes(content[:-10])
    with pytest.raises(BenchError, match=r"train\.annotations\.arrow: not the records that dataset\.json tells of"):
        Store.open(tmp_path, "train")
    path.unlink()
    with pytest.raises(BenchError, match=r"train\.annotations\.arrow: the records are missing; .* again"):
        Store.open(tmp_path, "train")


def test_parts_have_the_same_classes(records: dict[str, Any], tmp_path: Path) -> None:
    other = copy.deepcopy(records)
    other["categories"][0]["name"] = "horse"
    with pytest.raises(BenchError, match=r"other\.json: its categories differ from those of file\.json"):
        write_store(tmp_path, "mine", {"train": part(records, tmp_path), "val": Part("other.json", tmp_path, **other)})
    assert not (tmp_path / "dataset.json").exists()


def test_a_side_of_zero_passes(records: dict[str, Any], tmp_path: Path) -> None:
    """COCO's train2017 has annotation 918 with bbox [296.65, 388.33, 1.03, 0.0]."""
    records["annotations"][0] |= {"bbox": [10, 10, 1.03, 0.0], "area": 0.0}
    assert store(records, tmp_path).annotations(30)[0]["bbox"] == [10, 10, 1.03, 0.0]


WRONG = [
    ("images", 0, {"id": 5}, "image 5 is there twice"),
    ("images", 0, {"id": "30"}, "image number 0 of the list has no 'id'"),
    ("images", 0, {"height": 0}, "image 30 has height 0 and width 30"),
    ("images", 0, {"width": 30.5}, "image 30 has height 40 and width 30.5"),
    ("images", 0, {"width": 2**29}, "image 30 has height 40 and width 536870912"),
    ("images", 0, {"width": True}, "image 30 has height 40 and width True"),
    ("images", 0, {"file_name": "a\0b"}, "image 30 has file_name 'a\\x00b'"),
    ("images", 0, {"file_name": "\ud800"}, "image 30 has file_name"),
    ("images", 0, {"file_name": ""}, "image 30 has file_name ''"),
    ("categories", 0, {"id": 7}, "category 7 is there twice"),
    ("categories", 0, {"name": 3}, "category 9 has name 3"),
    ("annotations", 0, {"id": 3}, "annotation 3 is there twice"),
    ("annotations", 0, {"id": None}, "annotation number 0 of the list has no 'id'"),
    ("annotations", 0, {"image_id": 31}, "annotation 8 has image_id 31, which the file does not list"),
    ("annotations", 0, {"category_id": 8}, "annotation 8 has category_id 8, which the file does not list"),
    ("annotations", 0, {"image_id": [30]}, "annotation 8 has image_id"),
    ("annotations", 0, {"iscrowd": 2}, "annotation 8 has iscrowd 2"),
    ("annotations", 0, {"bbox": [0, 0, math.nan, 5]}, "annotation 8 has bbox"),
    ("annotations", 0, {"bbox": [0, 0, math.inf, 5]}, "annotation 8 has bbox"),
    ("annotations", 0, {"bbox": [0, 0, 5, -1]}, "annotation 8 has bbox"),
    ("annotations", 0, {"bbox": [0, 0, 5]}, "annotation 8 has bbox"),
    ("annotations", 0, {"bbox": None}, "annotation 8 has bbox"),
    ("annotations", 0, {"area": math.nan}, "annotation 8 has area nan"),
    ("annotations", 0, {"segmentation": []}, "annotation 8 has no segmentation"),
    ("annotations", 0, {"segmentation": [[1, 2, 3, 4]]}, "annotation 8 has a polygon with fewer than 3 points"),
    ("annotations", 0, {"segmentation": [[*SQUARE, 1]]}, "annotation 8 has a polygon"),
    ("annotations", 0, {"segmentation": [[*SQUARE[:5], math.nan]]}, "annotation 8 has a polygon"),
    ("annotations", 0, {"segmentation": [SQUARE, "x"]}, "annotation 8 has a polygon"),
    ("annotations", 1, {"segmentation": {"size": [30, 40], "counts": "0"}}, "annotation 3 has an RLE of size"),
    ("annotations", 1, {"segmentation": {"size": [40, 30]}}, "annotation 3 has an RLE"),
    (
        "annotations",
        2,
        {"segmentation": {"size": [40, 30], "counts": [100, 50]}},
        "annotation 4 has an RLE whose counts",
    ),
    ("annotations", 2, {"segmentation": {"size": [40, 30], "counts": ["a"]}}, "annotation 4 has an RLE"),
]


@pytest.mark.parametrize(("key", "position", "change", "message"), WRONG)
def test_refuses_a_wrong_record(
    records: dict[str, Any], tmp_path: Path, key: str, position: int, change: dict[str, Any], message: str
) -> None:
    records[key][position] |= change
    with pytest.raises(BenchError) as caught:
        store(records, tmp_path)
    assert str(caught.value).startswith(f"file.json: {message}")
    assert "; " in str(caught.value), "a remedy follows"
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(("key", "name"), [("images", "height"), ("annotations", "iscrowd"), ("categories", "name")])
def test_refuses_a_missing_key(records: dict[str, Any], tmp_path: Path, key: str, name: str) -> None:
    del records[key][0][name]
    with pytest.raises(BenchError, match=rf"^file\.json: \w+ \d+ has no '{name}'; add the key"):
        store(records, tmp_path)


@pytest.mark.parametrize("key", ["images", "categories"])
def test_refuses_an_empty_list(records: dict[str, Any], tmp_path: Path, key: str) -> None:
    records |= {key: [], "annotations": []}
    with pytest.raises(BenchError, match=r"^file\.json: it has no (image|category)"):
        store(records, tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "cocoapi_eval/instances_val2014_100.json",
        "coco_mini/annotations/instances_train2017.json",
        "coco_mini/annotations/instances_val2017.json",
    ],
)
def test_real_records_pass_unchanged(shared_data: Path, tmp_path: Path, name: str) -> None:
    given = json.loads((shared_data / name).read_text())
    keys = ("images", "annotations", "categories")
    extra = {key: value for key, value in given.items() if key not in keys}
    write_store(tmp_path, "mine", {"val": Part(name, tmp_path, *map(given.get, keys), extra=extra)})
    found = Store.open(tmp_path, "val")
    assert found.coco_dict() == given
    assert found.image_ids == tuple(image["id"] for image in given["images"])
    for image in given["images"]:
        notes = [note for note in given["annotations"] if note["image_id"] == image["id"]]
        assert found.annotations(image["id"]) == notes
