"""Is Cityscapes read as its own scripts read it, whatever its layout?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official
from cityscapesscripts.evaluation.instances2dict import instances2dict
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import labels, name2label
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from tree import prepare

from pais_bench.datasets import _cityscapes, cityscapes, streets
from pais_bench.store import Store

PARTS = ("train", "val")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare drawn streets, once."""
    folder = tmp_path_factory.mktemp("streets")
    streets.Dataset(streets.Options(train=20, val=8), None).prepare(folder, "streets")
    return folder


@pytest.fixture
def root(few_streets: Path, tmp_path: Path) -> Path:
    """Give a tree that a test may spoil."""
    return Path(shutil.copytree(few_streets, tmp_path / "root"))


def records(folder: Path) -> dict[str, str]:
    """Give what was prepared, byte for byte."""
    return {part: json.dumps(Store.open(folder, part).coco_dict()) for part in PARTS}


def annotation(path: Path) -> Annotation:
    """Read a polygons file as cityscapesscripts does."""
    found = Annotation()
    found.fromJsonText(path.read_text())
    return found


def test_labels_are_the_official_ones() -> None:
    assert {label.name: label.id for label in labels} == _cityscapes.LABELS
    assert {label.id for label in labels if label.hasInstances} == set(_cityscapes.COUNTED)
    counted = {label.id: label.name for label in labels if label.hasInstances and not label.ignoreInEval}
    assert list(counted.items()) == list(_cityscapes.CLASSES.items())
    assert list(counted) == [24, 25, 26, 27, 28, 31, 32, 33]


def test_counts_are_the_official_ones() -> None:
    assert {part: sum(cities.values()) for part, cities in cityscapes.CITIES.items()} == {"train": 2975, "val": 500}
    assert (len(cityscapes.CITIES["train"]), len(cityscapes.CITIES["val"])) == (18, 3)


def test_the_drawn_images_are_those_of_the_official_converters(prepared: Path) -> None:
    paths = sorted((prepared / "tree").rglob("*_gtFine_polygons.json"))
    assert len(paths) == 28
    for path in paths:
        stem = str(path).removesuffix("_polygons.json")
        with Image.open(f"{stem}_instanceIds.png") as ours:
            assert np.array_equal(np.asarray(createInstanceImage(annotation(path), "ids")), np.asarray(ours))
        with Image.open(f"{stem}_labelIds.png") as ours:
            assert np.array_equal(np.asarray(createLabelImage(annotation(path), "ids")), np.asarray(ours))


KINDS = [*_cityscapes.LABELS, "cargroup", "persongroup", "caravangroup", "license plategroup"]
WHERE = st.integers(-30, 90) | st.floats(-30, 90)
OBJECT = st.fixed_dictionaries(
    {"label": st.sampled_from(KINDS), "polygon": st.lists(st.tuples(WHERE, WHERE), min_size=2, max_size=7)},
    optional={"deleted": st.sampled_from([0, 1])},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OBJECT, max_size=12))
def test_any_polygons_are_drawn_as_the_official_converter_draws_them(objects: list[dict[str, Any]]) -> None:
    text = json.dumps({"imgWidth": 60, "imgHeight": 40, "objects": objects})
    theirs = Annotation()
    theirs.fromJsonText(text)
    ours = _cityscapes.draw((60, 40), json.loads(text)["objects"])
    assert np.array_equal(np.asarray(createInstanceImage(theirs, "ids")), np.asarray(ours))


def test_masks_are_the_official_instances(prepared: Path) -> None:
    for part in PARTS:
        store = Store.open(prepared, part)
        for number in store.image_ids:
            path = truth(prepared, part, store.path(number))
            counted = instances2dict([str(path)])[str(path)]
            theirs = {
                (one["instID"], one["labelID"], one["pixelCount"])
                for name, found in counted.items()
                for one in found
                if name2label[name].id in _cityscapes.CLASSES
            }
            values, ours = np.asarray(Image.open(path)), set()
            for note in store.annotations(number):
                mask = rle.decode(note["segmentation"]).astype(bool)
                (value,) = np.unique(values[mask])
                assert note["segmentation"]["counts"] == rle.encode(np.asfortranarray(mask))["counts"].decode()
                rows, columns = np.nonzero(mask)
                x, y = columns.min(), rows.min()
                assert note["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
                assert note["iscrowd"] == int(value < 1000) and note["area"] == mask.sum()
                ours.add((int(value), note["category_id"], note["area"]))
            assert ours == theirs


def truth(prepared: Path, part: str, image: Path) -> Path:
    name = image.name.replace(_cityscapes.IMAGE, _cityscapes.INSTANCES)
    return (prepared / "tree/gtFine" / part / image.parent.name / name).resolve()


def test_the_official_evaluator_gives_a_perfect_prediction_all(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(prepared, "train")
    told, truths, evaluated = [], [], set()
    for number in store.image_ids:
        image, lines = store.path(number), []
        for note in store.annotations(number):
            if not note["iscrowd"]:
                name = f"{image.stem}_{note['id']}.png"
                Image.fromarray(255 * rle.decode(note["segmentation"])).save(tmp_path / name)
                lines.append(f"{name} {note['category_id']} 0.9\n")
                evaluated |= {_cityscapes.CLASSES[note["category_id"]]} if note["area"] >= 100 else set()
        path = tmp_path / f"{image.stem}.txt"
        path.write_text("".join(lines))
        told.append(str(path))
        truths.append(str(truth(prepared, "train", image)))
    monkeypatch.chdir(tmp_path)  # it writes matches.json where it stands
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # NumPy 2.4 has dropped the name that it calls
    # NumPy 2 counts in integers of its own, which its writer does not know.
    write = lambda content, path: Path(path).write_text(json.dumps(content, default=float))  # noqa: E731
    monkeypatch.setattr(official, "writeDict2JSON", write)
    own = {"gtInstancesFile": "gt.json", "exportFile": "result.json", "predictionPath": "."}
    for key, value in own.items():
        monkeypatch.setattr(official.args, key, str((tmp_path / value).resolve()))
    monkeypatch.setattr(official.args, "quiet", True)
    found = official.evaluateImgLists(told, truths, official.args)["averages"]
    values = {name: one["ap"] for name, one in found["classes"].items()}
    assert {name for name, value in values.items() if not np.isnan(value)} == evaluated
    assert len(evaluated) >= 5
    assert all(values[name] == pytest.approx(1) for name in evaluated)
    assert found["allAp"] == pytest.approx(1)


def test_polygons_alone_give_the_same_records(root: Path, tmp_path: Path) -> None:
    whole = records(prepare(root, tmp_path / "whole"))
    for path in root.rglob("*_instanceIds.png"):
        path.unlink()
    assert records(prepare(root, tmp_path / "polygons")) == whole


def test_both_layouts_give_the_same_records(root: Path, tmp_path: Path) -> None:
    whole = records(prepare(root, tmp_path / "whole"))
    for kind in ("gtFine", "leftImg8bit"):
        (root / f"{kind}_trainvaltest").mkdir()
        (root / kind).rename(root / f"{kind}_trainvaltest" / kind)
    folder = prepare(root, tmp_path / "nested")
    assert records(folder) == whole
    store = Store.open(folder, "train")
    assert (
        store.path(1)
        == (root / "leftImg8bit_trainvaltest/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").resolve()
    )
    assert store.path(1).is_file()


def test_records_are_sorted_by_city_and_frame(prepared: Path) -> None:
    store = Store.open(prepared, "train")
    names = [store.path(number).name for number in store.image_ids]
    assert names == sorted(names) and store.image_ids == tuple(range(1, 21))
    notes = [note["id"] for number in store.image_ids for note in store.annotations(number)]
    assert notes == list(range(1, len(notes) + 1))
    assert store.categories == tuple(_cityscapes.CLASSES.items())


def test_many_readers_change_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = records(prepare(root, tmp_path / "one"))
    monkeypatch.setattr(_cityscapes.os, "cpu_count", lambda: 7)
    assert records(prepare(root, tmp_path / "seven")) == alone


def test_the_official_number_of_images_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cityscapes, "CITIES", {"train": {"aachen": 7, "bochum": 7, "ulm": 6}, "val": {"lindau": 1, "frankfurt": 1}}
    )
    streets.Dataset(streets.Options(train=20, val=2, size=64), None).prepare(tmp_path / "streets", "streets")
    whole = prepare(tmp_path / "streets" / "tree", tmp_path / "out", complete=True)
    assert records(whole) == records(tmp_path / "streets")


def test_files_that_an_archive_of_a_mac_adds_are_no_images(root: Path, tmp_path: Path) -> None:
    whole = records(prepare(root, tmp_path / "out"))
    (root / "leftImg8bit/train/aachen/._aachen_000000_000019_leftImg8bit.png").write_bytes(b"\x00\x05\x16\x07")
    assert records(prepare(root, tmp_path / "again")) == whole
