"""Check that Cityscapes is read as its own scripts read it, in either layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
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
from streets import draw_tree
from tree import prepare

from pais_bench.annotations.store import Store
from pais_bench.datasets import _cityscapes, cityscapes


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw streets, once."""
    return draw_tree(tmp_path_factory.mktemp("streets"), train=20, val=8)


@pytest.fixture(scope="module")
def stores(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Prepare the streets, once."""
    folder = prepare(tree, tmp_path_factory.mktemp("prepared"))
    return {subset: Store.open(folder, subset) for subset in ("train", "val")}


@pytest.fixture
def root(few_streets: Path, tmp_path: Path) -> Path:
    """Return a tree that a test may change."""
    return Path(shutil.copytree(few_streets, tmp_path / "root"))


def records(folder: Path) -> dict[str, str]:
    """Return all prepared records as JSON."""
    return {subset: json.dumps(Store.open(folder, subset).coco_dict()) for subset in ("train", "val")}


def annotation(text: str) -> Annotation:
    """Read the text of a polygons file as cityscapesscripts does."""
    polygons = Annotation()
    polygons.fromJsonText(text)
    return polygons


def gt_path(tree: Path, subset: str, image: Path) -> Path:
    name = image.name.replace(_cityscapes.IMAGE, _cityscapes.INSTANCES)
    return (tree / "gtFine" / subset / image.parent.name / name).resolve()


def test_labels_and_counts_are_the_official_ones() -> None:
    assert {label.name: label.id for label in labels} == _cityscapes.LABELS
    assert {label.id for label in labels if label.hasInstances} == set(_cityscapes.INSTANCE_LABELS)
    evaluated = {label.id: label.name for label in labels if label.hasInstances and not label.ignoreInEval}
    assert list(evaluated.items()) == list(_cityscapes.CLASSES.items())
    assert list(evaluated) == [24, 25, 26, 27, 28, 31, 32, 33]
    assert {subset: sum(cities.values()) for subset, cities in cityscapes.CITIES.items()} == {"train": 2975, "val": 500}
    assert (len(cityscapes.CITIES["train"]), len(cityscapes.CITIES["val"])) == (18, 3)


def test_the_drawn_images_are_those_of_the_official_converters(tree: Path) -> None:
    paths = sorted(tree.rglob("*_gtFine_polygons.json"))
    assert len(paths) == 28
    for path in paths:
        polygons, stem = annotation(path.read_text()), str(path).removesuffix("_polygons.json")
        for create, kind in ((createInstanceImage, "instanceIds"), (createLabelImage, "labelIds")):
            with Image.open(f"{stem}_{kind}.png") as ours:
                assert np.array_equal(np.asarray(create(polygons, "ids")), np.asarray(ours))


NAMES = [*_cityscapes.LABELS, "cargroup", "persongroup", "caravangroup", "license plategroup"]
COORDINATE = st.integers(-30, 90) | st.floats(-30, 90)
OBJECT = st.fixed_dictionaries(
    {"label": st.sampled_from(NAMES), "polygon": st.lists(st.tuples(COORDINATE, COORDINATE), min_size=2, max_size=7)},
    optional={"deleted": st.sampled_from([0, 1])},
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OBJECT, max_size=12))
def test_any_polygons_are_drawn_as_the_official_converter_draws_them(objects: list[dict[str, Any]]) -> None:
    text = json.dumps({"imgWidth": 60, "imgHeight": 40, "objects": objects})
    ours = _cityscapes.rasterise((60, 40), json.loads(text)["objects"])
    assert np.array_equal(np.asarray(createInstanceImage(annotation(text), "ids")), np.asarray(ours))


def test_masks_are_the_official_instances(tree: Path, stores: dict[str, Store]) -> None:
    for subset, store in stores.items():
        for image_id in store.image_ids:
            path = gt_path(tree, subset, store.path(image_id))
            theirs = {
                (instance["instID"], instance["labelID"], instance["pixelCount"])
                for name, instances in instances2dict([str(path)])[str(path)].items()
                for instance in instances
                if name2label[name].id in _cityscapes.CLASSES
            }
            values, ours = np.asarray(Image.open(path)), set()
            for ann in store.annotations(image_id):
                mask = rle.decode(ann["segmentation"]).astype(bool)
                (value,) = np.unique(values[mask])
                assert ann["segmentation"]["counts"] == rle.encode(np.asfortranarray(mask))["counts"].decode()
                rows, columns = np.nonzero(mask)
                x, y = columns.min(), rows.min()
                assert ann["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
                assert ann["iscrowd"] == int(value < 1000) and ann["area"] == mask.sum()
                ours.add((int(value), ann["category_id"], ann["area"]))
            assert ours == theirs


def test_the_official_evaluator_gives_a_perfect_prediction_all(
    tree: Path, stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stores["train"]
    predictions, gts, evaluated = [], [], set()
    for image_id in store.image_ids:
        image, lines = store.path(image_id), []
        for ann in store.annotations(image_id):
            if not ann["iscrowd"]:
                name = f"{image.stem}_{ann['id']}.png"
                Image.fromarray(255 * rle.decode(ann["segmentation"])).save(tmp_path / name)
                lines.append(f"{name} {ann['category_id']} 0.9\n")
                evaluated |= {_cityscapes.CLASSES[ann["category_id"]]} if ann["area"] >= 100 else set()
        path = tmp_path / f"{image.stem}.txt"
        path.write_text("".join(lines))
        predictions.append(str(path))
        gts.append(str(gt_path(tree, "train", image)))
    monkeypatch.chdir(tmp_path)  # it writes matches.json into the working directory
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # it calls a function that NumPy 2.4 removed
    # NumPy 2 counts in its own integers, which its JSON writer does not know.
    write = lambda content, path: Path(path).write_text(json.dumps(content, default=float))  # noqa: E731
    monkeypatch.setattr(official, "writeDict2JSON", write)
    paths = {"gtInstancesFile": "gt.json", "exportFile": "result.json", "predictionPath": "."}
    for key, value in paths.items():
        monkeypatch.setattr(official.args, key, str((tmp_path / value).resolve()))
    monkeypatch.setattr(official.args, "quiet", True)
    averages = official.evaluateImgLists(predictions, gts, official.args)["averages"]
    values = {name: metrics["ap"] for name, metrics in averages["classes"].items()}
    assert {name for name, value in values.items() if not np.isnan(value)} == evaluated
    assert len(evaluated) >= 5
    assert all(values[name] == pytest.approx(1) for name in evaluated)
    assert averages["allAp"] == pytest.approx(1)


def without_instance_images(root: Path) -> None:
    for path in root.rglob("*_instanceIds.png"):
        path.unlink()


def as_the_archives_unzip(root: Path) -> None:
    for kind in ("gtFine", "leftImg8bit"):
        (root / f"{kind}_trainvaltest").mkdir()
        (root / kind).rename(root / f"{kind}_trainvaltest" / kind)


def with_a_hidden_file_of_macos(root: Path) -> None:
    (root / "leftImg8bit/train/aachen/._aachen_000000_000019_leftImg8bit.png").write_bytes(b"\x00\x05\x16\x07")


@pytest.mark.parametrize("change", [without_instance_images, as_the_archives_unzip, with_a_hidden_file_of_macos])
def test_other_trees_give_the_same_records(root: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    expected = records(prepare(root, tmp_path / "out"))
    change(root)
    folder = prepare(root, tmp_path / "changed")
    assert records(folder) == expected
    (photo,) = root.rglob("aachen_000000_000019_leftImg8bit.png")
    assert Store.open(folder, "train").path(1) == photo.resolve()


def test_records_are_sorted_by_city_and_frame(stores: dict[str, Store]) -> None:
    store = stores["train"]
    names = [store.path(image_id).name for image_id in store.image_ids]
    assert names == sorted(names) and store.image_ids == tuple(range(1, 21))
    ids = [ann["id"] for image_id in store.image_ids for ann in store.annotations(image_id)]
    assert ids == list(range(1, len(ids) + 1))
    assert store.categories == tuple(_cityscapes.CLASSES.items())


def test_the_number_of_threads_changes_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = records(prepare(root, tmp_path / "one"))
    monkeypatch.setattr(_cityscapes.os, "cpu_count", lambda: 7)
    assert records(prepare(root, tmp_path / "seven")) == alone


def test_the_official_number_of_images_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cityscapes, "CITIES", {"train": {"aachen": 7, "bochum": 7, "ulm": 6}, "val": {"lindau": 1, "frankfurt": 1}}
    )
    tree = draw_tree(tmp_path / "tree", train=20, val=2, size=64)
    complete = prepare(tree, tmp_path / "complete", complete=True)
    assert records(complete) == records(prepare(tree, tmp_path / "out"))
