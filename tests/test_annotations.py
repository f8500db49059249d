"""Check that a store returns the records that it was given, and refuses invalid ones."""

from __future__ import annotations

import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.errors import BenchError

TABLES = ("images", "annotations")
DIGEST = "3533d75e1a35ddda0e7a11a6c780cc16541d8d0ae814c9434dd95fc1bf55c4a8"
"""Digest of the records below; if it changes, so does the identity of every split."""
MIXED = '{"subsets": {"train": {"folder": "images", "sha256": "0", "files": []}}}'
SQUARE = [10.25, 10.0, 20.0, 10.0, 20.0, 20.5]


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask as a COCO file has it: counts as text."""
    counts = rle.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
    return {"size": list(mask.shape), "counts": counts.decode()}


def annotation(annotation_id: int, image_id: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    """Return an annotation record."""
    return {
        **{"id": annotation_id, "image_id": image_id, "category_id": 7, "iscrowd": crowd, "area": 51.5},
        **{"bbox": [10.25, 10, 9.75, 10.5], "segmentation": segmentation},
    }


@pytest.fixture
def records() -> dict[str, Any]:
    """Return unsorted images, the middle one empty, with all three formats of masks."""
    mask = np.zeros((40, 30), bool)
    mask[5:20, 4:9] = True
    crowd = {"size": [40, 30], "counts": [100, 50, 1050]}
    return {
        "images": [
            {"id": number, "file_name": f"sub/{number}.png", "height": 40, "width": 30, "license": 4}
            for number in (30, 5, 12)
        ],
        "annotations": [
            annotation(8, 30, [SQUARE]),
            annotation(3, 12, compressed(mask)),
            annotation(4, 30, crowd, crowd=1),
        ],
        "categories": [{"id": 9, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}],
    }


def subset(records: dict[str, Any], folder: Path) -> Subset:
    """Return a subset whose messages name file.json."""
    return Subset("file.json", folder, **records)


def write(records: dict[str, Any], folder: Path) -> Store:
    """Write a store and open it."""
    write_store(folder, "mine", {name: subset(records, folder / "images") for name in ("train", "val")})
    return Store.open(folder, "train")


def test_records_by_image(records: dict[str, Any], tmp_path: Path) -> None:
    store = write(records, tmp_path)
    assert store.image_ids == (30, 5, 12)
    assert store.categories == ((7, "dog"), (9, "cat"))
    assert store.label_of == {7: 0, 9: 1}
    assert store.size(12) == (40, 30)
    assert store.path(12) == tmp_path / "images" / "sub" / "12.png"
    assert store.annotations(30) == [records["annotations"][0], records["annotations"][2]]
    assert store.annotations(12) == [records["annotations"][1]]
    assert store.annotations(5) == []
    objects = store.objects()
    assert objects.image_id.tolist() == [30, 30, 12]
    assert objects.category_id.tolist() == [7, 7, 7]
    assert objects.crowd.tolist() == [False, True, False]
    for record in store.coco_dict()["annotations"]:
        record["ignore"] = 1
    assert "ignore" not in store.annotations(30)[0], "coco_dict returns a copy"


def test_coco_dict_has_every_field_of_the_source(records: dict[str, Any], tmp_path: Path) -> None:
    records["annotations"][0] |= {"score": 0.5, "attributes": {"hidden": [None, True]}}
    records["annotations"][1]["segmentation"]["tool"] = "\ud800"
    records["images"][1] |= {"id": -(2**63), "coco_url": None}
    extra = {"info": {"year": 2017}, "licenses": [{"id": 4}], "big": 10**30}
    write_store(tmp_path, "mine", {"train": Subset("file.json", tmp_path, **records, extra=extra)})
    assert Store.open(tmp_path, "train").coco_dict() == {**extra, **records}


def test_a_copy_in_another_process_maps_the_same_files(records: dict[str, Any], tmp_path: Path) -> None:
    store = write(records, tmp_path)
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert pickle.loads(sent).annotations(12) == store.annotations(12)


def test_a_subset_without_annotations(records: dict[str, Any], tmp_path: Path) -> None:
    bare = {**records, "annotations": []}
    write_store(tmp_path, "mine", {"train": subset(records, tmp_path), "unlabelled": subset(bare, tmp_path)})
    assert Store.subsets(tmp_path) == ("train", "unlabelled")
    store = Store.open(tmp_path, "unlabelled")
    assert store.annotations(5) == []
    assert len(store.objects().image_id) == 0
    assert store.coco_dict() == bare
    store.verify()


def test_manifest(records: dict[str, Any], tmp_path: Path) -> None:
    store = write(records, tmp_path)
    manifest = json.loads((tmp_path / "dataset.json").read_text())
    assert manifest["label"] == "mine"
    assert manifest["classes"] == [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}]
    files = {f"train.{table}.arrow": (tmp_path / f"train.{table}.arrow").stat().st_size for table in TABLES}
    unlike = "boxes are not those of the masks in 2 of 3 annotations, the first: annotation 3"
    (note,) = manifest["subsets"]["train"]["notes"]
    assert note.startswith(f"file.json: {unlike}; write bbox as x, y, width, height in pixels")
    counts = {"images": 3, "annotations": 3, "repaired": 0, "notes": [note]}
    assert manifest["subsets"]["train"] == {"folder": "images", **counts, "files": files, "sha256": store.digest}
    written = {"dataset.json"} | {f"{name}.{table}.arrow" for name in ("train", "val") for table in TABLES}
    assert {path.name for path in tmp_path.iterdir()} == written


def test_the_digest_depends_on_values_and_the_order_of_records(records: dict[str, Any], tmp_path: Path) -> None:
    """Check that it depends on nothing else: neither on the folder nor on the order of keys."""
    assert write(records, tmp_path / "a").digest == DIGEST
    for key in ("annotations", "images"):
        records[key][0] = dict(reversed(records[key][0].items()))
    assert write(records, tmp_path / "b").digest == DIGEST
    records["annotations"].reverse()
    assert write(records, tmp_path / "c").digest != DIGEST
    records["annotations"].reverse()
    records["annotations"][0]["bbox"] = [10.25, 10, 9.75, 10.25]
    assert write(records, tmp_path / "d").digest != DIGEST


def test_images_inside_move_along_images_outside_stay(records: dict[str, Any], tmp_path: Path) -> None:
    prepared, elsewhere = tmp_path / "prepared", tmp_path / "elsewhere"
    subsets = {"train": subset(records, prepared / "images"), "val": subset(records, elsewhere)}
    write_store(prepared, "mine", subsets)
    moved = shutil.move(prepared, tmp_path / "moved")
    assert Store.open(Path(moved), "train").path(5) == tmp_path / "moved" / "images" / "sub" / "5.png"
    assert Store.open(Path(moved), "val").path(5) == elsewhere.resolve() / "sub" / "5.png"


def test_no_dataset_or_no_such_subset(records: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not a prepared dataset; run `pais-bench prepare`"):
        Store.open(tmp_path, "train")
    write(records, tmp_path)
    with pytest.raises(BenchError, match="no subset 'test'; choose one of train, val"):
        Store.open(tmp_path, "test")


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"subsets": {"train": {"folder": "images"}}}', MIXED])
def test_damaged_manifest(records: dict[str, Any], tmp_path: Path, manifest: str) -> None:
    write(records, tmp_path)
    (tmp_path / "dataset.json").write_text(manifest)
    with pytest.raises(BenchError, match=r"dataset\.json: not .*run `pais-bench prepare` for this dataset again"):
        Store.open(tmp_path, "train")


def test_changed_or_missing_records(records: dict[str, Any], tmp_path: Path) -> None:
    write(records, tmp_path)
    path = tmp_path / "train.annotations.arrow"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"51.5", b"51.7", 1))
    Store.open(tmp_path, "val").verify()
    with pytest.raises(BenchError, match="the records of subset 'train' were changed since; .* again"):
        Store.open(tmp_path, "train").verify()
    path.write_bytes(content[:-10] + bytes(10))
    with pytest.raises(BenchError, match=r"train\.annotations\.arrow: not readable \(.*\); .* again"):
        Store.open(tmp_path, "train")
    path.write_bytes(content[:-10])
    with pytest.raises(BenchError, match=r"train\.annotations\.arrow: does not have the size that dataset"):
        Store.open(tmp_path, "train")
    path.unlink()
    with pytest.raises(BenchError, match=r"train\.annotations\.arrow: the records are missing; .* again"):
        Store.open(tmp_path, "train")


def test_a_side_of_zero_passes(records: dict[str, Any], tmp_path: Path) -> None:
    """Accept a bbox as annotation 918 of COCO's train2017 has it: [296.65, 388.33, 1.03, 0.0]."""
    records["annotations"] = [records["annotations"][0] | {"bbox": [10, 10, 1.03, 0.0], "area": 0.0}]
    assert write(records, tmp_path).annotations(30)[0]["bbox"] == [10, 10, 1.03, 0.0]


INVALID = [
    ("images", {"width": 30.5}, "image 30 has height 40 and width 30.5"),
    ("images", {"width": 2**29}, "image 30 has height 40 and width 536870912"),
    ("images", {"width": True}, "image 30 has height 40 and width True"),
    ("images", {"file_name": "a\0b"}, "image 30 has file_name 'a\\x00b'"),
    ("images", {"file_name": "\ud800"}, "image 30 has file_name"),
    ("annotations", {"image_id": [30]}, "annotation 8 has image_id"),
    ("annotations", {"bbox": [0, 0, math.inf, 5]}, "annotation 8 has bbox"),
    ("annotations", {"bbox": [0, 0, 5]}, "annotation 8 has bbox"),
    ("annotations", {"bbox": [0, 0, None, 5]}, "annotation 8 has bbox"),
    ("annotations", {"area": math.nan}, "annotation 8 has area nan"),
    ("annotations", {"segmentation": [SQUARE, "x"]}, "annotation 8 has 'x' where a polygon"),
    ("annotations", {"segmentation": {"size": [40, 30]}}, "annotation 8 has an RLE"),
    ("annotations", {"segmentation": {"size": [40, 30], "counts": ["a"]}}, "annotation 8 has an RLE"),
]
"""Changes of the first record that test_validate.py does not make."""


@pytest.mark.parametrize(("key", "change", "message"), INVALID)
def test_refuses_an_invalid_record(
    records: dict[str, Any], tmp_path: Path, key: str, change: dict[str, Any], message: str
) -> None:
    records[key][0] |= change
    with pytest.raises(BenchError) as caught:
        write(records, tmp_path)
    assert str(caught.value).startswith(f"file.json: {message}")
    assert "; " in str(caught.value), "a remedy follows"
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize(("key", "name"), [("images", "height"), ("categories", "name")])
def test_refuses_a_missing_key(records: dict[str, Any], tmp_path: Path, key: str, name: str) -> None:
    del records[key][0][name]
    with pytest.raises(BenchError, match=rf"^file\.json: \w+ \d+ has no '{name}'; add the key"):
        write(records, tmp_path)


def test_real_records_are_kept_exactly(shared_data: Path, tmp_path: Path) -> None:
    """Check the evaluation example of pycocotools; test_coco_dataset.py has COCO's own files."""
    source = json.loads((shared_data / "cocoapi_eval" / "instances_val2014_100.json").read_text())
    keys = ("images", "annotations", "categories")
    extra = {key: value for key, value in source.items() if key not in keys}
    write_store(tmp_path, "mine", {"val": Subset("file.json", tmp_path, *map(source.get, keys), extra=extra)})
    store = Store.open(tmp_path, "val")
    assert store.coco_dict() == source
    assert store.image_ids == tuple(image["id"] for image in source["images"])
    for image in source["images"]:
        expected = [record for record in source["annotations"] if record["image_id"] == image["id"]]
        assert store.annotations(image["id"]) == expected
