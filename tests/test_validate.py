"""Check that every fault is refused in the words of docs/reference/faults.md, and repaired where its table says so."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from PIL import Image

from pais_bench.annotations.store import Store
from pais_bench.datasets.coco import Dataset, Options
from pais_bench.errors import BenchError

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

Change = Callable[[dict[str, Any], Path], Any]
"""A change of the training file's content or of the folder, or a function that returns the file's new bytes."""


def at(key: str, position: int, **values: Any) -> Change:
    """Return a change of values of one record."""
    return lambda content, root: content[key][position].update(values)


def mask(value: Any) -> Change:
    """Return a change of the first mask."""
    return at("annotations", 0, segmentation=value)


def counts(value: Any) -> Change:
    """Return a change of the first mask into an RLE with these counts."""
    return mask({"size": [4, 6], "counts": value})


def rewrite(path: Path, **lists: Any) -> None:
    """Replace lists of a file."""
    path.write_text(json.dumps({**CONTENT, **lists}))


FAULTS: dict[str, Change] = {
    "missing annotation file": lambda content, root: (root / VAL).unlink(),
    "missing image folder": lambda content, root: (root / "val2017").rename(root / "val"),
    "truncated JSON": lambda content, root: json.dumps(content).encode()[:40],
    "not UTF-8": lambda content, root: b'{"images": "\xff\xff"}',
    "empty file": lambda content, root: b" ",
    "compressed file": lambda content, root: gzip.compress(json.dumps(content).encode()),
    "web page": lambda content, root: b"<!DOCTYPE html><html>404</html>",
    "pointer of Git LFS": lambda content, root: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
    "number of thousands of digits": lambda content, root: b'{"images": 1' + b"0" * 5000 + b"}",
    "key that is there twice": lambda content, root: json.dumps(content).encode()[:-1] + b', "annotations": []}',
    "huge nesting": lambda content, root: b'{"images": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "wrong top-level type": lambda content, root: b"[1]",
    "missing list": lambda content, root: b'{"images": []}',
    "mapping for a list": lambda content, root: content.update(images={"2": content["images"][0]}),
    "empty image list": lambda content, root: content.update(images=[]),
    "empty category list": lambda content, root: content.update(categories=[]),
    "classes that differ between the subsets": at("categories", 0, name="horse"),
    "no annotation": lambda content, root: content.update(annotations=[]),
    "crowd regions alone": lambda content, root: [record.update(iscrowd=1) for record in content["annotations"]],
    "validation set without an object": lambda content, root: rewrite(root / VAL, annotations=[]),
    "no class in both subsets": lambda content, root: (
        [record.update(category_id=7) for record in content["annotations"]],
        rewrite(root / VAL, annotations=[{**record, "category_id": 9} for record in CONTENT["annotations"]]),
    ),
    "not a record": lambda content, root: content["images"].insert(1, 5),
    "annotation that is no record": lambda content, root: content["annotations"].insert(1, 5),
    "text for an id": at("images", 0, id="two"),
    "boolean for an id": at("images", 0, id=True),
    "id of more than 64 bits": at("categories", 1, id=2**63),
    "missing key": lambda content, root: content["images"][0].pop("file_name"),
    "duplicate image id": at("images", 1, id=2),
    "duplicate category id": at("categories", 1, id=9),
    "annotation that is there twice": lambda content, root: content["annotations"].append(content["annotations"][0]),
    "two categories of one name": at("categories", 0, name="dog "),
    "category without a name": at("categories", 0, name=3),
    "isthing that is neither 0 nor 1": at("categories", 0, isthing=2),
    "two annotations of stuff in one image": at("categories", 1, isthing=0),
    "height of zero": at("images", 0, height=0),
    "negative width": at("images", 0, width=-6),
    "text for a size": at("images", 0, width="six"),
    "empty file name": at("images", 0, file_name=""),
    "missing image file": lambda content, root: (root / "train2017/1.png").unlink(),
    "unreadable image": lambda content, root: (root / "train2017/1.png").write_bytes(b"torn"),
    "image of another size than recorded": lambda content, root: Image.new("RGB", (7, 4)).save(
        root / "train2017/1.png"
    ),
    "annotation of an unknown image": at("annotations", 0, image_id=30),
    "annotation of an unknown category": at("annotations", 0, category_id=8),
    "iscrowd that is neither 0 nor 1": at("annotations", 0, iscrowd=2),
    "box that is not finite": at("annotations", 0, bbox=[0, 0, math.nan, 5]),
    "box with a negative side": at("annotations", 0, bbox=[0, 0, 5, -1]),
    "text for a number": at("annotations", 0, bbox=[0, 0, "five", 1]),
    "area that is negative or not finite": at("annotations", 0, area=-1),
    "empty segmentation": mask([]),
    "polygon of fewer than 3 points": mask([[1, 2, 3, 4]]),
    "short polygon beside a valid one": mask([TRIANGLE, [1, 2, 3, 4]]),
    "polygon of an odd count": mask([[*TRIANGLE, 1]]),
    "polygon that is not finite": mask([[*TRIANGLE[:5], math.nan]]),
    "polygon far outside of its image": mask([[*TRIANGLE[:5], 1e9]]),
    "RLE of another size than its image": mask({"size": [6, 4], "counts": [24]}),
    "RLE that does not cover its image": counts([4, 5]),
    "RLE that overflows its image": counts([4, 5, 150]),
    "RLE with a negative count": counts([25, -1]),
    "compressed RLE that does not cover its image": counts("45"),
    "compressed RLE that overflows its image": counts("45PPPPP1"),
    "compressed RLE that ends within a count": counts("45P"),
    "compressed RLE with a character that is none of its own": counts("45\u00e9"),
}
SECTION = (ROOT / "docs" / "reference" / "faults.md").read_text().split("\n## ")[1]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][1:]
"""The title, message and repair of every fault: the table is what the messages are compared with."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a valid dataset with all formats of masks."""
    root = tmp_path / "root"
    (root / "annotations").mkdir(parents=True)
    for name in ("train", "val"):
        (root / f"{name}2017").mkdir()
        (root / "annotations" / f"instances_{name}2017.json").write_text(json.dumps(CONTENT))
        for number in (1, 2):
            Image.new("RGB", (6, 4)).save(root / f"{name}2017" / f"{number}.png")
    return root


def test_a_valid_dataset_is_kept_and_not_repaired(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Dataset(Options(), root).prepare(out, "mine")
    store = Store.open(out, "train")
    assert store.coco_dict() == CONTENT
    assert store.path(2) == root / "train2017" / "2.png"
    (out / "repaired.json").write_text("stale")
    Dataset(Options(), root).prepare(out, "mine", repair=True)
    assert Store.open(out, "train").coco_dict() == CONTENT and not (out / "repaired.json").exists()


def test_the_documentation_lists_these_faults() -> None:
    assert [title for title, _, _ in ROWS] == list(FAULTS)
    assert {repair for _, _, repair in ROWS} == {"dropped", "changed", "no"}


@pytest.mark.parametrize(("title", "message", "repair"), ROWS, ids=[row[0] for row in ROWS])
def test_a_fault_is_refused_in_these_words_and_repaired_or_not(
    title: str, message: str, repair: str, root: Path, tmp_path: Path
) -> None:
    content = copy.deepcopy(CONTENT)
    changed = FAULTS[title](content, root)
    (root / TRAIN).write_bytes(changed if isinstance(changed, bytes) else json.dumps(content).encode())
    with pytest.raises(BenchError) as caught:
        Dataset(Options(), root).prepare(tmp_path / "out", "mine")
    assert str(caught.value).replace(f"{root}/", "") == message
    assert not (tmp_path / "out").exists(), "nothing is written"
    lines: list[str] = []
    if repair == "no":
        with pytest.raises(BenchError):
            Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True, progress=lines.append)
        return
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True, progress=lines.append)
    repaired = json.loads((tmp_path / "out" / "repaired.json").read_text())["train"]
    manifest = json.loads((tmp_path / "out" / "dataset.json").read_text())["subsets"]
    assert manifest["train"]["repaired"] == len(repaired) >= 1
    assert manifest["val"]["repaired"] == 0
    assert any(line.startswith(f"{repair} ") and repaired[0]["reason"] in line for line in lines)
    kept = Store.open(tmp_path / "out", "train").coco_dict()
    dropped = [entry for entry in repaired if "replacement" not in entry]
    assert len(dropped) == (len(repaired) if repair == "dropped" else 0)
    total = len(content["images"]) + len(content["annotations"])
    assert len(kept["images"]) + len(kept["annotations"]) + len(dropped) == total, "what can be kept is kept"
    for entry in repaired:
        assert repr(entry["record"]) not in map(repr, kept[entry["list"]][entry["position"] :])
        assert "replacement" not in entry or entry["replacement"] in kept[entry["list"]]


MASK = {"size": [4, 6], "counts": [5, 2, 2, 2, 13]}
ACCEPTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no iscrowd": ({"iscrowd": None}, {"iscrowd": 0}),
    "iscrowd as text": ({"iscrowd": "0"}, {"iscrowd": 0}),
    "no area": ({"segmentation": MASK, "area": None}, {"segmentation": MASK, "area": 4}),
    "no box": ({"segmentation": MASK, "bbox": None}, {"segmentation": MASK, "bbox": [1, 1, 2, 2]}),
    "no id": ({"id": None}, {"id": 1}),
    "text for an id": ({"id": "note_8"}, {"id": 1}),
    "huge id": ({"id": 2**63}, {"id": 1}),
    "repeated id": ({"id": 3}, {"id": 3}),
    "fractions of 0": ({"image_id": 2.0, "category_id": 7.0, "iscrowd": 0.0}, {}),
    "texts": ({"image_id": "2", "category_id": "7", "area": "5", "bbox": ["1", "1", "4", "2.5"]}, {}),
    "polygon of texts": ({"segmentation": [[str(value) for value in TRIANGLE]]}, {}),
    "flat polygon": ({"segmentation": TRIANGLE}, {}),
    "flat polygon of texts": ({"segmentation": [str(value) for value in TRIANGLE]}, {}),
    "pairs": ({"segmentation": [[1, 1], [5, 1], [5, 3.5]]}, {}),
    "pairs in a list": ({"segmentation": [[[1, 1], [5, 1], [5, 3.5]]]}, {}),
    "polygon in one list too many": ({"segmentation": [[TRIANGLE]]}, {}),
}
"""Changes of the first annotation that are accepted, and what it then differs in from the valid one."""


@pytest.mark.parametrize("form", ACCEPTED)
def test_what_needs_no_decision_is_accepted_with_a_note(form: str, root: Path, tmp_path: Path) -> None:
    content, (change, expected) = copy.deepcopy(CONTENT), ACCEPTED[form]
    content["annotations"][0] |= change
    for key in [key for key, value in change.items() if value is None]:
        del content["annotations"][0][key]
    (root / TRAIN).write_text(json.dumps(content))
    lines: list[str] = []
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", progress=lines.append)
    first, *others = Store.open(tmp_path / "out", "train").coco_dict()["annotations"]
    assert first == {**CONTENT["annotations"][0], **expected}
    assert others == [{**CONTENT["annotations"][1], "id": 1}, others[1]] if form == "repeated id" else True
    assert others[1] == CONTENT["annotations"][2]
    notes = json.loads((tmp_path / "out" / "dataset.json").read_text())["subsets"]["train"]["notes"]
    assert notes and set(notes) <= set(lines)
    assert all("1 annotation with " in note and note.startswith(str(root / TRAIN)) for note in notes)


def test_integers_of_images_and_categories_are_read_in_other_spellings(root: Path, tmp_path: Path) -> None:
    text = json.dumps(CONTENT).replace('"id": 2', '"id": "2"').replace('"height": 4', '"height": 4.0')
    (root / TRAIN).write_bytes(b"\xef\xbb\xbf" + text.replace('"id": 7', '"id": 7e0').encode())
    (root / VAL).write_bytes(json.dumps(CONTENT).encode("utf-16"))
    Dataset(Options(), root).prepare(tmp_path / "out", "mine")
    for name in ("train", "val"):
        assert Store.open(tmp_path / "out", name).coco_dict() == CONTENT


@pytest.mark.parametrize("number", [lambda position: 0, lambda position: position % 2])
def test_different_annotations_of_one_id_are_all_kept(number: Callable[[int], int], root: Path, tmp_path: Path) -> None:
    content = copy.deepcopy(CONTENT)
    for position, record in enumerate(content["annotations"]):
        record["id"] = number(position)
    (root / TRAIN).write_text(json.dumps(content))
    for repair in (False, True):
        Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=repair)
        kept = Store.open(tmp_path / "out", "train").coco_dict()["annotations"]
        assert [{**record, "id": 0} for record in kept] == [{**record, "id": 0} for record in CONTENT["annotations"]]
        assert len({record["id"] for record in kept}) == 3
        assert not (tmp_path / "out" / "repaired.json").exists()


def test_a_parent_category_is_no_class(root: Path, tmp_path: Path) -> None:
    """Check Roboflow's export: its first category has no object, and the name of the project or of a class."""
    for parent in ("dog", "pets"):
        classes = [{**record, "supercategory": parent} for record in CONTENT["categories"]]
        for path in (root / TRAIN, root / VAL):
            rewrite(path, categories=[{"id": 0, "name": parent, "supercategory": "none"}, *classes])
        Dataset(Options(), root).prepare(tmp_path / "out", "mine")
        assert Store.open(tmp_path / "out", "val").categories == ((7, "dog"), (9, "cat"))
    rewrite(root / VAL, categories=classes)
    Dataset(Options(), root).prepare(tmp_path / "out", "mine")
    used = [*CONTENT["annotations"], {**CONTENT["annotations"][0], "id": 99, "category_id": 0}]
    for path in (root / TRAIN, root / VAL):
        rewrite(path, categories=[{"id": 0, "name": "pets", "supercategory": "none"}, *classes], annotations=used)
    Dataset(Options(), root).prepare(tmp_path / "out", "mine")
    assert Store.open(tmp_path / "out", "val").categories == ((0, "pets"), (7, "dog"), (9, "cat"))


def test_annotations_of_a_dropped_image_are_dropped_with_it(root: Path, tmp_path: Path) -> None:
    (root / "train2017" / "1.png").unlink()
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True)
    image, annotation = json.loads((tmp_path / "out" / "repaired.json").read_text())["train"]
    assert (image["list"], image["position"], image["record"]["id"]) == ("images", 1, 1)
    assert annotation["reason"].endswith("annotation 3 is of image 1, which was dropped")
    assert annotation["record"] == CONTENT["annotations"][1]


def test_an_image_whose_masks_are_all_faulty_is_dropped(root: Path, tmp_path: Path) -> None:
    """Its objects are unknown: kept, it would teach them as background."""
    annotations = [{**record, "segmentation": []} if record["id"] == 3 else record for record in CONTENT["annotations"]]
    rewrite(root / TRAIN, annotations=annotations)
    Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True)
    image, annotation = json.loads((tmp_path / "out" / "repaired.json").read_text())["train"]
    assert (image["list"], image["position"], image["record"]["id"]) == ("images", 1, 1)
    assert image["reason"].endswith(
        "image 1: none of its annotations has a valid mask, so that its objects are unknown"
    )
    assert annotation["record"] == annotations[1]
    assert Store.open(tmp_path / "out", "train").image_ids == (2,)
    rewrite(root / TRAIN, annotations=[{**record, "segmentation": []} for record in annotations])
    with pytest.raises(BenchError, match="no object to learn: its 3 annotations are faulty; annotation 8 has no segm"):
        Dataset(Options(), root).prepare(tmp_path / "out", "mine", repair=True)
