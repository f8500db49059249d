"""Are labels spoilt as much as asked, nothing else, and the same in any order?"""

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

from pais_bench import corruptions, data, engine, pixels, plugins, splits
from pais_bench.config import Study
from pais_bench.pools import Drawn
from pais_bench.split_choice import Corruption, SplitChoice
from pais_bench.splits import Split
from pais_bench.store import Part, Store, write_store
from pais_bench.types import BenchError

BOX = [[2, 2, 12, 2, 12, 12, 2, 12]]


def store_of(folder: Path, images: int, categories: int = 5, shuffled: bool = False, share: float = 0.5) -> Store:
    """Give a store whose images hold 3 objects and a crowd; the classes fall by the factor share."""
    weights = [share**number for number in range(categories)]
    rng = random.Random(0)
    notes = [
        {
            **{"id": 10 * image + place, "image_id": image, "area": 100, "bbox": [2, 2, 10, 10], "segmentation": BOX},
            **{"category_id": rng.choices(range(1, categories + 1), weights)[0], "iscrowd": int(place == 3)},
        }
        for image in range(1, images + 1)
        for place in range(4)
    ]
    records = [{"id": n, "file_name": f"{n}.png", "height": 20, "width": 24} for n in range(1, images + 1)]
    if shuffled:
        rng.shuffle(notes)
        rng.shuffle(records)
    classes = [{"id": number, "name": f"class {number}"} for number in range(1, categories + 1)]
    part = Part("file.json", folder, records, notes, classes)
    write_store(folder, "mine", {"train": part, "val": part})
    return Store.open(folder, "train")


def split_of(store: Store, **options: Any) -> Split:
    """Give the split in which every image is labelled, and its labels are spoilt."""
    choice = SplitChoice(
        family="soft_teacher", percent=100, fold=1, corruption=Corruption(**options) if options else None
    )
    return splits.draw_split(store, "mine", choice)


def notes_of(store: Store, split: Split) -> dict[int, dict[str, Any]]:
    return {
        note["id"]: note
        for number in store.image_ids
        for note in corruptions.apply(split, store.annotations(number), store.size(number))
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of(tmp_path_factory.mktemp("store"), 1_000)


@pytest.mark.parametrize("percent", [5, 20, 100])
def test_flip_changes_the_class_of_x_percent(store: Store, percent: float) -> None:
    split = split_of(store, flip=percent)
    before, after = notes_of(store, split_of(store)), notes_of(store, split)
    changed = {number for number, note in after.items() if note != before[number]}
    assert changed == set(split.flipped or {}) and before.keys() == after.keys()
    expected, spread = 3_000 * percent / 100, (3_000 * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(len(changed) - expected) <= 4 * spread
    for number in changed:
        assert after[number] == {**before[number], "category_id": after[number]["category_id"]}
        assert not before[number]["iscrowd"]
    if percent == 100:
        found = Counter(after[number]["category_id"] for number in changed if before[number]["category_id"] == 1)
        assert set(found) == {2, 3, 4, 5}
        assert all(abs(n - sum(found.values()) / 4) < 4 * (sum(found.values()) * 3 / 16) ** 0.5 for n in found.values())


def test_drop_removes_x_percent_and_leaves_the_others(store: Store) -> None:
    split = split_of(store, drop=30)
    before, after = notes_of(store, split_of(store)), notes_of(store, split)
    gone = before.keys() - after.keys()
    assert gone == set(split.dropped or ()) and abs(len(gone) - 900) <= 4 * 25.1
    assert all(note == before[number] for number, note in after.items())
    assert len(split.ids) == 1_000, "an image without labels left is still a labelled one"


def test_kinds_do_not_disturb_each_other(store: Store) -> None:
    alone, both = split_of(store, flip=20), split_of(store, flip=20, drop=30)
    assert both.dropped == split_of(store, drop=30).dropped
    assert both.flipped == {n: c for n, c in (alone.flipped or {}).items() if n not in set(both.dropped or ())}
    assert split_of(store, flip=20, seed=1).flipped != alone.flipped


def test_nothing_depends_on_the_order_of_the_records(store: Store, tmp_path: Path) -> None:
    shuffled = store_of(tmp_path, 1_000, shuffled=True)
    options = {"flip": 20, "drop": 10, "jitter": 2, "coarsen": 3, "long_tail": 40}
    one, other = split_of(store, **options), split_of(shuffled, **options)
    # The classes are drawn before the shuffle, so that these are the same records.
    assert one.sha256 == other.sha256
    assert notes_of(store, one) == notes_of(shuffled, other)


def test_jitter_moves_a_mask_a_little(store: Store) -> None:
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:44, 30:60] = True
    ious = []
    for number in range(200):
        moved = corruptions.jitter(mask, 4, 0, number)
        assert np.array_equal(moved, corruptions.jitter(mask, 4, 0, number))
        ious.append((mask & moved).sum() / (mask | moved).sum())
        rows, columns = np.nonzero(moved)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert moved.sum() == height * width and height - 24 == width - 30 and height - 24 in (0, 2, 4, 6, 8)
        assert abs((rows.min() + rows.max()) / 2 - 31.5) <= 4 and abs((columns.min() + columns.max()) / 2 - 44.5) <= 4
    assert 0.4 < min(ious) < 0.6 < np.mean(ious) < 0.85 < max(ious) <= 1
    assert len({round(iou, 6) for iou in ious}) > 20


def test_jitter_and_coarsen_never_empty_a_mask() -> None:
    corner = np.zeros((9, 11), dtype=bool)
    corner[0, 0] = True
    for number in range(50):
        assert corruptions.jitter(corner, 6, 0, number).any()
    assert corruptions.coarsen(corner, 4).sum() == 16
    assert not corruptions.coarsen(np.zeros((9, 11), dtype=bool), 4).any()


def test_coarsen_rounds_to_cells() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0:4, 0:6] = True
    mask[8:, 8:] = True
    expected = np.zeros((10, 10), dtype=bool)
    expected[0:4, 0:8] = True  # the second cell is half full
    expected[8:, 8:] = True  # the last cells are cut off by the border
    assert np.array_equal(corruptions.coarsen(mask, 4), expected)
    assert np.array_equal(corruptions.coarsen(mask, 2), mask)


def test_masks_that_are_spoilt_stay_records(store: Store) -> None:
    split = split_of(store, jitter=3, coarsen=4)
    for number, note in list(notes_of(store, split).items())[:40]:
        if note["iscrowd"]:
            assert note["segmentation"] == BOX
            continue
        mask = pixels.decode(note["segmentation"], (20, 24))
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert note["bbox"] == box and note["area"] == mask.sum(), number


@pytest.mark.parametrize("ratio", [10, 100])
def test_long_tail_gives_the_profile_that_is_asked_for(tmp_path: Path, ratio: float) -> None:
    even = store_of(tmp_path, 4_000, categories=6, share=1.0)
    split = split_of(even, long_tail=ratio)
    found = Counter(n["category_id"] for i in split.ids for n in even.annotations(i) if not n["iscrowd"])
    counts = np.array(sorted(found.values(), reverse=True))
    assert len(counts) == 6 and counts[0] > 300
    assert counts[0] / counts[-1] == pytest.approx(ratio, rel=0.2)
    steps = np.log(counts[:-1] / counts[1:])
    assert np.abs(steps - np.log(ratio) / 5).max() < 0.15
    assert split.ids == tuple(sorted(split.ids)) and split.pool == 4_000
    assert split.effective_percent == 100 * len(split.ids) / 4_000
    assert split_of(even, long_tail=ratio, seed=1).ids != split.ids


def test_a_corruption_has_a_name_and_an_identity(store: Store) -> None:
    plain, spoilt = split_of(store), split_of(store, flip=20)
    assert plain.ids == spoilt.ids and plain.sha256 == splits.digest(plain.ids) != spoilt.sha256
    assert split_of(store, flip=20, seed=1).sha256 != spoilt.sha256
    names = {
        "flip20": {"flip": 20},
        "drop10-flip20": {"flip": 20, "drop": 10},
        "longtail10-drop2.5-jitter4-coarsen8-seed3": {
            "coarsen": 8,
            "jitter": 4,
            "drop": 2.5,
            "long_tail": 10,
            "seed": 3,
        },
    }
    assert {Corruption(**options).name for options in names.values()} == set(names)
    assert SplitChoice(family="x", percent=2.5, fold=1, corruption=Corruption(flip=20)).stem == "2.5pct-fold1-flip20"


def test_a_spoilt_split_is_read_back_and_its_outcome_is_kept(store: Store, tmp_path: Path) -> None:
    split, path = split_of(store, flip=20, drop=10), tmp_path / "split.json"
    splits.write_split(path, split)
    assert splits.read_split(path) == split
    text = path.read_text()
    number, category = next(iter((split.flipped or {}).items()))
    path.write_text(text.replace(f'"{number}": {category}', f'"{number}": {category % 5 + 1}', 1))
    with pytest.raises(BenchError, match="do not have the sha256"):
        splits.read_split(path)
    choice = SplitChoice(family="soft_teacher", percent=100, fold=1)
    with pytest.raises(BenchError, match=r'its file holds .*"flip":20.*but the study asks for'):
        splits.check_split(split, store, choice)
    assert not {"ids", "flipped", "dropped"} & split.summary().keys() and split.summary()["corruption"]["flip"] == 20


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for options in ({}, {"seed": 1}, {"flip": 0}, {"flip": 101}, {"drop": 100}, {"jitter": 0}, {"coarsen": 1}):
        with pytest.raises(ValidationError):
            Corruption(**options)
    with pytest.raises(ValidationError, match="give at least one of long_tail, drop, flip, jitter, coarsen"):
        Corruption()
    with pytest.raises(BenchError, match=r"split\.corruption\.flip: the dataset has one class"):
        split_of(store_of(tmp_path, 3, categories=1), flip=50)


def test_a_run_without_a_corruption_keeps_its_digest() -> None:
    values = study()
    run = Study(**values).run(10, 1, "mask_rcnn", "pais")
    assert '"split":{"family":"soft_teacher","percent":10.0,"fold":1},' in run.model_dump_json()
    values["split"]["corruption"] = {"flip": 20}
    spoilt = Study(**values).run(10, 1, "mask_rcnn", "pais")
    assert spoilt.digest != run.digest and spoilt.folder.parts[2] == "10pct-fold1-flip20"


def test_a_run_trains_on_spoilt_labels_and_measures_against_the_truth(tmp_path: Path) -> None:
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=40, val=6, size=64), None).prepare(tmp_path / "store", "shapes")
    stores = {part: Store.open(tmp_path / "store", part) for part in ("train", "val")}
    values = study()
    values["split"]["corruption"] = {"flip": 100, "jitter": 3, "coarsen": 4}
    run = Study(**values).run(10, 1, "mask_rcnn", "pais")
    split = splits.draw_split(stores["train"], "shapes", run.split)
    stream = data.Stream(run, stores["train"], split)
    plain = data.Stream(run, stores["train"], split.model_copy(update={"corruption": None}))
    spoilt = [stream[step].labelled for step in range(4)]
    truth = [plain[step].labelled for step in range(4)]
    pairs = [(a, b) for step, other in zip(spoilt, truth, strict=True) for a, b in zip(step, other, strict=True)]
    assert all(torch.equal(a.view.image, b.view.image) for a, b in pairs)
    seen = [(a.instances, b.instances) for a, b in pairs if len(a.instances) == len(b.instances) > 0]
    assert seen and all((a.labels != b.labels).all() for a, b in seen)
    assert any(not torch.equal(a.masks, b.masks) for a, b in seen)
    for image in stream[0].unlabelled:
        assert image.truth is not None and image.image_id not in split.ids
    (tmp_path / "run").mkdir()
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = engine.Trainer(run, stores, split, tmp_path / "run", fabric)
    assert trainer.stream.split == split
    trainer.fit()
    assert trainer.step == 4


def test_a_list_of_the_user_is_spoilt_too(store: Store) -> None:
    choice = SplitChoice(family="imported", percent=1, fold=1, corruption=Corruption(drop=50))
    split = splits.make_split(store, "mine", choice, Drawn([3, 1, 2], 1_000))
    assert split.ids == (1, 2, 3) and split.dropped
