"""Is the embedded data what it claims: confusable classes, occlusion, crowds, empty images, one seed one set?"""

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

from pais_bench.datasets import shapes
from pais_bench.datasets.shapes import CLASSES, Dataset, Options
from pais_bench.store import Store

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
    """Open its train part."""
    return Store.open(folder, "train")


@pytest.fixture(scope="module")
def notes(store: Store) -> list[dict[str, Any]]:
    """Give all of its annotations."""
    return [note for image_id in store.image_ids for note in store.annotations(image_id)]


def decoded(note: dict[str, Any]) -> np.ndarray:
    """Decode a mask bool[H,W]."""
    region = note["segmentation"]
    if isinstance(region["counts"], list):
        region = rle.frPyObjects(region, *region["size"])
    return np.asarray(rle.decode(region)).astype(bool)


def test_classes() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 8


def test_sizes_are_those_of_the_files(store: Store) -> None:
    sizes = {store.size(image_id) for image_id in store.image_ids}
    assert len(sizes) > 100
    assert (min(sizes)[0], max(sizes)[0]) == (80, 104)
    assert {width for _, width in sizes} == set(range(88, 105))
    for image_id in store.image_ids[:50]:
        with Image.open(store.path(image_id)) as image:
            assert image.mode == "RGB"
            assert image.size[::-1] == store.size(image_id)


def test_masks_boxes_and_areas_agree(store: Store, notes: list[dict[str, Any]]) -> None:
    for note in notes:
        mask = decoded(note)
        assert mask.shape == store.size(note["image_id"])
        assert note["area"] == mask.sum() >= shapes.SEEN_PIXELS
        rows, columns = np.nonzero(mask)
        x, y, width, height = note["bbox"]
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_only_visible_pixels_are_recorded(store: Store) -> None:
    """The masks of an image never overlap."""
    for image_id in store.image_ids:
        masks = [decoded(note) for note in store.annotations(image_id)]
        assert not masks or np.sum(masks, axis=0).max() <= 1


def test_classes_are_balanced(notes: list[dict[str, Any]]) -> None:
    counts = Counter(note["category_id"] for note in notes)
    assert set(counts) == set(range(1, 9))
    expected = len(notes) / 8
    assert max(abs(count - expected) for count in counts.values()) < 4 * expected**0.5


def test_instances_per_image(store: Store) -> None:
    counts = [sum(not note["iscrowd"] for note in store.annotations(image_id)) for image_id in store.image_ids]
    assert set(counts) == set(range(8))
    assert 2.8 < np.mean(counts) < 3.5
    assert 0.03 < np.mean([not store.annotations(image_id) for image_id in store.image_ids]) < 0.1


def test_crowds(notes: list[dict[str, Any]]) -> None:
    crowds = [note for note in notes if note["iscrowd"]]
    assert 4 <= len(crowds) <= 0.08 * TRAIN
    for note in crowds:
        region = note["segmentation"]
        assert isinstance(region["counts"], list)
        compressed = rle.frPyObjects(region, *region["size"])
        assert rle.area(compressed) == note["area"]
        assert rle.toBbox(compressed).tolist() == note["bbox"]


def test_scale_changes(notes: list[dict[str, Any]]) -> None:
    diameters = np.sqrt([note["area"] for note in notes if not note["iscrowd"]])
    low, high = np.percentile(diameters, [5, 95])
    assert high > 1.9 * low


def test_objects_touch_and_hide_each_other(store: Store) -> None:
    touching = 0
    for image_id in store.image_ids:
        grown = [np.pad(decoded(note), 1) for note in store.annotations(image_id)]
        grown = [mask | np.roll(mask, 1, 0) | np.roll(mask, -1, 0) | np.roll(mask, 1, 1) for mask in grown]
        touching += bool(grown) and np.sum(grown, axis=0).max() > 1
    assert touching > 0.25 * TRAIN


def test_colour_alone_does_not_tell_the_class(store: Store) -> None:
    """Whoever knows the mean colour of each class and of an instance is right in fewer than two cases in three."""
    colours: dict[int, list[np.ndarray]] = {number: [] for number in range(1, 9)}
    for image_id in store.image_ids:
        pixels = np.asarray(Image.open(store.path(image_id)), dtype=float)
        for note in store.annotations(image_id):
            colours[note["category_id"]].append(pixels[decoded(note)].mean(axis=0))
    means = np.array([np.mean(one, axis=0) for one in colours.values()])
    right = [
        np.argmin(np.linalg.norm(means - colour, axis=1)) == number - 1
        for number, one in colours.items()
        for colour in one
    ]
    assert 1 / len(colours) < np.mean(right) < 2 / 3


def content(folder: Path, part: str) -> list[tuple[Any, ...]]:
    """Give what every image of a part is: record, annotations, pixels."""
    store = Store.open(folder, part)
    return [(i, store.size(i), store.annotations(i), store.path(i).read_bytes()) for i in store.image_ids]


def test_image_k_is_the_same_whatever_the_number(folder: Path, tmp_path: Path) -> None:
    fewer = prepare(tmp_path, train=30, val=5)
    for part in ("train", "val"):
        found = content(fewer, part)
        assert found == content(folder, part)[: len(found)]


def test_seed_and_part_change_the_images(folder: Path, tmp_path: Path) -> None:
    other = content(prepare(tmp_path, train=3, val=1, seed=1), "train")
    assert [one[3] for one in other] != [one[3] for one in content(folder, "train")[:3]]
    assert content(folder, "train")[0][3] != content(folder, "val")[0][3]
    assert not {one[0] for one in content(folder, "train")} & {one[0] for one in content(folder, "val")}


def test_preparing_again_leaves_nothing_of_before(tmp_path: Path) -> None:
    prepare(tmp_path, train=6, val=2)
    prepare(tmp_path, train=3, val=1, seed=5)
    tables = {f"{part}.{table}.arrow" for part in ("train", "val") for table in ("images", "annotations")}
    assert {path.name for path in tmp_path.iterdir()} == {"dataset.json", "images", *tables}
    assert len(list((tmp_path / "images" / "train").iterdir())) == 3
    assert json.loads((tmp_path / "dataset.json").read_text())["parts"]["train"]["images"] == 3


def test_size_scales_the_whole_scene(tmp_path: Path) -> None:
    store = Store.open(prepare(tmp_path, train=12, val=1, size=192), "train")
    assert all(160 <= side <= 208 for image_id in store.image_ids for side in store.size(image_id))
    assert max(note["area"] for i in store.image_ids for note in store.annotations(i)) > 60**2


def test_takes_seconds(tmp_path: Path) -> None:
    begun = time.process_time()
    prepare(tmp_path, train=50, val=10)
    assert (time.process_time() - begun) / 60 * 1440 < 45, "1,440 images; about 12 s on a free core"
