"""Check that label noise has the size that is set, changes nothing else, and does not depend on any order."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from pydantic import ValidationError
from tiny import study

from pais_bench import plugins
from pais_bench.annotations import rle
from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.data import loader
from pais_bench.errors import BenchError
from pais_bench.splits import label_noise
from pais_bench.splits.draw import draw_split, make_split
from pais_bench.splits.family import LabelledSet
from pais_bench.splits.split import Split, check_split, digest, read_split, write_split
from pais_bench.study.split import LabelNoise, SplitChoice
from pais_bench.study.study import Study
from pais_bench.training.trainer import Trainer

BOX = [[2, 2, 12, 2, 12, 12, 2, 12]]
CORNER = np.pad([[True]], ((0, 8), (0, 10)))
"""Mask bool[9,11] with one pixel in its corner."""


def store_of(folder: Path, images: int, categories: int = 5, shuffled: bool = False, decay: float = 0.5) -> Store:
    """Return a store whose images hold 3 objects and a crowd; a class is decay times as frequent as the one before."""
    weights = [decay**index for index in range(categories)]
    rng = random.Random(0)
    annotations = [
        {
            **{"id": 10 * image + index, "image_id": image, "area": 100, "bbox": [2, 2, 10, 10], "segmentation": BOX},
            **{"category_id": rng.choices(range(1, categories + 1), weights)[0], "iscrowd": int(index == 3)},
        }
        for image in range(1, images + 1)
        for index in range(4)
    ]
    records = [{"id": n, "file_name": f"{n}.png", "height": 20, "width": 24} for n in range(1, images + 1)]
    if shuffled:
        rng.shuffle(annotations)
        rng.shuffle(records)
    classes = [{"id": number, "name": f"class {number}"} for number in range(1, categories + 1)]
    subset = Subset("file.json", folder, records, annotations, classes)
    write_store(folder, "mine", {"train": subset, "val": subset})
    return Store.open(folder, "train")


def split_of(store: Store, **options: Any) -> Split:
    """Return the split in which every image is labelled, with label noise."""
    noise = LabelNoise(**options) if options else None
    return draw_split(store, "mine", SplitChoice(family="soft_teacher", percent=100, fold=1, label_noise=noise))


def noisy_annotations(store: Store, split: Split) -> dict[int, dict[str, Any]]:
    """Return the annotations of the training set with the noise of a split, by id."""
    return {
        ann["id"]: ann
        for number in store.image_ids
        for ann in label_noise.apply(split, store.annotations(number), store.size(number))
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of(tmp_path_factory.mktemp("store"), 1_000)


@pytest.mark.parametrize("percent", [5, 20, 100])
def test_class_flip_changes_the_class_of_x_percent(store: Store, percent: float) -> None:
    split = split_of(store, class_flip=percent)
    before, after = noisy_annotations(store, split_of(store)), noisy_annotations(store, split)
    changed = {number for number, ann in after.items() if ann != before[number]}
    assert changed == set(split.flipped or {}) and before.keys() == after.keys()
    expected, spread = 3_000 * percent / 100, (3_000 * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(len(changed) - expected) <= 4 * spread
    for number in changed:
        assert after[number] == {**before[number], "category_id": after[number]["category_id"]}
        assert not before[number]["iscrowd"]
    if percent == 100:
        counts = Counter(after[number]["category_id"] for number in changed if before[number]["category_id"] == 1)
        total = sum(counts.values())
        assert set(counts) == {2, 3, 4, 5}
        assert all(abs(count - total / 4) < 4 * (total * 3 / 16) ** 0.5 for count in counts.values())


def test_missing_removes_x_percent_and_keeps_the_others(store: Store) -> None:
    split = split_of(store, missing=30)
    before, after = noisy_annotations(store, split_of(store)), noisy_annotations(store, split)
    removed = before.keys() - after.keys()
    assert removed == set(split.dropped or ()) and abs(len(removed) - 900) <= 4 * 25.1
    assert all(ann == before[number] for number, ann in after.items())
    assert len(split.ids) == 1_000, "an image whose labels are all removed is still labelled"


def test_kinds_of_noise_are_independent(store: Store) -> None:
    alone, both = split_of(store, class_flip=20), split_of(store, class_flip=20, missing=30)
    assert both.dropped == split_of(store, missing=30).dropped
    assert both.flipped == {n: c for n, c in (alone.flipped or {}).items() if n not in set(both.dropped or ())}
    assert split_of(store, class_flip=20, seed=1).flipped != alone.flipped


def test_nothing_depends_on_the_order_of_the_records(store: Store, tmp_path: Path) -> None:
    shuffled = store_of(tmp_path, 1_000, shuffled=True)
    options = {"class_flip": 20, "missing": 10, "boundary_jitter": 2, "coarse_polygons": 3, "imbalance": 40}
    first, second = split_of(store, **options), split_of(shuffled, **options)
    # The classes are sampled before the shuffle, so that these are the same records.
    assert first.sha256 == second.sha256
    assert noisy_annotations(store, first) == noisy_annotations(shuffled, second)


def test_boundary_jitter_shifts_and_dilates() -> None:
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:44, 30:60] = True
    ious = []
    for number in range(200):
        moved = label_noise.jitter_boundary(mask, 4, 0, number)
        assert np.array_equal(moved, label_noise.jitter_boundary(mask, 4, 0, number))
        ious.append((mask & moved).sum() / (mask | moved).sum())
        assert label_noise.jitter_boundary(CORNER, 6, 0, number).any(), "no mask is emptied"
        rows, columns = np.nonzero(moved)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert moved.sum() == height * width and height - 24 == width - 30 and height - 24 in (0, 2, 4, 6, 8)
        assert abs((rows.min() + rows.max()) / 2 - 31.5) <= 4 and abs((columns.min() + columns.max()) / 2 - 44.5) <= 4
    assert 0.4 < min(ious) < 0.6 < np.mean(ious) < 0.85 < max(ious) <= 1
    assert len({round(iou, 6) for iou in ious}) > 20


def test_coarsen_rounds_to_cells_and_empties_no_mask() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0:4, 0:6] = True
    mask[8:, 8:] = True
    expected = np.zeros((10, 10), dtype=bool)
    expected[0:4, 0:8] = True  # the second cell is half full
    expected[8:, 8:] = True  # the last cells are cut off by the border
    assert np.array_equal(label_noise.coarsen(mask, 4), expected)
    assert np.array_equal(label_noise.coarsen(mask, 2), mask)
    assert label_noise.coarsen(CORNER, 4).sum() == 16
    assert not label_noise.coarsen(np.zeros((9, 11), dtype=bool), 4).any()


def test_noisy_masks_have_their_boxes_and_areas(store: Store) -> None:
    split = split_of(store, boundary_jitter=3, coarse_polygons=4)
    for number, ann in list(noisy_annotations(store, split).items())[:40]:
        if ann["iscrowd"]:
            assert ann["segmentation"] == BOX
            continue
        mask = rle.decode_mask(ann["segmentation"], (20, 24))
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert ann["bbox"] == box and ann["area"] == mask.sum(), number


@pytest.mark.parametrize("ratio", [10, 100])
def test_imbalance_gives_an_exponential_profile(tmp_path: Path, ratio: float) -> None:
    even = store_of(tmp_path, 4_000, categories=6, decay=1.0)
    split = split_of(even, imbalance=ratio)
    anns = [ann for image_id in split.ids for ann in even.annotations(image_id) if not ann["iscrowd"]]
    counts = np.array(sorted(Counter(ann["category_id"] for ann in anns).values(), reverse=True))
    assert len(counts) == 6 and counts[0] > 300
    assert counts[0] / counts[-1] == pytest.approx(ratio, rel=0.2)
    steps = np.log(counts[:-1] / counts[1:])
    assert np.abs(steps - np.log(ratio) / 5).max() < 0.15
    assert split.ids == tuple(sorted(split.ids)) and split.pool == 4_000
    assert split.effective_percent == 100 * len(split.ids) / 4_000
    assert split_of(even, imbalance=ratio, seed=1).ids != split.ids


def test_label_noise_has_a_name_and_an_identity(store: Store) -> None:
    clean, noisy = split_of(store), split_of(store, class_flip=20)
    assert clean.ids == noisy.ids and clean.sha256 == digest(clean.ids) != noisy.sha256
    assert split_of(store, class_flip=20, seed=1).sha256 != noisy.sha256
    for name, options in (
        ("classflip20", {"class_flip": 20}),
        ("missing10-classflip20", {"class_flip": 20, "missing": 10}),
        (
            "imbalance10-missing2.5-boundaryjitter4-coarsepolygons8-seed3",
            {"coarse_polygons": 8, "boundary_jitter": 4, "missing": 2.5, "imbalance": 10, "seed": 3},
        ),
    ):
        assert LabelNoise(**options).name == name
    choice = SplitChoice(family="x", percent=2.5, fold=1, label_noise=LabelNoise(class_flip=20))
    assert choice.stem == "2.5pct-fold1-classflip20"


def test_a_noisy_split_is_read_back_and_its_labels_have_a_digest(store: Store, tmp_path: Path) -> None:
    split, path = split_of(store, class_flip=20, missing=10), tmp_path / "split.json"
    write_split(path, split)
    assert read_split(path) == split
    text = path.read_text()
    number, category = next(iter((split.flipped or {}).items()))
    path.write_text(text.replace(f'"{number}": {category}', f'"{number}": {category % 5 + 1}', 1))
    with pytest.raises(BenchError, match="do not have the sha256"):
        read_split(path)
    choice = SplitChoice(family="soft_teacher", percent=100, fold=1)
    with pytest.raises(BenchError, match=r'its file holds .*"class_flip":20.*but the study asks for'):
        check_split(split, store, choice)
    summary = split.summary()
    assert not {"ids", "flipped", "dropped"} & summary.keys() and summary["label_noise"]["class_flip"] == 20


def test_invalid_options_are_refused(tmp_path: Path) -> None:
    invalid = [("class_flip", 0), ("class_flip", 101), ("missing", 100), ("boundary_jitter", 0), ("coarse_polygons", 1)]
    for option, value in invalid:
        with pytest.raises(ValidationError, match=option):
            LabelNoise(**{option: value})
    for options in ({}, {"seed": 1}):
        with pytest.raises(ValidationError, match="give at least one of imbalance, missing, "):
            LabelNoise(**options)
    with pytest.raises(BenchError, match=r"split\.label_noise\.class_flip: the dataset has one class"):
        split_of(store_of(tmp_path, 3, categories=1), class_flip=50)


def test_a_run_without_label_noise_has_no_key_of_it() -> None:
    values = study()
    run = Study(**values).run(10, 1, "mask_rcnn", "pais")
    assert '"split":{"family":"soft_teacher","percent":10.0,"fold":1},' in run.model_dump_json()
    values["split"]["label_noise"] = {"class_flip": 20}
    noisy = Study(**values).run(10, 1, "mask_rcnn", "pais")
    assert noisy.digest != run.digest and noisy.folder.parts[2] == "10pct-fold1-classflip20"


def test_a_run_trains_on_noisy_labels_and_logs_against_clean_ones(tmp_path: Path) -> None:
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=40, val=6, size=64), None).prepare(tmp_path / "store", "shapes")
    stores = {subset: Store.open(tmp_path / "store", subset) for subset in ("train", "val")}
    values = study()
    values["split"]["label_noise"] = {"class_flip": 100, "boundary_jitter": 3, "coarse_polygons": 4}
    run = Study(**values).run(10, 1, "mask_rcnn", "pais")
    split = draw_split(stores["train"], "shapes", run.split)
    noisy = loader.BatchDataset(run, stores["train"], split)
    clean = loader.BatchDataset(run, stores["train"], split.model_copy(update={"label_noise": None}))
    batches = [(noisy[step].labelled, clean[step].labelled) for step in range(4)]
    pairs = [pair for batch in batches for pair in zip(*batch, strict=True)]
    assert all(torch.equal(a.view.image, b.view.image) for a, b in pairs)
    instances = [(a.instances, b.instances) for a, b in pairs if len(a.instances) == len(b.instances) > 0]
    assert instances and all((a.labels != b.labels).all() for a, b in instances)
    assert any(not torch.equal(a.masks, b.masks) for a, b in instances)
    for image in noisy[0].unlabelled:
        assert image.ground_truth is not None and image.image_id not in split.ids
    (tmp_path / "run").mkdir()
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = Trainer(run, stores, split, tmp_path / "run", fabric)
    assert trainer.dataset.split == split
    trainer.fit()
    assert trainer.step == 4


def test_an_imported_split_can_have_label_noise(store: Store) -> None:
    choice = SplitChoice(family="imported", percent=1, fold=1, label_noise=LabelNoise(missing=50))
    split = make_split(store, "mine", choice, LabelledSet([3, 1, 2], 1_000))
    assert split.ids == (1, 2, 3) and split.dropped
