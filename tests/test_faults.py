"""Is every fault refused in the words of docs/faults.md, with nothing written, and mended where the table says so?"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import ROOT
from PIL import Image

from pais_bench.datasets.coco import Dataset, Options
from pais_bench.store import Store
from pais_bench.types import BenchError

TRAIN, VAL = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
TRIANGLE = [1, 1, 5, 1, 5, 3.5]
CONTENT: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [{"id": number, "file_name": f"{number}.png", "height": 4, "width": 6} for number in (2, 1)],
    "annotations": [
        {"id": number, "image_id": image, "category_id": 7, "iscrowd": 0, "area": 5, "bbox": [1, 1, 4, 2.5]}
        for number, image in ((8, 2), (3, 1), (4, 2))
    ],
    "categories": [{"id": 9, "name": "cat"}, {"id": 7, "name": "dog"}],
}
MASKS = ([TRIANGLE], {"size": [4, 6], "counts": "45?"}, {"size": [4, 6], "counts": [4, 5, 15]})
for record, segmentation in zip(CONTENT["annotations"], MASKS, strict=True):
    record["segmentation"] = segmentation


class Fault(NamedTuple):
    """Change the training file, or return its new bytes, or change the folder, into one with a fault."""

    title: str
    change: Callable[[dict[str, Any], Path], Any]
    message: str
    mended: bool = False


def at(key: str, position: int, **values: Any) -> Callable[[dict[str, Any], Path], Any]:
    """Change values of one record."""
    return lambda content, root: content[key][position].update(values)


def mask(value: Any) -> Callable[[dict[str, Any], Path], Any]:
    """Change the first mask."""
    return at("annotations", 0, segmentation=value)


def nested(depth: int) -> bytes:
    return b'{"images": ' + b"[" * depth + b"]" * depth + b"}"


FILES = "an instances file in COCO format is a mapping with the lists images, annotations, categories"
KNOWN = "remove the annotation, or add what it refers to"
WHOLE = "give the size of the file in whole pixels"
SIDES = "give x, y, width, height in pixels, none negative or infinite"
XY = "give x0, y0, x1, y1, x2, y2, ... in pixels"
POINTS = f"has a polygon with fewer than 3 points, or an odd or infinite coordinate; {XY}"
COUNTS = "annotation 8 has an RLE whose counts are not those of 24 pixels; encode the mask again"
FAULTS = [
    Fault(
        "missing annotation file",
        lambda content, root: (root / VAL).unlink(),
        f"{VAL}: no such annotation file; put it there, or name it in dataset.options",
    ),
    Fault(
        "missing image folder",
        lambda content, root: (root / "val2017").rename(root / "val"),
        "val2017: no such image folder; put the images there, or name it in dataset.options",
    ),
    Fault(
        "truncated JSON",
        lambda content, root: json.dumps(content).encode()[:40],
        f"{TRAIN}: not valid JSON (Unterminated string starting at: line 1 column 38 (char 37)); fetch the file again",
    ),
    Fault(
        "not UTF-8",
        lambda content, root: b'{"images": "\xff\xff"}',
        f"{TRAIN}: not valid JSON ('utf-8' codec can't decode byte 0xff in position 12: invalid start byte); "
        "fetch the file again",
    ),
    Fault(
        "huge nesting",
        lambda content, root: nested(200_000),
        f"{TRAIN}: not valid JSON (nested too deeply); fetch the file again",
    ),
    Fault("wrong top-level type", lambda content, root: b"[1]", f"{TRAIN}: holds a list; {FILES}"),
    Fault("missing list", lambda content, root: b'{"images": []}', f"{TRAIN}: has no list 'annotations'; {FILES}"),
    Fault(
        "empty image list",
        lambda content, root: content.update(images=[]),
        f"{TRAIN}: it has no image; give a file that has some",
    ),
    Fault(
        "empty category list",
        lambda content, root: content.update(categories=[]),
        f"{TRAIN}: it has no category; give a file that has some",
    ),
    Fault(
        "classes that differ between the parts",
        at("categories", 0, name="horse"),
        f"{VAL}: its categories differ from those of {TRAIN}; give both the same ids and names",
    ),
    Fault(
        "not a record",
        lambda content, root: content["images"].insert(1, 5),
        f"{TRAIN}: image number 1 of the list has no 'id'; give it an integer",
    ),
    Fault(
        "text for an id",
        at("images", 0, id="2"),
        f"{TRAIN}: image number 0 of the list has no 'id'; give it an integer",
    ),
    Fault(
        "boolean for an id",
        at("annotations", 2, id=True),
        f"{TRAIN}: annotation number 2 of the list has no 'id'; give it an integer",
    ),
    Fault(
        "id of more than 64 bits",
        at("categories", 1, id=2**63),
        f"{TRAIN}: category number 1 of the list has no 'id'; give it an integer",
    ),
    Fault(
        "missing key",
        lambda content, root: content["annotations"][0].pop("area"),
        f"{TRAIN}: annotation 8 has no 'area'; add the key, as the COCO format has it",
    ),
    Fault(
        "duplicate image id",
        at("images", 1, id=2),
        f"{TRAIN}: image 2 is there twice; give every image an id of its own",
    ),
    Fault(
        "duplicate category id",
        at("categories", 1, id=9),
        f"{TRAIN}: category 9 is there twice; give every category an id of its own",
    ),
    Fault(
        "duplicate annotation id",
        at("annotations", 2, id=8),
        f"{TRAIN}: annotation 8 is there twice; give every annotation an id of its own",
        mended=True,
    ),
    Fault(
        "category without a name",
        at("categories", 0, name=3),
        f"{TRAIN}: category 9 has name 3; give it a name in quotes",
    ),
    Fault("height of zero", at("images", 0, height=0), f"{TRAIN}: image 2 has height 0 and width 6; {WHOLE}"),
    Fault("negative width", at("images", 0, width=-6), f"{TRAIN}: image 2 has height 4 and width -6; {WHOLE}"),
    Fault("text for a size", at("images", 0, width="6"), f"{TRAIN}: image 2 has height 4 and width '6'; {WHOLE}"),
    Fault(
        "empty file name",
        at("images", 0, file_name=""),
        f"{TRAIN}: image 2 has file_name ''; name its file in the image folder",
    ),
    Fault(
        "missing image file",
        lambda content, root: (root / "train2017/1.png").unlink(),
        f"train2017: 1 of the 2 images of {TRAIN} are missing, the first: 1.png; put them there",
        mended=True,
    ),
    Fault(
        "unreadable image",
        lambda content, root: (root / "train2017/1.png").write_bytes(b"torn"),
        "train2017/1.png: unreadable image (cannot identify image file 'train2017/1.png'); replace the file",
        mended=True,
    ),
    Fault(
        "image of another size than recorded",
        lambda content, root: Image.new("RGB", (7, 4)).save(root / "train2017/1.png"),
        f"train2017/1.png: 7 x 4 pixels, but image 1 is 6 x 4 in {TRAIN}; replace the file, or correct the record",
    ),
    Fault(
        "annotation of an unknown image",
        at("annotations", 0, image_id=30),
        f"{TRAIN}: annotation 8 has image_id 30, which the file does not list; {KNOWN}",
        mended=True,
    ),
    Fault(
        "annotation of an unknown category",
        at("annotations", 0, category_id=8),
        f"{TRAIN}: annotation 8 has category_id 8, which the file does not list; {KNOWN}",
        mended=True,
    ),
    Fault(
        "iscrowd that is neither 0 nor 1",
        at("annotations", 0, iscrowd=2),
        f"{TRAIN}: annotation 8 has iscrowd 2; give 0, or 1 for a crowd region",
    ),
    Fault(
        "box that is not finite",
        at("annotations", 0, bbox=[0, 0, math.nan, 5]),
        f"{TRAIN}: annotation 8 has bbox [0, 0, nan, 5]; {SIDES}",
        mended=True,
    ),
    Fault(
        "box with a negative side",
        at("annotations", 0, bbox=[0, 0, 5, -1]),
        f"{TRAIN}: annotation 8 has bbox [0, 0, 5, -1]; {SIDES}",
        mended=True,
    ),
    Fault(
        "text for a number",
        at("annotations", 0, bbox=[0, 0, "5", 1]),
        f"{TRAIN}: annotation 8 has bbox [0, 0, '5', 1]; {SIDES}",
        mended=True,
    ),
    Fault(
        "area that is negative or not finite",
        at("annotations", 0, area=-1),
        f"{TRAIN}: annotation 8 has area -1; give the number of its pixels",
        mended=True,
    ),
    Fault(
        "empty segmentation",
        mask([]),
        f"{TRAIN}: annotation 8 has no segmentation; give polygons or an RLE, or remove it",
        mended=True,
    ),
    Fault("polygon of fewer than 3 points", mask([[1, 2, 3, 4]]), f"{TRAIN}: annotation 8 {POINTS}", mended=True),
    Fault("polygon of an odd count", mask([[*TRIANGLE, 1]]), f"{TRAIN}: annotation 8 {POINTS}", mended=True),
    Fault(
        "polygon that is not finite", mask([[*TRIANGLE[:5], math.nan]]), f"{TRAIN}: annotation 8 {POINTS}", mended=True
    ),
    Fault(
        "polygon far outside of its image",
        mask([[*TRIANGLE[:5], 1e9]]),
        f"{TRAIN}: annotation 8 has a polygon that leaves its image of 6 x 4 by more than its longer side; {XY}",
        mended=True,
    ),
    Fault(
        "RLE of another size than its image",
        mask({"size": [6, 4], "counts": [24]}),
        f"{TRAIN}: annotation 8 has an RLE of size [6, 4] on an image of [4, 6]; "
        "encode the mask at the image's height and width",
        mended=True,
    ),
    *(
        Fault(title, mask({"size": [4, 6], "counts": counts}), f"{TRAIN}: {COUNTS}", mended=True)
        for title, counts in (
            ("RLE that does not cover its image", [4, 5]),
            ("RLE that overflows its image", [4, 5, 150]),
            ("RLE with a negative count", [25, -1]),
            ("compressed RLE that does not cover its image", "45"),
            ("compressed RLE that overflows its image", "45PPPPP1"),
            ("compressed RLE that ends within a count", "45P"),
            ("compressed RLE with a character that is none of its own", "45\u00e9"),
        )
    ),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Lay out a sound dataset with all kinds of masks."""
    root = tmp_path / "root"
    (root / "annotations").mkdir(parents=True)
    for name in ("train", "val"):
        (root / f"{name}2017").mkdir()
        (root / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(CONTENT))
        for number in (1, 2):
            Image.new("RGB", (6, 4)).save(root / f"{name}2017" / f"{number}.png")
    return root


def break_it(fault: Fault, root: Path) -> None:
    """Put the fault into the training part."""
    content = copy.deepcopy(CONTENT)
    changed = fault.change(content, root)
    (root / TRAIN).write_bytes(changed if isinstance(changed, bytes) else json.dumps(content).encode())


def test_without_a_fault(root: Path, tmp_path: Path) -> None:
    Dataset(Options(), root).prepare(tmp_path / "out", "mine")
    assert Store.open(tmp_path / "out", "train").coco_dict() == CONTENT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.title)
def test_refused_in_these_words_and_mended_or_not(fault: Fault, root: Path, tmp_path: Path) -> None:
    break_it(fault, root)
    with pytest.raises(BenchError) as caught:
        Dataset(Options(), root).prepare(tmp_path / "out", "mine")
    assert str(caught.value).replace(f"{root}/", "") == fault.message
    assert not (tmp_path / "out").exists(), "nothing is written"
    lines: list[str] = []
    if not fault.mended:
        with pytest.raises(BenchError):
            Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True, tell=lines.append)
        return
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True, tell=lines.append)
    dropped = json.loads((tmp_path / "out" / "repaired.json").read_text())["train"]
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())["parts"]
    assert manifest["train"]["repaired"] == len(dropped) >= 1
    assert manifest["val"]["repaired"] == 0
    assert any(line.startswith("dropped ") and dropped[0]["reason"] in line for line in lines)
    kept = Store.open(tmp_path / "out", "train").coco_dict()
    assert len(kept["images"]) + len(kept["annotations"]) + len(dropped) == 5
    assert all(one["record"] not in kept[one["list"]] for one in dropped)


def test_what_was_sound_is_not_repaired(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "repaired.json").write_text("of before")
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True)
    assert not (tmp_path / "out" / "repaired.json").exists()


def test_annotations_of_a_dropped_image_are_dropped_with_it(root: Path, tmp_path: Path) -> None:
    (root / "train2017" / "1.png").unlink()
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True)
    image, annotation = json.loads((tmp_path / "out" / "repaired.json").read_text())["train"]
    assert (image["list"], image["position"], image["record"]["id"]) == ("images", 1, 1)
    assert annotation["reason"].endswith("annotation 3 is of image 1, which was dropped")
    assert annotation["record"] == CONTENT["annotations"][1]


def test_the_table_is_true() -> None:
    """Compare docs/faults.md with the list above; the rows of the annotations are in its first section."""
    text = (ROOT / "docs" / "faults.md").read_text()
    section = text.split("\n## ")[1]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert rows == [f"| {one.title} | {one.message} | {'dropped' if one.mended else 'no'} |" for one in FAULTS]
