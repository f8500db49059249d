"""Check that two ranks, or micro-batches, take the steps of one rank with the whole batch, on every network."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from tiny import SMALLEST, load_backend, study
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d, boxes

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import (
    CountRecorder,
    RecordedNormalizer,
    average_counts,
    batch_normalizer,
    sum_over_ranks,
)
from pais_bench.splits.draw import draw_split
from pais_bench.study.run import Run
from pais_bench.study.study import Study
from pais_bench.training import models
from pais_bench.training.distributed import PendingFlags, convert_sync_batchnorm, strategy
from pais_bench.training.lock import lock_folder
from pais_bench.training.preemption import Interrupted
from pais_bench.training.trainer import Trainer
from pais_bench.training.validation import Validation

STEPS = 10
NETWORKS = plugins.names("backends")
OPTIONS = {
    **SMALLEST,
    "torchvision/knet": {**SMALLEST["torchvision/knet"], "detections_per_img": 1},
    "mmdet/mask2former": {
        **SMALLEST["mmdet/mask2former"],
        "overrides": {**SMALLEST["mmdet/mask2former"]["overrides"], "test_cfg.max_per_image": 1},
    },
}
"""A query-based teacher may predict one mask under several classes, whose costs are nearly equal: with more than one
detection a tie would be broken by the last digit."""
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forked: a rank imports nothing


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("shapes")
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=40, val=2, size=64), None).prepare(folder, "shapes")
    return {part: Store.open(folder, part) for part in ("train", "val")}


def a_run(network: str, method: str = "mean_teacher", **training: Any) -> Run:
    """Return a run of 10 steps, by SGD: AdamW makes a step of the last digit of any gradient."""
    load_backend(network)
    backend, name = network.split("/")
    methods: dict[str, dict[str, Any]] = {
        "mean_teacher": {"score_threshold": 0.0},
        "soft_teacher": {"score_threshold": 0, "jitters": 3},
        "pl_dc": {"class_threshold": 0.0, "mask_threshold": 0.0, "adaptive_from": [0.0, 0.0]},
    }
    values = study(
        networks={name: {"backend": backend, "options": OPTIONS[network]}},
        methods={name: {"options": options} for name, options in methods.items()},
    )
    values["training"] |= {"steps": STEPS, "optimizer": "sgd", "lr": 0.002, "warmup_steps": 3, "milestones": [8]}
    values["training"] |= {"evaluate_every": 100, "evaluate_images": 2, "checkpoint_every": 100, **training}
    return Study(**values).run(10, 1, name, method)


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build networks of double precision: in single, the last digit of a random network decides what is suppressed."""
    build = models.build_backend

    def doubled(run: Run, isthing: Sequence[bool]) -> nn.Module:
        network: Any = build(run, isthing).double()
        kind = type(network)

        class Double(kind):  # type: ignore[misc, valid-type]
            def loss(self, images: Any, targets: Any, *rest: Any) -> Any:
                names = ("class_weight", "mask_weight", "box_weight")
                targets = [replace(t, **{name: getattr(t, name).double() for name in names}) for t in targets]
                return kind.loss(self, [image.double() for image in images], targets, *rest)

            def predict(self, images: Any, *rest: Any) -> Any:
                return kind.predict(self, [image.double() for image in images], *rest)

            def predict_soft(self, images: Any, *rest: Any) -> Any:
                return kind.predict_soft(self, [image.double() for image in images], *rest)

            def predict_with_scorers(self, images: Any, *rest: Any) -> Any:
                detections, scorers = kind.predict_with_scorers(self, [image.double() for image in images], *rest)
                return detections, [lambda boxes, score=score: score(boxes.double()) for score in scorers]

        network.__class__ = Double
        return network  # type: ignore[no-any-return]

    monkeypatch.setattr(models, "build_backend", doubled)
    # What a framework turns to single precision, or draws in it, is brought to what it meets.
    sample, einsum = F.grid_sample, torch.einsum
    monkeypatch.setattr(F, "grid_sample", lambda x, grid, **how: sample(x.double(), grid.double(), **how))
    monkeypatch.setattr(
        torch, "einsum", lambda how, *operands: einsum(how, *(operand.double() for operand in operands))
    )
    suppress = boxes.nms
    monkeypatch.setattr(boxes, "nms", lambda regions, scores, iou: suppress(regions.double(), scores.double(), iou))
    with contextlib.suppress(pytest.skip.Exception):
        load_backend("mmdet/mask_rcnn")
    if "mmcv.ops.nms" in sys.modules:  # mmcv's suppression knows single precision alone
        compiled = sys.modules["mmcv.ops.nms"].ext_module
        single = compiled.nms
        monkeypatch.setattr(
            compiled, "nms", lambda regions, scores, **how: single(regions.float(), scores.float(), **how)
        )


def frozen(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Build networks whose batch norm is frozen, as that of ImageNet's weights is."""

    def without(run: Run, isthing: Sequence[bool]) -> nn.Module:
        network = build(run, isthing)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, FrozenBatchNorm2d(child.num_features).double())
        return network

    return without


def trained(
    run: Run, stores: dict[str, Store], folder: Path, devices: int = 1, micro_batches: int = 1
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Train a run in a folder; return its weights and the losses of its steps."""
    folder.mkdir()
    strategy: Any = "auto"
    if devices > 1:
        strategy = DDPStrategy(start_method="fork")
    fabric = Fabric(accelerator="cpu", devices=devices, strategy=strategy)

    def fit(fabric: Fabric) -> None:
        split = draw_split(stores["train"], run.dataset, run.split)
        Trainer(run, stores, split, folder, fabric, micro_batches=micro_batches).fit()

    fabric.launch(fit)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    learnt = {f"{part}.{name}": value for part in ("teacher", "method") for name, value in state[part].items()}
    return state["student"] | learnt, losses


def assert_alike(
    first: tuple[dict[str, torch.Tensor], Any], second: tuple[dict[str, torch.Tensor], Any], steps: int = STEPS
) -> None:
    for name, value in first[0].items():
        torch.testing.assert_close(
            second[0][name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text
        )
    assert len(first[1]) == len(second[1]) == steps
    for mine, theirs in zip(first[1], second[1], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_two_ranks_make_the_steps_of_one(network: str, stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run(network)
    one_rank = trained(run, stores, tmp_path / "one")
    assert_alike(one_rank, trained(run, stores, tmp_path / "two", devices=2))
    assert any("unlabelled/class" in losses for losses in one_rank[1])


def test_ranks_that_have_other_checkpoints_are_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run("torchvision/mask_rcnn", steps=2, milestones=[1])
    trained(run, stores, tmp_path / "0")

    def resume(fabric: Fabric) -> None:
        split, step = draw_split(stores["train"], run.dataset, run.split), 2 if fabric.is_global_zero else 0
        with pytest.raises(BenchError, match=f"begin at different steps, this one at step {step}; check that all"):
            Trainer(run, stores, split, tmp_path / str(fabric.global_rank), fabric)
        (tmp_path / f"{fabric.global_rank}.refused").touch()

    Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork")).launch(resume)
    assert {path.stem for path in tmp_path.glob("*.refused")} == {"0", "1"}


@pytest.mark.parametrize(
    ("network", "method"),
    [(name, "soft_teacher") for name in NETWORKS if not plugins.lacks(name, "predict_with_scorers")]
    + [("torchvision/mask_rcnn", "pl_dc")],
)
def test_what_a_method_samples_scores_and_learns_does_not_depend_on_the_rank(
    network: str, method: str, stores: dict[str, Store], tmp_path: Path
) -> None:
    """Soft Teacher jitters boxes, and scores its boxes and the student's regions; PL-DC's thresholds adapt."""
    run = a_run(network, method)
    assert_alike(trained(run, stores, tmp_path / "one"), trained(run, stores, tmp_path / "two", devices=2))


@pytest.mark.parametrize(("network", "devices"), [(name, 1 + (name == "torchvision/knet")) for name in NETWORKS])
def test_micro_batches_take_the_steps_of_the_whole_batch(
    network: str, devices: int, stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "build_backend", frozen(models.build_backend))
    run = a_run(network, labelled_batch_size=2 * devices, unlabelled_batch_size=2 * devices)
    if network == "torchvision/knet":
        stores = prepare_with_stuff(tmp_path)
    whole = trained(run, stores, tmp_path / "whole")
    assert_alike(whole, trained(run, stores, tmp_path / "parts", devices, micro_batches=2))
    assert ("unlabelled/rank" in whole[1][-1]) == (network == "torchvision/knet")


def prepare_with_stuff(folder: Path) -> dict[str, Store]:
    """Prepare shapes with stuff, for which K-Net has more losses."""
    shapes = plugins.load("datasets", "shapes")
    shapes.Dataset(shapes.Options(train=40, val=2, size=64, stuff=True), None).prepare(folder, "shapes")
    return {part: Store.open(folder, part) for part in ("train", "val")}


@pytest.mark.parametrize(
    ("network", "mix", "devices"),
    [
        ("torchvision/mask_rcnn", {"kind": "copy_paste", "min_pixels": 1, "scale": [0.8, 1.2]}, 2),
        ("torchvision/knet", {"kind": "cutmix"}, 1),
    ],
)
def test_mixed_views_depend_neither_on_ranks_nor_on_micro_batches(
    network: str,
    mix: dict[str, Any],
    devices: int,
    stores: dict[str, Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "build_backend", frozen(models.build_backend))
    run = a_run(network, steps=6, milestones=[5], unlabelled_batch_size=4, unlabelled_mix=mix)
    whole = trained(run, stores, tmp_path / "whole")
    assert_alike(whole, trained(run, stores, tmp_path / "parts", devices, micro_batches=3 - devices), steps=6)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return images of three batches of an evaluation, which two ranks cannot share equally."""
    folder = tmp_path_factory.mktemp("many")
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(train=1, val=19, size=64), None).prepare(folder, "shapes")
    return Store.open(folder, "val")


@pytest.mark.parametrize("network", ["torchvision/mask_rcnn", "torchvision/knet"])
def test_two_ranks_predict_what_one_does_record_by_record(network: str, many: Store, tmp_path: Path) -> None:
    run = a_run(network, evaluate_images=None)
    validation = Validation(run, many)
    networks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        networks.append(models.build_backend(run, many.isthing))

    def shared(fabric: Fabric) -> None:
        calls: list[int] = []
        records = validation.predict(networks, fabric, workers=0, progress=calls.append)
        ap = validation.evaluate({"student": networks[0]}, fabric)
        torch.save((records, ap, calls), tmp_path / f"{fabric.global_rank}-of-{fabric.world_size}.pt")

    for devices in (1, 2):
        strategy: Any = DDPStrategy(start_method="fork") if devices > 1 else "auto"
        Fabric(accelerator="cpu", devices=devices, strategy=strategy).launch(shared)
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert alone[:2] == first[:2] and second[:2] == ([], {})
    assert all(alone[0]) and alone[0][0] != alone[0][1], "both networks find something, each its own"
    assert (alone[2], first[2], second[2]) == ([8, 16, 19], [8, 11], [8, 8])


def test_a_signal_to_one_rank_ends_the_evaluation_of_all(stores: dict[str, Store], many: Store, tmp_path: Path) -> None:
    run = a_run("torchvision/mask_rcnn", evaluate_images=None, evaluate_every=3)

    def evaluate(fabric: Fabric) -> None:
        split = draw_split(stores["train"], run.dataset, run.split)
        trainer = Trainer(run, {**stores, "val": many}, split, tmp_path, fabric)
        trainer.step, trainer.stopping = 3, not fabric.is_global_zero
        with pytest.raises(Interrupted, match=f"stopped after step 3 of {STEPS}"):
            trainer._evaluate_if_due(lambda line: None)
        assert (tmp_path / "checkpoint.pt").exists() and not (tmp_path / "log.jsonl").exists()

    Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork")).launch(evaluate)


def test_a_loss_that_is_not_finite_is_told_by_its_own_rank(stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run("torchvision/mask_rcnn")

    def diverge(fabric: Fabric) -> None:
        trainer = Trainer(run, stores, draw_split(stores["train"], run.dataset, run.split), tmp_path, fabric)
        message = "loss not finite at step 0 in another process of this training"
        if not fabric.is_global_zero:
            student: Any = trainer.models.student
            student.model.roi_heads.mask_predictor.mask_fcn_logits.bias.data.fill_(math.nan)
            message = r"loss not finite at step 0 in labelled/mask.* on images "
        with pytest.raises(BenchError, match=message):
            trainer.fit()
        (tmp_path / f"{fabric.global_rank}.told").touch()

    Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork")).launch(diverge)
    assert {path.stem for path in tmp_path.glob("*.told")} == {"0", "1"}


def test_a_lock_that_cannot_be_made_ends_all_ranks(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def lock(fabric: Fabric) -> None:
        told = pytest.raises(BenchError, match=r"file/run: not a directory; name another path$")
        with told, lock_folder(tmp_path / "file" / "run", fabric):
            pass
        (tmp_path / f"{fabric.global_rank}.told").touch()

    Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork")).launch(lock)
    assert {path.stem for path in tmp_path.glob("*.told")} == {"0", "1"}


def test_flags_of_any_rank_reach_all_without_a_barrier() -> None:
    """In a barrier of NCCL, such as that of Fabric's all_reduce, the host waits until the device has done its work."""

    def share(fabric: Fabric) -> None:
        first = fabric.is_global_zero
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(torch.distributed, "barrier")
            flags = PendingFlags(fabric.device, [torch.tensor(first), not first, False])
            assert flags.read() == [True, True, False]

    Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork")).launch(share)


def test_micro_batches_with_batch_norm_are_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="its batch norm learns from a whole batch, so --accumulate 2 is another"):
        trained(a_run("torchvision/mask_rcnn"), stores, tmp_path / "parts", micro_batches=2)


def test_a_batch_that_cannot_be_shared_equally_is_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    message = "a batch of 2 images cannot be shared by 1 devices in 4 micro-batches each; use a divisor of it"
    with pytest.raises(BenchError, match=message):
        trained(a_run("torchvision/mask_rcnn"), stores, tmp_path / "parts", micro_batches=4)


def test_a_normalizer_is_at_least_one_over_all_micro_batches() -> None:
    assert batch_normalizer(0) == 1 and batch_normalizer(3) == 3
    recorders = [CountRecorder(torch.device("cpu")) for _ in range(4)]
    for recorder, count in zip(recorders, (0, 0, 5, 1), strict=True):
        recorder(count)
    assert RecordedNormalizer(average_counts(recorders))(5) == 1.5


def test_a_sum_over_one_rank_is_a_copy() -> None:
    seen = torch.ones(3)
    total = sum_over_ranks(seen)
    seen.zero_()
    assert total.tolist() == [1, 1, 1]


@pytest.mark.parametrize("samples", [3, 0])
def test_batch_norm_of_a_rank_without_samples_is_that_of_the_others(samples: int, tmp_path: Path) -> None:
    values = torch.randn(samples, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def normed(norm: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        x = x.clone().requires_grad_()
        output = norm(x)
        (output**3).sum().backward()
        return [output.detach(), x.grad, *norm.state_dict().values()]  # type: ignore[list-item]

    def shared(fabric: Fabric) -> None:
        norm = nn.Sequential(nn.BatchNorm2d(2))
        convert_sync_batchnorm(norm)
        outputs = normed(norm, values if fabric.is_global_zero else values[:0])
        torch.save(outputs, tmp_path / f"{fabric.global_rank}.pt")

    fabric = Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork"))
    whole = normed(nn.Sequential(nn.BatchNorm2d(2)), values)
    fabric.launch(shared)
    for mine, theirs in zip(torch.load(tmp_path / "0.pt", weights_only=True), whole, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_ranks_that_cannot_find_each_other_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "pais", "SLURM_NODELIST": "node.invalid"}
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in (slurm | {"SLURM_NTASKS_PER_NODE": "2"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning_fabric.plugins.environments.slurm._is_srun_used", lambda: True)
    with pytest.raises(BenchError, match=r"node\.invalid: the first node .* no address .*; set MASTER_ADDR"):
        strategy(2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert strategy(2) != "auto" and strategy(1) == "auto"


def test_a_node_that_never_comes_is_named_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    for name, value in {"NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pais_bench.training.distributed.JOIN", timedelta(seconds=1))
    fabric = Fabric(accelerator="cpu", devices=1, num_nodes=2, strategy=strategy(2))
    fault = f"127.0.0.1, port {port}: the 2 processes .* have not met there .* each of its 2 nodes, .* NODE_RANK"
    with mock.patch.dict(os.environ), pytest.raises(BenchError, match=fault):  # Fabric writes into it
        fabric.launch()
