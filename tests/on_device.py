"""Train the tiny study with every method of every network, on a device and on the CPU beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sams
import torch
from lightning_fabric import Fabric
from tiny import SMALLEST, choose, needs, study
from torchvision.models import resnet50

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.backends.torchvision import _matching
from pais_bench.methods import _sam
from pais_bench.splits.draw import draw_split
from pais_bench.study.run import Run
from pais_bench.study.study import Study
from pais_bench.training import networks, predict
from pais_bench.training.preemption import Interrupted
from pais_bench.training.trainer import Trainer

NETWORKS = [name for name in plugins.names("backends") if name.startswith("torchvision/")]
ALL: dict[str, Any] = {"score_threshold": 0.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "mean_teacher": ALL,
    "pais": ALL | {"mask_iou_threshold": 0.0},
    "polite_teacher": ALL,
    "soft_teacher": ALL | {"foreground_threshold": 0.0},
    "unbiased_teacher": ALL,
    "guided_distillation": ALL | {"guided_steps": 1},
    "data_distillation": {"calibration_images": 3},
    "noisy_boundary": {"calibration_images": 3},
    "pl_dc": {"class_threshold": 0.0, "mask_threshold": 0.0, "adaptive_from": [0.0, 0.0]},
    "mc_panda": ALL | {"certainty": 0.1},
    "sam_refined": ALL | {"mask_iou_threshold": 0.0, "points": 3},
    "s4m": ALL | {"guided_steps": 1, "pixels": 0, "points": 3},
}
METHODS = {name: choose(name, **OPTIONS.get(name, {})) for name in plugins.names("methods")}
ALL_PAIRS = [(n, m) for n in plugins.names("backends") for m in METHODS if not needs(m, METHODS[m], n)]
PAIRS = [(network, method) for network, method in ALL_PAIRS if network in NETWORKS]
OF_FRAMEWORKS = [(network, method) for network, method in ALL_PAIRS if network not in NETWORKS]

EVERY_REGION: dict[str, dict[str, Any]] = {
    "torchvision/mask_rcnn": {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6},
    "mmdet/mask_rcnn": {
        "overrides": SMALLEST["mmdet/mask_rcnn"]["overrides"]
        | {"train_cfg.rpn.sampler.num": 10**6, "train_cfg.rcnn.sampler.num": 10**6}
    },
    "detectron2/mask_rcnn": {
        "overrides": SMALLEST["detectron2/mask_rcnn"]["overrides"]
        | {"MODEL.RPN.BATCH_SIZE_PER_IMAGE": 4096, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4096}
    },
}
"""Options that sample every anchor and region: another order of proposals is then another order of a sum.

detectron2 divides a loss by these numbers, so they are not far above those that there are.
"""


class Budget(NamedTuple):
    """Bound what a step may cost: waits of the host, those of lines of pais_bench, and kernels."""

    waits: int
    ours: int
    kernels: int


R50 = {"backbone": "resnet50", "anchor_sizes": [32, 64, 128, 256, 512], "box_detections_per_img": 100}
"""The network of which kernels are counted, at small views and with narrow heads, on which their number depends little.

Real are: backbone, pyramid, batch and detections an image.
"""
BUDGETS: dict[tuple[str, str, int, int], Budget] = {
    ("torchvision/mask_rcnn", "supervised", 4, 0): Budget(waits=16, ours=10, kernels=1900),
    ("torchvision/mask_rcnn", "mean_teacher", 4, 12): Budget(waits=75, ours=25, kernels=6200),
    ("torchvision/mask_rcnn", "soft_teacher", 4, 12): Budget(waits=75, ours=25, kernels=8000),
    ("torchvision/knet", "pais", 4, 8): Budget(waits=12, ours=12, kernels=5400),
}
"""By network, method, labelled and unlabelled images of the batch: a tenth above what was counted.

Mask R-CNN suppresses each view and level apart.
"""


def a_run(network: str, method: str, options: dict[str, Any] | None = None, **training: Any) -> Run:
    """Return a run of two steps; options are of the network."""
    backend, name = network.split("/")
    values = study(
        networks={name: {"backend": backend, "options": SMALLEST[network] | (options or {})}}, methods=METHODS
    )
    values["split"]["percents"] = [20]
    values["training"] |= {"steps": 2, "evaluate_every": 2, "evaluate_images": 1, "checkpoint_every": 1, **training}
    return Study(**values).run(20, 1, name, method)


def prepare(folder: Path) -> Path:
    """Draw and prepare 64 shapes, and return their folder."""
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=60, val=4, size=64), None).prepare(folder, "shapes")
    return folder


def on_cpu() -> Fabric:
    """Return a Fabric that computes on the CPU."""
    return Fabric(accelerator="cpu", devices=1)


def build(run: Run, data: Path, folder: Path, fabric: Fabric) -> Trainer:
    """Build a trainer; its pretrained teacher, if any, is one that was never trained."""
    stores = {subset: Store.open(data, subset) for subset in ("train", "val")}
    split = draw_split(stores["train"], run.dataset, run.split)
    if run.teacher and not (folder / run.teacher.folder).exists():
        (folder / run.teacher.folder).mkdir(parents=True)
        Trainer(run.teacher, stores, split, folder / run.teacher.folder, fabric)._save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sam, "load_sam", lambda folder: sams.StandIn())
        return Trainer(run, stores, split, folder, fabric, results=folder)


def train(run: Run, data: Path, folder: Path, fabric: Callable[[], Fabric], stop: bool) -> list[dict[str, Any]]:
    """Train with an evaluation, with a stop after the first step or without; return the log and a prediction."""
    with same_choices():
        return _train(run, data, folder, fabric, stop)


@contextmanager
def same_choices() -> Iterator[None]:
    """Let two devices sample and match the same: draws are those of the CPU, and costs of a matching are rounded.

    The generators of two devices draw differently from one seed. Queries of an untrained network match in several ways
    at the same cost, and two devices would choose by the last digit.
    """
    rand, randperm, exponential = torch.rand, torch.randperm, torch.Tensor.exponential_
    pairs, mmdet = _matching._pairs, sys.modules.get("mmdet.models.task_modules.assigners.hungarian_assigner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *size, device=None, **rest: rand(*size, **rest).to(device or "cpu"))
        patch.setattr(torch, "randperm", lambda n, device=None, **rest: randperm(n, **rest).to(device or "cpu"))
        patch.setattr(
            torch.Tensor,
            "exponential_",
            lambda tensor: tensor.copy_(exponential(torch.empty_like(tensor, device="cpu"))),
        )
        patch.setattr(_matching, "_pairs", lambda cost, *rest: pairs(cost.round(4), *rest))
        if mmdet is not None:
            assign = mmdet.linear_sum_assignment
            patch.setattr(mmdet, "linear_sum_assignment", lambda cost: assign(cost.numpy().round(3)))
        yield


def _train(run: Run, data: Path, folder: Path, fabric: Callable[[], Fabric], stop: bool) -> list[dict[str, Any]]:
    folder.mkdir()
    trainer = build(run, data, folder, fabric())
    if stop:

        def interrupt(line: dict[str, Any]) -> None:
            trainer.stopping = True

        with pytest.raises(Interrupted):
            trainer.fit(progress=interrupt)
        trainer = build(run, data, folder, fabric())
        assert trainer.step == 1 and not trainer.fault
    trainer.fit()
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    store = trainer.validation.store
    network = networks.load_trained(run, store.isthing, folder).to(trainer.fabric.device)
    records = predict.predict(network, run, store, store.image_ids[:2], trainer.fabric.device)
    return [*lines, {"event": "prediction", "boxes": [value for record in records for value in record["bbox"]]}]


def resnet50_options(network: str, folder: Path) -> dict[str, Any]:
    """Return the options of the network that BUDGETS counts; the weights of its backbone lie in the folder."""
    detections = {"detections_per_img": 100, "kernels": 100, "stages": 3} if network.endswith("knet") else R50
    weights = folder / "resnet50.pth"
    torch.save(_resnet50().state_dict(), weights)
    return detections | {"backbone": "resnet50", "pretrained_backbone": str(weights)}


def _resnet50() -> torch.nn.Module:
    torch.manual_seed(0)
    network = resnet50()
    for name, module in network.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.2)  # activations of a random network behind frozen norms explode
    return network
