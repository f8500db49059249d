"""Check what brings predictions to the original pixels of an image, and what loads the views that are predicted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from tiny import NETWORK, instances, project, study
from torchvision import models

from pais_bench import geometry, plugins
from pais_bench.annotations.store import Store
from pais_bench.data import augment
from pais_bench.data.read import read_image
from pais_bench.data.views import load_views
from pais_bench.errors import BenchError
from pais_bench.runs.files import CHECKPOINT
from pais_bench.study.study import Study
from pais_bench.training.checkpoint import write_checkpoint
from pais_bench.training.examples import predict_examples
from pais_bench.training.networks import build_backend, load_trained
from pais_bench.training.original import encode_ends, resize_to_ends, to_original
from pais_bench.training.predict import predict
from pais_bench.types import View

CPU = torch.device("cpu")
SIZES = [
    ((40, 53), (40, 53)),
    ((40, 53), (24, 32)),
    ((40, 53), (20, 106)),
    ((40, 53), (150, 200)),
    ((31, 17), (9, 61)),
    ((40, 53), (1, 3)),
    ((1, 1), (5, 7)),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shapes")
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=2, val=19, size=64), None).prepare(folder, "shapes")
    return Store.open(folder, "val")


def masks_of(size: tuple[int, int]) -> np.ndarray:
    """Return empty, full, single-pixel, blob-like and noisy masks of a size."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    blobs = [
        (y - rng.uniform(0, size[0])) ** 2 + (x - rng.uniform(0, size[1])) ** 2 < rng.uniform(2, 18) ** 2
        for _ in range(12)
    ]
    corners = [(y == row) & (x == column) for row in (0, size[0] - 1) for column in (0, size[1] - 1)]
    noise = [rng.random(size) < share for share in (0.02, 0.5, 0.98)]
    return np.stack([np.zeros(size, dtype=bool), np.ones(size, dtype=bool), *blobs, *corners, *noise])


def weights(old: int, new: int) -> np.ndarray:
    """Return i64[new,old]: the shares, of 2·new, that old pixels have in new ones; those beyond the border are lost."""
    centres = (2 * np.arange(new) + 1) * old - new
    return np.maximum(2 * new - np.abs(centres[:, None] - 2 * new * np.arange(old)), 0)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_masks_in_original_pixels_are_the_exact_ones(old: tuple[int, int], new: tuple[int, int]) -> None:
    masks = masks_of(old)
    exact = weights(old[0], new[0]) @ masks.astype(np.int64) @ weights(old[1], new[1]).T / (4 * new[0] * new[1])
    ends = [resize_to_ends(mask, new) for mask in masks]
    filled = [k for k in range(len(masks)) if len(ends[k])]
    assert filled == np.flatnonzero((exact > 0.5).any((1, 2))).tolist()
    for k, encoded in zip(filled, encode_ends([ends[k] for k in filled], new), strict=True):
        expected = np.asfortranarray((exact[k] > 0.5).astype(np.uint8))
        assert encoded == {"size": list(new), "counts": rle.encode(expected)["counts"].decode()}
    in_floats = geometry.warp_masks(torch.from_numpy(masks), geometry.scale(new[1] / old[1], new[0] / old[0]), new)
    differing = in_floats.numpy() != (exact > 0.5)
    assert (np.abs(exact[differing] - 0.5) < 1e-4).all(), "in floats, a value of a half may come out on either side"


def test_what_remains_is_what_a_projection_leaves() -> None:
    view = View(torch.zeros(3, 60, 90), geometry.scale(1.5, 1.5))
    boxes = [[5, 5, 40, 30], [0, 0, 90, 60], [10, 10, 10, 50], [60, 20, 90, 60], [7, 7, 8, 8]]
    detections = instances(boxes, size=(60, 90))
    detections.masks[3] = False
    detections.masks[2, 10:50, 10:20] = True  # its box has no extent; the last one's mask, no pixel left
    original = to_original(detections, view, (40, 60))
    expected, kept = project(detections, torch.linalg.inv(view.matrix), (40, 60))
    assert original.kept == kept.tolist() == [0, 1] and torch.equal(original.boxes, expected.boxes)
    decoded = torch.from_numpy(rle.decode(original.masks)).permute(2, 0, 1).bool()
    assert torch.equal(decoded, expected.masks)
    nothing = to_original(detections[:0], view, (40, 60))
    assert (nothing.kept, nothing.masks, nothing.boxes.shape) == ([], [], (0, 4))


def test_a_mask_of_the_largest_image_that_a_study_may_allow_is_exact() -> None:
    limit = plugins.load("datasets", "coco").Options.model_json_schema()["properties"]["max_megapixels"]["maximum"]
    side, dot = int((limit * 1e6) ** 0.5), np.zeros((100, 100), dtype=bool)
    dot[50, 50] = True
    filled = np.diff(resize_to_ends(dot, (side, side)), prepend=0)[1::2].sum()
    exact = resize_to_ends(dot, (1000, 1000))
    assert filled == pytest.approx(np.diff(exact, prepend=0)[1::2].sum() * (side / 1000) ** 2, rel=0.05)


def test_a_large_photo_takes_the_memory_of_one_mask() -> None:
    size = (1500, 2000)
    view = View(torch.zeros(3, 300, 400), geometry.scale(0.2, 0.2))
    detections = instances([[0, 0, 400, 300]] * 8, size=(300, 400))
    peaks = []
    for count in (1, 8):
        tracemalloc.start()
        to_original(detections[:count], view, size)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 32 * size[0] * size[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_give_the_views_of_their_batches(workers: int, store: Store) -> None:
    options, batches = Study(**study()).input, [store.image_ids[:3], (), store.image_ids[3:5]]
    loaded = list(load_views(store, options, batches, workers, CPU))
    assert [len(views) for views in loaded] == [3, 0, 2]
    for batch, views in zip(batches, loaded, strict=True):
        for image_id, view in zip(batch, views, strict=True):
            expected = augment.test(read_image(store, image_id), options)
            assert torch.equal(view.image, expected.image) and torch.equal(view.matrix, expected.matrix)


def test_an_unreadable_image_is_named_by_a_loader_process(tmp_path: Path, store: Store) -> None:
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=1, val=3, size=64), None).prepare(tmp_path, "shapes")
    broken = Store.open(tmp_path, "val")
    broken.path(broken.image_ids[2]).write_bytes(b"no image")
    views = load_views(broken, Study(**study()).input, [broken.image_ids[:2], broken.image_ids[2:]], 1, CPU)
    assert len(next(views)) == 2
    with pytest.raises(BenchError, match=rf"^{broken.path(broken.image_ids[2])}: unreadable image"):
        next(views)


def test_predictions_do_not_depend_on_loader_processes_and_are_those_of_the_network(store: Store) -> None:
    run = Study(**study()).runs()[0]
    torch.manual_seed(0)
    network = build_backend(run, store.isthing)
    records = predict(network, run, store, store.image_ids, CPU)
    assert records and records == predict(network, run, store, store.image_ids, CPU, workers=2)
    batch = store.image_ids[16:]
    views = [augment.test(read_image(store, image_id), run.input) for image_id in batch]
    with torch.no_grad():
        detections = network.predict([view.image for view in views])
    expected = []
    for image_id, view, found in zip(batch, views, detections, strict=True):
        original, _ = project(found, torch.linalg.inv(view.matrix), store.size(image_id))
        for (x0, y0, x1, y1), label, score in zip(
            original.boxes.tolist(), original.labels.tolist(), original.scores.tolist(), strict=True
        ):
            category = store.categories[label][0]
            expected.append((image_id, category, [x0, y0, x1 - x0, y1 - y0], score))
    found_last = [(r["image_id"], r["category_id"], r["bbox"], r["score"]) for r in records if r["image_id"] in batch]
    assert found_last == expected


def test_a_trained_network_predicts_without_the_file_of_its_pretrained_weights(store: Store, tmp_path: Path) -> None:
    values, path = study(), tmp_path / "resnet18.pth"
    torch.save(models.resnet18(weights=None).state_dict(), path)
    changes = {"backbone": "resnet18", "pretrained_backbone": str(path), "anchor_sizes": [8, 16, 32, 64, 128]}
    values["networks"]["mask_rcnn"]["options"] = NETWORK | changes
    run = Study(**values).run(10, 1, "mask_rcnn", "pais")
    weights = build_backend(run, store.isthing).state_dict()
    write_checkpoint(tmp_path / CHECKPOINT, {"digest": run.digest, "teacher": weights, "student": weights})
    path.unlink()
    loaded = load_trained(run, store.isthing, tmp_path, "student-last").state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    assert len(predict_examples(run, store, tmp_path, "teacher-last", CPU)) == 8
