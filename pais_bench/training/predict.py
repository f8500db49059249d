"""Predict images with networks, as COCO result records in their original pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pais_bench.annotations.store import Store
from pais_bench.data.views import load_views
from pais_bench.study.run import Run
from pais_bench.training.original import to_records
from pais_bench.types import Backend, View

BATCH_SIZE = 8
"""Images that are padded to one size and predicted together."""

Record = dict[str, Any]
Progress = Callable[[int], None]


def predict(
    backend: Backend, run: Run, store: Store, image_ids: Sequence[int], device: torch.device, workers: int = 0
) -> list[Record]:
    """Predict images at the test scale; return COCO result records in their original pixels."""
    batches = predict_batches([backend], run, store, split_into_batches(image_ids), device, workers)
    return [record for (records,) in batches for record in records]


@torch.no_grad()
def predict_batches(
    networks: Sequence[Backend],
    run: Run,
    store: Store,
    batches: Sequence[Sequence[int]],
    device: torch.device,
    workers: int,
    progress: Progress = lambda done: None,
) -> list[list[list[Record]]]:
    """Return for each batch of image ids, and each network, its COCO result records, as predict does.

    Worker processes read the images, once for all networks. progress is called with the number of predicted images
    after every batch, an empty one too.
    """
    categories = [category_id for category_id, _ in store.categories]
    found: list[list[list[Record]]] = []
    done = 0
    for batch, views in zip(batches, load_views(store, run.input, batches, workers, device), strict=True):
        found.append([_predict_batch(network, batch, views, store, categories) for network in networks])
        done += len(batch)
        progress(done)
    return found


def split_into_batches(image_ids: Sequence[int]) -> list[Sequence[int]]:
    """Return the images that are padded to one size and predicted together."""
    return [image_ids[start : start + BATCH_SIZE] for start in range(0, len(image_ids), BATCH_SIZE)]


def _predict_batch(
    network: Backend, batch: Sequence[int], views: Sequence[View], store: Store, categories: Sequence[int]
) -> list[Record]:
    detections = network.predict([view.image for view in views]) if batch else []
    records: list[Record] = []
    for image_id, view, instances in zip(batch, views, detections, strict=True):
        in_image = to_records(instances, view, store.size(image_id), categories)
        records += [{"image_id": image_id, **record} for _, record in in_image]
    return records
