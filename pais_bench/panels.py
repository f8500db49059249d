"""What do teacher and student of a run see on a few images, and what would each pseudo-label be worth?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pais_bench import augment, geometry, inference, plugins
from pais_bench.checkpoint import read_checkpoint
from pais_bench.config import Run, Weights
from pais_bench.data import read_stored
from pais_bench.store import Store
from pais_bench.types import Method, Targets

IMAGES = 3
MODELS = ("teacher", "student")
SHOWN = 0.5
"""What no method has weighed is shown from this class score on."""

Record = dict[str, Any]


@torch.no_grad()
def look(run: Run, store: Store, folder: Path, weights: Weights, device: torch.device) -> list[Record]:
    """Give for each of IMAGES validation images what teacher and student find, as records in its original pixels.

    folder holds what the training left. Where weights are of the best evaluation, each of the two is shown with its
    best weights as far as they were kept, and `best` lists it; else after the last step. A record has category_id,
    score, quality, segmentation (RLE), and class_weight and mask_weight where the method weighs; of the teacher what
    the method keeps. Without unlabelled images, or where its thresholds were found while training, a method weighs
    nothing here. Raises BenchError for a damaged checkpoint.
    """
    best = [one for one in MODELS if weights.endswith("-best") and (folder / f"best-{one}.pt").exists()]
    categories = [number for number, _ in store.categories]
    plugin = plugins.load("methods", run.method.name)
    method: Method = plugin.Method(plugin.Options(**run.method.options))
    weighs = method.unlabelled and not hasattr(method, "calibrate")
    found: dict[int, Record] = {image_id: {"image_id": image_id} for image_id in _chosen(store)}
    backend: Any = inference.build_backend(run, len(categories)).to(device)
    files = {model: folder / (f"best-{model}.pt" if model in best else "checkpoint.pt") for model in MODELS}
    states = {path: read_checkpoint(path, run) for path in set(files.values())}
    for model, path in files.items():
        backend.load_state_dict(states[path][model])
        for image_id, told in found.items():
            view = augment.test(read_stored(store, image_id), run.views)
            seen = backend.predict([view.image.to(device)])[0]
            weighed = method.weigh(seen) if weighs and model == "teacher" else None
            targets = weighed or Targets.of_truth(seen[seen.scores > SHOWN])
            moved = geometry.project_targets(targets, torch.linalg.inv(view.matrix), store.size(image_id))
            told[model] = _records(moved, categories, weighed is not None)
    return [{**told, "best": best} if best else told for told in found.values()]


def _chosen(store: Store) -> list[int]:
    """Choose images with two to eight objects, evenly spread over those there are: the same ones for every run."""
    objects = store.objects()
    ids, counts = np.unique(objects.image_id[~objects.crowd], return_counts=True)
    several = ids[(counts >= 2) & (counts <= 8)]
    pool = several if len(several) >= IMAGES else np.array(store.image_ids)
    places = np.linspace(0, len(pool) - 1, min(IMAGES, len(pool))).round().astype(int)
    return [int(image_id) for image_id in pool[places]]


def _records(targets: Targets, categories: Sequence[int], weighed: bool) -> list[Record]:
    seen = targets.instances
    records = []
    for index, label in enumerate(seen.labels.tolist()):
        record: Record = {
            "category_id": categories[label],
            "score": float(seen.scores[index]),
            "quality": float(seen.quality[index]),
            "segmentation": geometry.encode(seen.masks[index]),
        }
        if weighed:
            record |= {"class_weight": float(targets.class_weight[index])}
            record |= {"mask_weight": float(targets.mask_weight[index])}
        records.append(record)
    return records
