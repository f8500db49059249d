"""Check that a batch is a function of (seed, position, image) alone, and that images and labels are read right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from tiny import project, study

from pais_bench import geometry, plugins
from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.data import loader
from pais_bench.data.labels import read_boxes, read_instances, read_labels, to_instances
from pais_bench.data.read import read_file
from pais_bench.data.recipe import Recipe
from pais_bench.errors import BenchError
from pais_bench.splits.draw import make_split
from pais_bench.splits.family import LabelledSet
from pais_bench.splits.split import Split, images_with_objects
from pais_bench.study.run import InputOptions, Run
from pais_bench.study.split import LabelNoise
from pais_bench.study.study import Study
from pais_bench.types import Batch, Instances


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
    batches = list(dataset(store).loader(1, workers))
    assert [batch.step for batch in batches] == [1, 2, 3]
    assert all(same(batch, dataset(store)[batch.step]) for batch in batches)


@pytest.mark.parametrize("workers", [0, 1])
def test_views_of_the_device_are_those_of_the_cpu(store: Store, workers: int) -> None:
    whole = dataset(store, steps=3)
    batches = list(dataset(store, steps=3).loader(0, workers, views_on="device"))
    assert all(same(batch, whole[batch.step]) for batch in batches)
    assert all(tensor.is_contiguous() for batch in batches for _, tensor in pixels(batch))
    packed = [whole.pack(0, views_on_device) for views_on_device in (False, True)]
    views = [view for batch in packed for one in batch.unlabelled for view in (one.weak, one.strong)]
    assert [view.recipe is None for view in views] == [True] * 4 + [False] * 4
    assert all(3 * np.prod(view.recipe.source) == np.prod(view.pixels.shape) for view in views if view.recipe)


def test_an_image_that_is_larger_than_its_views_is_not_sent(store: Store) -> None:
    small = dataset(store)
    small.run = small.run.model_copy(update={"input": InputOptions(min_size_train=(16, 24), max_size_train=32)})
    batch = small.pack(0, views_on_device=True)
    assert all(view.recipe is None for one in batch.unlabelled for view in (one.weak, one.strong))


def test_thresholds_are_fitted_to_the_labels_that_noise_left(store: Store) -> None:
    noisy = dataset(store)
    dropped = tuple(one["id"] for one in store.annotations(noisy.split.ids[0]))
    noisy.split = noisy.split.model_copy(update={"label_noise": LabelNoise(missing=50), "dropped": dropped})
    first, *others = map(len, noisy.labels())
    assert first == 0 < sum(others)


@pytest.mark.parametrize(("length", "count"), [(300, 200), (7, 7), (7, 9), (240, 32), (1, 5), (0, 5)])
def test_a_sample_is_spread_over_all(length: int, count: int) -> None:
    chosen = loader.evenly_spread(length, count)
    assert len(chosen) == min(length, count) == len(set(chosen)) and chosen == sorted(chosen)
    gaps = np.diff([*chosen, length])
    assert not chosen or (chosen[0] == 0 and gaps.max() - gaps.min() <= 1)


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


def test_held_out_labels_come_with_every_step_on_request_and_leave_out_extra_images(
    store: Store, tmp_path: Path
) -> None:
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=5, val=2, size=64, seed=9), None).prepare(tmp_path, "other")
    whole = dataset(store, log_every=4)
    extra = Store.open(tmp_path, "train")
    whole = loader.BatchDataset(whole.run, store, whole.split, extra=extra, held_out_labels=True)
    batches = list(whole.loader(0, 0))
    assert all(one.ground_truth is not None for batch in batches for one in batch.unlabelled)
    assert all(same(batch, dataset(store)[batch.step]) for batch in batches), "the pool is that without extra images"


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
    whole = dataset(store)
    (alone,) = list(loader.BatchDataset(whole.run, store, whole.split, uses_unlabelled=False).loader(3, 0))
    assert not alone.unlabelled
    assert [one.image_id for one in alone.labelled] == [one.image_id for one in whole[3].labelled]


def test_labelled_images_without_an_object_are_left_out_of_batches_alone(store: Store, tmp_path: Path) -> None:
    assert all(same(dataset(store, filter_empty_gt=True)[step], dataset(store)[step]) for step in range(4))
    records, (empty, crowd, last) = store.coco_dict(), store.image_ids[:3]
    anns = [{**ann, "iscrowd": int(ann["image_id"] == crowd)} for ann in records["annotations"]]
    values = {**records, "annotations": [ann for ann in anns if ann["image_id"] != empty]}
    folder = store.path(last).parent
    write_store(tmp_path, "mine", {"train": Subset("file.json", folder, **values)})
    fewer = Store.open(tmp_path, "train")
    whole, left = dataset(fewer, labelled_batch_size=6), dataset(fewer, labelled_batch_size=6, filter_empty_gt=True)
    assert {one.image_id for one in whole[0].labelled} == {empty, crowd, last}
    assert {one.image_id for one in left[0].labelled} == {last}
    assert left.pools[1] == whole.pools[1] == store.image_ids[3:], "they are no unlabelled images either"
    assert len(left.labels()) == len(whole.labels()) == 3
    of_crowd = tuple(ann["id"] for ann in store.annotations(crowd))
    *others, stuff = records["categories"]
    one_each = {ann["image_id"]: ann for ann in records["annotations"]}
    one_each[empty] = {**one_each[empty], "category_id": stuff["id"]}
    values = {**records, "annotations": [*one_each.values()], "categories": [*others, {**stuff, "isthing": 0}]}
    write_store(tmp_path / "stuff", "mine", {"train": Subset("file.json", folder, **values)})
    of_stuff = Store.open(tmp_path / "stuff", "train")
    assert images_with_objects(whole.split, of_stuff, with_stuff=False) == (crowd, last)
    assert images_with_objects(whole.split, of_stuff) == (empty, crowd, last)
    assert images_with_objects(whole.split, store) == (empty, crowd, last)
    assert images_with_objects(whole.split.model_copy(update={"dropped": of_crowd}), store) == (empty, last)
    with pytest.raises(BenchError, match="its 1 labelled images have no object that network mask_rcnn learns;"):
        loader.BatchDataset(whole.run, of_stuff, labelled(whole.run, of_stuff, [empty]))


def write_annotations(folder: Path, size: tuple[int, int], segmentations: Sequence[Any]) -> Store:
    """Write a store of one image, 7, with an object for each segmentation; no file is opened."""
    annotations = [
        {"id": k, "image_id": 7, "category_id": 3, "iscrowd": 0, "segmentation": one}
        for k, one in enumerate(segmentations)
    ]
    images = [{"id": 7, "file_name": "a.png", "height": size[0], "width": size[1]}]
    subset = Subset("file.json", folder, images=images, annotations=annotations, categories=[{"id": 3, "name": "x"}])
    write_store(folder, "mine", {"train": subset})
    return Store.open(folder, "train")


def star(centre: tuple[float, float], radius: float) -> list[float]:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    length = radius * np.where(np.arange(24) % 2, 0.6, 1.0)
    return np.stack((centre[0] + length * np.cos(angle), centre[1] + length * np.sin(angle)), 1).ravel().tolist()


def drawn(store: Store, made: Recipe) -> Instances:
    size, *arrays = read_labels(store, 7, made=made)
    return to_instances(size, *map(torch.from_numpy, arrays))


VIEWS = [
    Recipe((120, 160), (300, 400)),
    Recipe((120, 160), (90, 120), flip=True),
]


@pytest.mark.parametrize("made", VIEWS, ids=["larger", "smaller, flipped"])
def test_labels_are_drawn_where_the_masks_of_the_file_are_moved_to(tmp_path: Path, made: Recipe) -> None:
    """Polygons are drawn at the size of the view, RLE is warped: against all masks of the file, warped."""
    polygons = [[star((60, 60), 50)], [star((110, 40), 30), star((40, 95), 20)], [star((158, 118), 25)]]
    masks = [rle.merge(rle.frPyObjects(polygon, 120, 160)) for polygon in polygons]
    runs = [{"size": [120, 160], "counts": mask["counts"].decode()} for mask in masks]
    for folder, segmentations, least in (("polygons", polygons, 0.95), ("runs", runs, 0.999)):
        (tmp_path / folder).mkdir()
        store = write_annotations(tmp_path / folder, (120, 160), segmentations)
        expected, _ = project(read_instances(store, 7), torch.from_numpy(made.matrix), made.size)
        instances = drawn(store, made)
        assert len(instances) == len(expected) > 1
        both, either = (instances.masks & expected.masks), (instances.masks | expected.masks)
        assert (both.sum((1, 2)) / either.sum((1, 2))).min() > least
        assert torch.equal(instances.boxes, geometry.masks_to_boxes(instances.masks))
        assert (instances.boxes - expected.boxes).abs().max() <= 2.5


def test_masks_that_touch_each_other_in_the_order_of_their_pixels_stay_apart(tmp_path: Path) -> None:
    """A mask that ends with the last pixel and one that begins with the first have no end between them."""
    texts = [[0, 12], [4, 8], [0, 3, 9], [11, 1], [0, 12]]
    store = write_annotations(tmp_path, (3, 4), [{"size": [3, 4], "counts": counts} for counts in texts])
    expected = [np.repeat(np.arange(len(counts)) % 2, counts).reshape(4, 3).T for counts in texts]
    assert np.array_equal(read_instances(store, 7).masks.numpy(), np.stack(expected))
    assert read_labels(store, 7).ends.tolist() == [0, 12, 16, 27, 47]


def test_boxes_can_be_read_without_masks(tmp_path: Path) -> None:
    store = write_annotations(tmp_path, (120, 160), [[star((60, 60), 50)], [[1, 1, 1.1, 1.1, 1.2, 1.0]]])
    boxes, instances = read_boxes(store, 7), read_instances(store, 7)
    assert torch.equal(boxes.boxes, instances.boxes) and torch.equal(boxes.labels, instances.labels)
    assert boxes.masks.shape == (len(instances), 0, 0)


def test_a_batch_of_large_photos_holds_no_mask_at_the_size_of_the_file(tmp_path: Path) -> None:
    """The 100 masks have 100 runs each; at 4000 x 3000 they would take 1.2 GB."""
    rng = np.random.default_rng(0)
    polygons = [[star((float(x), float(y)), 250)] for x, y in rng.uniform((300, 300), (3700, 2700), (100, 2))]
    labels = read_labels(write_annotations(tmp_path, (3000, 4000), polygons), 7, made=Recipe((3000, 4000), (800, 1067)))
    assert len(labels.classes) == 100 and labels.ends.nbytes < 2**20 and math.prod(labels.size) == 800 * 1067


def test_runs_of_an_image_with_a_side_that_opencv_refuses_are_moved(tmp_path: Path) -> None:
    runs = {"size": [40, 40_000], "counts": [40 * 2_000, 40 * 36_000, 40 * 2_000]}
    instances = drawn(write_annotations(tmp_path, (40, 40_000), [runs]), Recipe((40, 40_000), (20, 2_000), flip=True))
    assert instances.boxes.tolist() == [[100, 0, 1_900, 20]] and instances.masks.sum() == 1_800 * 20


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


def test_negative_and_large_image_ids_have_draws_of_their_own() -> None:
    """COCO allows any integer; NumPy's seeds are at least 0."""
    run = Study(**study()).runs()[0]
    seeds = [run.derive_seed(3, image_id) for image_id in (5, -5, -6, 2**63 - 1)]
    assert len(set(seeds)) == 4 and seeds[0] == int(np.random.SeedSequence((run.seed, 3, 5)).generate_state(1)[0])
