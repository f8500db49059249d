"""Predict a few images with teacher and student, with the weight that each pseudo-label would have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.data import augment
from pais_bench.data.read import read_image
from pais_bench.methods.base import MethodBase
from pais_bench.runs.files import CHECKPOINT, best_checkpoint
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.training.checkpoint import read_checkpoint
from pais_bench.training.networks import build_backend, stuff_labels
from pais_bench.training.original import to_records
from pais_bench.training.pseudo_labels import merge_stuff
from pais_bench.types import Instances, Size, SoftBackend, Targets, View

IMAGES = 8
"""Images of a run; the report shows those on which its methods err most."""
MODELS = ("teacher", "student")
SHOWN = 0.5
"""Detections that no method has weighted are shown from this class score on."""

Record = dict[str, Any]


@torch.no_grad()
def predict_examples(
    run: Run, store: Store, folder: Path, checkpoint: ModelCheckpoint, device: torch.device
) -> list[Record]:
    """Return for each of IMAGES validation images what teacher and student detect, as records in its original pixels.

    folder is that of the run. Where the checkpoint is of the best evaluation, each of the two is shown with its best
    weights as far as they were kept, and `best` lists it; else after the last step. A record is that of
    to_records with mask_iou, and class_weight and mask_weight where the method weights; of the teacher what the method
    keeps. Methods without a teacher, with thresholds that were fitted while training, or with a network of their own,
    such as SAM, weight nothing here. Raises BenchError for a damaged checkpoint.
    """
    best = [model for model in MODELS if checkpoint.endswith("-best") and (folder / best_checkpoint(model)).exists()]
    categories = [category_id for category_id, _ in store.categories]
    method: MethodBase = plugins.build("methods", run.method.name, run.method.options)
    has_teacher = method.uses_unlabelled and not method.learns_held_out_labels
    weights = has_teacher and method.calibration_images is None
    examples: dict[int, Record] = {image_id: {"image_id": image_id} for image_id in _choose_images(store)}
    backend = build_backend(run, store.isthing, pretrained=False).to(device)
    files = {model: folder / (best_checkpoint(model) if model in best else CHECKPOINT) for model in MODELS}
    states = {path: read_checkpoint(path, run) for path in set(files.values())}
    for model, path in files.items():
        backend.load_state_dict(states[path][model])
        by_method = weights and model == "teacher"
        predict, keep = backend.predict, method.keep if by_method else _confident
        if by_method and method.needs_soft_predictions:
            assert isinstance(backend, SoftBackend)  # as the training has required
            predict = backend.predict_soft
        for image_id, example in examples.items():
            view = augment.test(read_image(store, image_id), run.input)
            (detections,) = predict([view.image.to(device)], keep=keep)
            targets = Targets.unweighted(detections)
            if by_method:
                targets = method.assign_weights(*merge_stuff([detections], stuff_labels(store.isthing)))
            example[model] = _records(targets, view, store.size(image_id), categories, by_method)
    return [{**example, "best": best} if best else example for example in examples.values()]


def _confident(detections: Instances) -> torch.Tensor:
    """Return bool[N]: scores above SHOWN."""
    return detections.scores > SHOWN


def _choose_images(store: Store) -> list[int]:
    """Choose images with two objects or more, evenly spread over those there are: the same ones for every run."""
    objects = store.objects()
    ids, counts = np.unique(objects.image_id[~objects.crowd], return_counts=True)
    several = ids[counts >= 2]
    candidates = several if len(several) >= IMAGES else np.array(store.image_ids)
    positions = np.linspace(0, len(candidates) - 1, min(IMAGES, len(candidates))).round().astype(int)
    return [int(image_id) for image_id in candidates[positions]]


def _records(targets: Targets, view: View, size: Size, categories: Sequence[int], weighted: bool) -> list[Record]:
    weights = {"mask_iou": targets.instances.mask_iou.tolist()}
    if weighted:
        weights |= {"class_weight": targets.class_weight.tolist(), "mask_weight": targets.mask_weight.tolist()}
    return [
        {**record, **{name: values[index] for name, values in weights.items()}}
        for index, record in to_records(targets.instances, view, size, categories)
    ]
