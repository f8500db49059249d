"""Check the synthetic data: confusable classes, occlusion, crowds, empty images, seeds."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from pais_bench.annotations.rle import decode_mask
from pais_bench.annotations.store import Store
from pais_bench.datasets import shapes
from pais_bench.datasets.shapes import CLASSES, Dataset, Options

# pycocotools 2.0.11 predates the copy keyword of numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TRAIN = 300


def prepare(folder: Path, **options: int) -> Path:
    """Prepare a small dataset."""
    Dataset(Options(**options), None).prepare(folder, "shapes")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare enough images for statistics, once."""
    return prepare(tmp_path_factory.mktemp("shapes"), train=TRAIN, val=20)


@pytest.fixture(scope="module")
def store(folder: Path) -> Store:
    """Open the training set of the folder."""
    return Store.open(folder, "train")


@pytest.fixture(scope="module")
def annotations(store: Store) -> list[dict[str, Any]]:
    """Return all annotations of the training set."""
    return [annotation for image_id in store.image_ids for annotation in store.annotations(image_id)]


def decoded(ann: dict[str, Any]) -> np.ndarray:
    """Decode a mask bool[H,W]."""
    return decode_mask(ann["segmentation"], ann["segmentation"]["size"])


def test_sizes_are_those_of_the_files(store: Store) -> None:
    sizes = {store.size(image_id) for image_id in store.image_ids}
    assert len(sizes) > 100
    assert (min(sizes)[0], max(sizes)[0]) == (80, 104)
    assert {width for _, width in sizes} == set(range(88, 105))
    for image_id in store.image_ids[:50]:
        with Image.open(store.path(image_id)) as image:
            assert image.mode == "RGB"
            assert image.size[::-1] == store.size(image_id)


def test_masks_boxes_and_areas_agree_and_no_masks_overlap(store: Store) -> None:
    for image_id in store.image_ids:
        covered = np.zeros(store.size(image_id), dtype=int)
        for ann in store.annotations(image_id):
            mask = decoded(ann)
            assert ann["area"] == mask.sum() >= shapes.VISIBLE_PIXELS
            rows, columns = np.nonzero(mask)
            x, y, width, height = ann["bbox"]
            assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert mask.shape == covered.shape
            covered += mask
        assert covered.max() <= 1, "only visible pixels are recorded"


def test_classes_are_balanced(annotations: list[dict[str, Any]]) -> None:
    counts = Counter(ann["category_id"] for ann in annotations)
    assert len(set(CLASSES)) == 8 and set(counts) == set(range(1, 9))
    expected = len(annotations) / 8
    assert max(abs(count - expected) for count in counts.values()) < 4 * expected**0.5


def test_instances_per_image(store: Store) -> None:
    counts = [sum(not ann["iscrowd"] for ann in store.annotations(image_id)) for image_id in store.image_ids]
    assert set(counts) == set(range(8))
    assert 2.8 < np.mean(counts) < 3.5
    assert 0.03 < np.mean([not store.annotations(image_id) for image_id in store.image_ids]) < 0.1


def test_crowds_and_scales(annotations: list[dict[str, Any]]) -> None:
    crowds = [ann for ann in annotations if ann["iscrowd"]]
    assert 4 <= len(crowds) <= 0.08 * TRAIN
    for ann in crowds:
        segmentation = ann["segmentation"]
        assert isinstance(segmentation["counts"], list)
        compressed = rle.frPyObjects(segmentation, *segmentation["size"])
        assert rle.area(compressed) == ann["area"]
        assert rle.toBbox(compressed).tolist() == ann["bbox"]
    diameters = np.sqrt([ann["area"] for ann in annotations if not ann["iscrowd"]])
    low, high = np.percentile(diameters, [5, 95])
    assert high > 1.9 * low


def test_objects_touch(store: Store) -> None:
    touching = 0
    for image_id in store.image_ids:
        dilated = [np.pad(decoded(ann), 1) for ann in store.annotations(image_id)]
        dilated = [mask | np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 1) for mask in dilated]
        touching += bool(dilated) and np.sum(dilated, axis=0).max() > 1
    assert touching > 0.25 * TRAIN


def test_colour_alone_does_not_tell_the_class(store: Store) -> None:
    """Classify instances by the nearest mean colour of a class: fewer than two in three are right."""
    colours: dict[int, list[np.ndarray]] = {number: [] for number in range(1, 9)}
    for image_id in store.image_ids:
        pixels = np.asarray(Image.open(store.path(image_id)), dtype=float)
        for ann in store.annotations(image_id):
            colours[ann["category_id"]].append(pixels[decoded(ann)].mean(axis=0))
    means = np.array([np.mean(values, axis=0) for values in colours.values()])
    right = [
        np.argmin(np.linalg.norm(means - colour, axis=1)) == number - 1
        for number, values in colours.items()
        for colour in values
    ]
    assert 1 / len(colours) < np.mean(right) < 2 / 3


def content(folder: Path, subset: str) -> list[tuple[Any, ...]]:
    """Return id, size, annotations and file of every image of a subset."""
    store = Store.open(folder, subset)
    return [(i, store.size(i), store.annotations(i), store.path(i).read_bytes()) for i in store.image_ids]


def test_image_k_is_the_same_whatever_the_number(folder: Path, tmp_path: Path) -> None:
    fewer = prepare(tmp_path, train=30, val=5)
    for subset in ("train", "val"):
        images = content(fewer, subset)
        assert images == content(folder, subset)[: len(images)]


def test_seed_and_subset_change_the_images(folder: Path, tmp_path: Path) -> None:
    other = content(prepare(tmp_path, train=3, val=1, seed=1), "train")
    assert [image[3] for image in other] != [image[3] for image in content(folder, "train")[:3]]
    assert content(folder, "train")[0][3] != content(folder, "val")[0][3]
    assert not {image[0] for image in content(folder, "train")} & {image[0] for image in content(folder, "val")}


def test_preparing_again_replaces_everything(tmp_path: Path) -> None:
    prepare(tmp_path, train=6, val=2)
    prepare(tmp_path, train=3, val=1, seed=5)
    tables = {f"{subset}.{table}.arrow" for subset in ("train", "val") for table in ("images", "annotations")}
    assert {path.name for path in tmp_path.iterdir()} == {"dataset.json", "images", *tables}
    assert len(list((tmp_path / "images" / "train").iterdir())) == 3
    assert json.loads((tmp_path / "dataset.json").read_text())["subsets"]["train"]["images"] == 3


def test_size_scales_the_whole_scene(tmp_path: Path) -> None:
    store = Store.open(prepare(tmp_path, train=12, val=1, size=192), "train")
    assert all(160 <= side <= 208 for image_id in store.image_ids for side in store.size(image_id))
    assert max(ann["area"] for i in store.image_ids for ann in store.annotations(i)) > 60**2


def test_takes_seconds(tmp_path: Path) -> None:
    start = time.process_time()
    prepare(tmp_path, train=50, val=10)
    assert (time.process_time() - start) / 60 * 1440 < 45, "1,440 images; about 12 s on a free core"
