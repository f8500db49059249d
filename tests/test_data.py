"""Check that a batch is a function of (seed, position, image) alone, and that images and labels are read right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from tiny import study

from pais_bench import plugins
from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.data import loader
from pais_bench.data.read import read_file, read_instances
from pais_bench.errors import BenchError
from pais_bench.splits.draw import make_split
from pais_bench.splits.family import LabelledSet
from pais_bench.splits.split import Split
from pais_bench.study.run import Run
from pais_bench.study.study import Study
from pais_bench.types import Batch


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("shapes")
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=20, val=2, size=64), None).prepare(folder, "shapes")
    return Store.open(folder, "train")


def labelled(run: Run, store: Store, ids: Sequence[int]) -> Split:
    return make_split(store, "shapes", run.split, LabelledSet(ids, len(store.image_ids)))


def dataset(store: Store, rank: int = 0, world: int = 1, **training: int) -> loader.BatchDataset:
    values = study()
    values["training"] |= training
    run = Study(**values).run(10, 1, "mask_rcnn", "pais")
    return loader.BatchDataset(run, store, labelled(run, store, store.image_ids[:3]), rank, world)


def pixels(batch: Batch) -> list[tuple[int, torch.Tensor]]:
    views = [(one.image_id, one.view) for one in batch.labelled]
    views += [(one.image_id, view) for one in batch.unlabelled for view in (one.weak, one.strong)]
    return [(image_id, view.image) for image_id, view in views]


def same(first: Batch, second: Batch) -> bool:
    pairs = zip(pixels(first), pixels(second), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def test_any_step_can_be_loaded_alone(store: Store) -> None:
    assert same(dataset(store)[3], dataset(store)[3])
    assert not same(dataset(store)[3], dataset(store)[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_gives_the_same_with_any_number_of_workers(store: Store, workers: int) -> None:
    batches = list(dataset(store).loader(1, workers, unlabelled=True))
    assert [batch.step for batch in batches] == [1, 2, 3]
    assert all(same(batch, dataset(store)[batch.step]) for batch in batches)


def test_held_out_labels_are_read_for_logged_steps_only_and_change_no_view(store: Store) -> None:
    every, some = dataset(store, log_every=1), dataset(store, log_every=2)
    assert [[one.ground_truth is None for one in some[step].unlabelled] for step in (0, 1)] == [[True] * 2, [False] * 2]
    assert all(same(every[step], some[step]) for step in (0, 1))


def test_an_extra_store_adds_unlabelled_images_without_ground_truth(store: Store, tmp_path: Path) -> None:
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=5, val=2, size=64, seed=9), None).prepare(tmp_path, "other")
    extra = Store.open(tmp_path, "train")
    run = Study(**study(training={**study()["training"], "labelled_batch_size": 1, "unlabelled_batch_size": 22})).run(
        10, 1, "mask_rcnn", "pais"
    )
    (batch,) = [loader.BatchDataset(run, store, labelled(run, store, store.image_ids[:3]), extra=extra)[0]]
    described = [(one.image_id, one.ground_truth is None) for one in batch.unlabelled]
    assert sorted(image_id for image_id, hidden in described if not hidden) == sorted(store.image_ids[3:])
    assert sorted(image_id for image_id, hidden in described if hidden) == sorted(extra.image_ids)
    everything = loader.BatchDataset(run, store, labelled(run, store, store.image_ids), extra=extra)
    assert all(one.ground_truth is None for one in everything[0].unlabelled), (
        "all labelled: the extra images are the pool"
    )


def test_labelled_and_unlabelled_images_are_disjoint_and_an_epoch_has_every_image_once(store: Store) -> None:
    whole = dataset(store, labelled_batch_size=3, unlabelled_batch_size=17)
    for step in range(3):
        batch = whole[step]
        assert sorted(one.image_id for one in batch.labelled) == list(store.image_ids[:3])
        assert sorted(one.image_id for one in batch.unlabelled) == list(store.image_ids[3:])
    orders = [[one.image_id for one in whole[step].unlabelled] for step in range(3)]
    assert orders[0] != orders[1] != orders[2]


def test_ranks_share_a_batch(store: Store) -> None:
    whole, parts = dataset(store)[5], [dataset(store, rank, 2)[5] for rank in range(2)]
    assert {one.image_id for one in whole.unlabelled} == {one.image_id for part in parts for one in part.unlabelled}
    assert sum(len(part.labelled) for part in parts) == len(whole.labelled)


def test_a_batch_that_the_devices_cannot_share_is_refused(store: Store) -> None:
    with pytest.raises(BenchError, match="a batch of 2 images cannot be shared by 3 devices"):
        dataset(store, 0, 3)


def test_labelled_images_are_the_same_without_the_unlabelled_ones(store: Store) -> None:
    (alone,) = list(dataset(store).loader(3, 0, unlabelled=False))
    assert not alone.unlabelled
    assert [one.image_id for one in alone.labelled] == [one.image_id for one in dataset(store)[3].labelled]


def test_instances_leave_out_crowds_and_decode_every_kind(tmp_path: Path) -> None:
    packed = rle.encode(np.asfortranarray(np.eye(8, 10, dtype=np.uint8)))
    compressed = {"size": [8, 10], "counts": packed["counts"].decode()}
    records: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 10}],
        "categories": [{"id": 3, "name": "x"}, {"id": 9, "name": "y"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 4, 1, 4]]},
            {"id": 2, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": compressed},
            {"id": 3, "image_id": 7, "category_id": 3, "iscrowd": 1, "segmentation": compressed},
            {
                "id": 4,
                "image_id": 7,
                "category_id": 3,
                "iscrowd": 0,
                "segmentation": {"size": [8, 10], "counts": [8, 4, 68]},
            },
        ],
    }
    write_store(tmp_path, "mine", {"train": Subset("file.json", tmp_path, **records)})
    instances = read_instances(Store.open(tmp_path, "train"), 7)
    assert instances.labels.tolist() == [1, 0, 0]
    assert instances.boxes[0].tolist() == [1, 1, 5, 4]
    assert instances.masks.sum((1, 2)).tolist() == [12, 8, 4]
    assert instances.boxes[2].tolist() == [1, 0, 2, 4]  # COCO counts run down the columns


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_images_of_any_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (6, 4)).save(tmp_path / "a.png")
    assert read_file(tmp_path / "a.png").shape == (3, 4, 6)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 torn")
    with pytest.raises(BenchError, match=r"bad\.jpg: unreadable image"):
        read_file(tmp_path / "bad.jpg")
