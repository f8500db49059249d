"""Check that annotations whose box, area and mask contradict each other are refused or reported, and no others are."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from pais_bench.annotations.contradictions import find_contradictions
from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.errors import BenchError

HEIGHT, WIDTH, COUNT = 120, 200, 40
Record = dict[str, Any]
Change = Callable[[Record], Any]


def points(record: Record) -> np.ndarray:
    """Return the polygon of an annotation, f64[n,2]."""
    return np.reshape(record["segmentation"][0], (-1, 2))


def redraw(record: Record, polygon: np.ndarray) -> None:
    """Replace the polygon."""
    record["segmentation"] = [polygon.ravel().tolist()]


def content() -> Record:
    """Return ellipses of all sizes, whose box and area are those of the mask."""
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(1, COUNT + 1):
        radius, angle = rng.uniform(8, 25, size=2), np.linspace(0, 2 * np.pi, 12, endpoint=False)
        centre = rng.uniform((130, 30), (WIDTH - 30, HEIGHT - 30))
        polygon = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        mask = [polygon.ravel().tolist()]
        area = float(rle.area(rle.merge(rle.frPyObjects(mask, HEIGHT, WIDTH))))
        record = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": mask}
        annotations.append(record | {"bbox": [*low.tolist(), *(high - low).tolist()], "area": area})
    return {
        "images": [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "ellipse"}],
    }


def corners(record: Record) -> None:
    """Write the box as x1, y1, x2, y2."""
    x, y, width, height = record["bbox"]
    record["bbox"] = [x, y, x + width, y + height]


def centre(record: Record) -> None:
    """Write the box as x and y of its centre, width, height."""
    x, y, width, height = record["bbox"]
    record["bbox"] = [x + width / 2, y + height / 2, width, height]


def flatten(record: Record) -> None:
    """Squeeze the mask, and its box, to a line."""
    polygon = points(record) * (0, 1) + (50.25, 0)
    redraw(record, polygon)
    record["bbox"] = [*polygon.min(axis=0).tolist(), *np.ptp(polygon, axis=0).tolist()]


def shift(record: Record) -> None:
    """Move mask and box out of the image, as if it had been larger."""
    redraw(record, points(record) + (110, 0))
    record["bbox"][0] += 110


CHANGES: dict[str, Change] = {
    "masks leave their images, as if drawn on images of another size": shift,
    "polygons look normalised to 0..1": lambda record: redraw(record, points(record) / (WIDTH, HEIGHT)),
    "polygons look like y, x pairs": lambda record: redraw(record, points(record)[:, ::-1]),
    "boxes look like x1 y1 x2 y2": corners,
    "boxes look like x and y of the centre, width, height": centre,
    "boxes look normalised to 0..1": lambda record: record.update(
        bbox=(np.array(record["bbox"]) / (WIDTH, HEIGHT, WIDTH, HEIGHT)).tolist()
    ),
    "boxes are not those of the masks": lambda record: record.update(bbox=[0, 0, 190, 110]),
    "masks cover no pixel": flatten,
    "areas are not those of the masks": lambda record: record.update(area=record["area"] / (WIDTH * HEIGHT)),
}
MEASURED = {name for name in CHANGES if name.startswith(("boxes", "areas"))}


def prepare(source: Record, folder: Path, repair: bool = False) -> tuple[list[Record], list[str]]:
    """Write a store; return its annotations and notes."""
    write_store(folder, "mine", {"train": Subset("file.json", folder, **source)}, repair)
    manifest = json.loads((folder / "dataset.json").read_text())["subsets"]["train"]
    return Store.open(folder, "train").coco_dict()["annotations"], manifest["notes"]


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_of_contradictions_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    changed = content()
    for record in changed["annotations"][::2]:
        CHANGES[name](record)
    with pytest.raises(BenchError, match=rf"^file\.json: {name} in 20 of 40 annotations, the first: annotation 1; "):
        prepare(changed, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "nothing is written"
    if name not in MEASURED:
        with pytest.raises(BenchError, match=name):
            prepare(changed, tmp_path / "out", repair=True)
        return
    kept, _ = prepare(changed, tmp_path / "out", repair=True)
    for record, expected in zip(kept, content()["annotations"], strict=True):
        assert record["bbox"] == pytest.approx(expected["bbox"], abs=2)
        assert record["area"] == expected["area"]
        assert record["segmentation"] == expected["segmentation"]
    entries = json.loads((tmp_path / "out" / "repaired.json").read_text())["train"]
    assert [entry["position"] for entry in entries] == list(range(0, COUNT, 2))


@pytest.mark.parametrize("name", CHANGES)
def test_a_few_contradictions_are_reported_and_kept(name: str, tmp_path: Path) -> None:
    changed = content()
    CHANGES[name](changed["annotations"][5])
    kept, notes = prepare(copy.deepcopy(changed), tmp_path)
    assert kept == changed["annotations"]
    assert len(notes) == 1 and notes[0].startswith(f"file.json: {name} in 1 of 40 annotations, the first: annotation 6")


def test_a_wrong_area_beside_a_wrong_box_is_repaired_too(tmp_path: Path) -> None:
    changed = content()
    for record in changed["annotations"][::2]:
        corners(record)
        record["area"] = record["bbox"][2] * record["bbox"][3]
    with pytest.raises(BenchError, match="boxes look like x1 y1 x2 y2 in 20 of 40 annotations"):
        prepare(changed, tmp_path / "out")
    kept, notes = prepare(changed, tmp_path / "out", repair=True)
    assert [record["area"] for record in kept] == [record["area"] for record in content()["annotations"]]
    assert notes == []


def test_a_valid_file_has_none_whatever_its_masks_are_written_as(tmp_path: Path) -> None:
    original = content()
    for kind in ("polygon", "counts", "text"):
        source = copy.deepcopy(original)
        for record in source["annotations"]:
            mask = rle.merge(rle.frPyObjects(record["segmentation"], HEIGHT, WIDTH))
            runs = np.diff(np.flatnonzero(np.diff(rle.decode(mask).ravel(order="F"), prepend=0, append=2)), prepend=0)
            written = {"counts": runs.tolist(), "text": mask["counts"].decode()}
            if kind != "polygon":
                record["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": written[kind]}
        assert prepare(source, tmp_path / kind) == (source["annotations"], [])


def test_areas_of_boxes_are_accepted(tmp_path: Path) -> None:
    """Check a convention of exports of Roboflow: area is width times height of the box."""
    source = content()
    for record in source["annotations"]:
        record["area"] = record["bbox"][2] * record["bbox"][3]
    assert prepare(source, tmp_path)[1] == []


@pytest.mark.parametrize(
    "file", ["coco_mini/annotations/instances_train2017.json", "coco_mini/annotations/instances_val2017.json"]
    + [f"{name}/annotations/{subset}.json" for name in ("chicken_parts", "facades") for subset in ("train", "val")]
)  # fmt: skip
def test_real_data_have_none(file: str, shared_data: Path) -> None:
    source = json.loads((shared_data / file).read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in source["images"]}
    height, width = np.array([sizes[record["image_id"]] for record in source["annotations"]]).T
    assert find_contradictions(source["annotations"], height, width) == {}
