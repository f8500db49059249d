"""Do two ranks, or a batch in parts, make the steps of one rank with the whole batch? For every network installed."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from tiny import SMALLEST, load_backend, study
from torch import nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d, boxes

from pais_bench import engine, inference, plugins, shares
from pais_bench.config import Run, Study
from pais_bench.splits import draw_split
from pais_bench.store import Store
from pais_bench.types import BenchError

STEPS = 20
NETWORKS = plugins.names("backends")
OPTIONS = {
    **SMALLEST,
    "torchvision/knet": {**SMALLEST["torchvision/knet"], "detections": 1},
    "mmdet/mask2former": {
        **SMALLEST["mmdet/mask2former"],
        "overrides": {**SMALLEST["mmdet/mask2former"]["overrides"], "test_cfg.max_per_image": 1},
    },
}
"""A teacher of queries may give one mask under several classes, whose costs are nearly equal: with more than one
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
    """Give a run of 20 steps; by SGD, because AdamW makes a step of any gradient's last digit."""
    load_backend(network)
    backend, name = network.split("/")
    methods = {"mean_teacher": {"score_threshold": 0.0}, "soft_teacher": {"score_threshold": 0, "jitters": 3}}
    values = study(
        networks={name: {"backend": backend, "options": OPTIONS[network]}},
        methods={name: {"options": options} for name, options in methods.items()},
    )
    values["training"] |= {"steps": STEPS, "optimizer": "sgd", "lr": 0.002, "warmup_steps": 5, "milestones": [15]}
    values["training"] |= {"evaluate_every": 100, "evaluate_images": 2, "checkpoint_every": 100, **training}
    return Study(**values).run(10, 1, name, method)


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build networks of double precision: in single, the last digit of a random network decides what is suppressed."""
    build = inference.build_backend

    def doubled(run: Run, classes: int) -> nn.Module:
        network: Any = build(run, classes).double()
        kind = type(network)

        class Double(kind):  # type: ignore[misc, valid-type]
            def loss(self, images: Any, targets: Any) -> Any:
                names = ("class_weight", "mask_weight", "box_weight")
                targets = [replace(one, **{name: getattr(one, name).double() for name in names}) for one in targets]
                return kind.loss(self, [image.double() for image in images], targets)

            def predict(self, images: Any) -> Any:
                return kind.predict(self, [image.double() for image in images])

            def score(self, images: Any, boxes: Any) -> Any:
                return kind.score(self, [image.double() for image in images], [one.double() for one in boxes])

        network.__class__ = Double
        return network  # type: ignore[no-any-return]

    monkeypatch.setattr(inference, "build_backend", doubled)
    # What a framework turns to single precision, or draws in it, is brought to what it meets.
    sample, einsum = F.grid_sample, torch.einsum
    monkeypatch.setattr(F, "grid_sample", lambda x, grid, **how: sample(x.double(), grid.double(), **how))
    monkeypatch.setattr(torch, "einsum", lambda how, *operands: einsum(how, *(one.double() for one in operands)))
    suppress = boxes.nms
    monkeypatch.setattr(boxes, "nms", lambda some, scores, much: suppress(some.double(), scores.double(), much))
    with contextlib.suppress(pytest.skip.Exception):
        load_backend("mmdet/mask_rcnn")
    if "mmcv.ops.nms" in sys.modules:  # mmcv's suppression knows single precision alone
        compiled = sys.modules["mmcv.ops.nms"].ext_module
        single = compiled.nms
        monkeypatch.setattr(compiled, "nms", lambda some, scores, **how: single(some.float(), scores.float(), **how))


def frozen(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Build networks whose batch norm is frozen, as that of ImageNet's weights is."""

    def without(run: Run, classes: int) -> nn.Module:
        network = build(run, classes)
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, FrozenBatchNorm2d(child.num_features).double())
        return network

    return without


def trained(
    run: Run, stores: dict[str, Store], folder: Path, devices: int = 1, accumulate: int = 1
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    """Train a run in a folder, and give its weights and the losses of its steps."""
    folder.mkdir()
    strategy: Any = "auto"
    if devices > 1:
        strategy = DDPStrategy(start_method="fork")
    fabric = Fabric(accelerator="cpu", devices=devices, strategy=strategy)

    def fit(fabric: Fabric) -> None:
        split = draw_split(stores["train"], run.dataset, run.split)
        engine.Trainer(run, stores, split, folder, fabric, accumulate=accumulate).fit()

    fabric.launch(fit)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["event"] == "step"]
    return state["student"] | {f"teacher.{name}": value for name, value in state["teacher"].items()}, losses


def alike(one: tuple[dict[str, torch.Tensor], Any], other: tuple[dict[str, torch.Tensor], Any]) -> None:
    for name, value in one[0].items():
        torch.testing.assert_close(other[0][name], value, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text)
    assert len(one[1]) == len(other[1]) == STEPS
    for mine, theirs in zip(one[1], other[1], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_two_ranks_make_the_steps_of_one(network: str, stores: dict[str, Store], tmp_path: Path) -> None:
    run = a_run(network)
    one = trained(run, stores, tmp_path / "one")
    alike(one, trained(run, stores, tmp_path / "two", devices=2))
    assert any("unlabelled/class" in losses for losses in one[1])


@pytest.mark.parametrize("network", [name for name in NETWORKS if name.endswith("mask_rcnn")])
def test_what_a_method_draws_and_asks_does_not_depend_on_the_rank(
    network: str, stores: dict[str, Store], tmp_path: Path
) -> None:
    """Soft Teacher jitters boxes, and asks the teacher about its boxes and about the student's regions."""
    run = a_run(network, "soft_teacher")
    alike(trained(run, stores, tmp_path / "one"), trained(run, stores, tmp_path / "two", devices=2))


@pytest.mark.parametrize(("network", "devices"), [(name, 1 + (name == "torchvision/knet")) for name in NETWORKS])
def test_a_batch_in_parts_makes_the_steps_of_the_whole(
    network: str, devices: int, stores: dict[str, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "build_backend", frozen(inference.build_backend))
    run = a_run(network, labelled_batch=2 * devices, unlabelled_batch=2 * devices)
    whole = trained(run, stores, tmp_path / "whole")
    alike(whole, trained(run, stores, tmp_path / "parts", devices, accumulate=2))


def test_parts_of_a_batch_that_batch_norm_would_see_are_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="its batch norm learns from a whole batch, so --accumulate 2 is another"):
        trained(a_run("torchvision/mask_rcnn"), stores, tmp_path / "parts", accumulate=2)


def test_a_batch_that_cannot_be_shared_equally_is_refused(stores: dict[str, Store], tmp_path: Path) -> None:
    message = "a batch of 2 images cannot be shared by 1 devices in 4 parts each; use a divisor of it"
    with pytest.raises(BenchError, match=message):
        trained(a_run("torchvision/mask_rcnn"), stores, tmp_path / "parts", accumulate=4)


def test_a_count_is_at_least_one_in_all_shares_together() -> None:
    assert shares.mean_count(0, torch.device("cpu")) == 1 and shares.mean_count(3, torch.device("cpu")) == 3
    answers = shares.mean_counts([lambda n=n: shares.mean_count(n, torch.device("cpu")) for n in (0, 0, 5, 1)])
    with shares.answered(answers()):
        assert shares.mean_count(5, torch.device("cpu")) == 1.5


def test_batch_norm_of_a_rank_that_has_nothing_is_that_of_the_others(tmp_path: Path) -> None:
    values = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def normed(norm: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
        x = x.clone().requires_grad_()
        found = norm(x)
        (found**3).sum().backward()
        return [found.detach(), x.grad, *norm.state_dict().values()]  # type: ignore[list-item]

    def shared(fabric: Fabric) -> None:
        norm = nn.Sequential(nn.BatchNorm2d(2))
        shares.synchronise(norm)
        found = normed(norm, values if fabric.is_global_zero else values[:0])
        torch.save(found, tmp_path / f"{fabric.global_rank}.pt")

    fabric = Fabric(accelerator="cpu", devices=2, strategy=DDPStrategy(start_method="fork"))
    whole = normed(nn.Sequential(nn.BatchNorm2d(2)), values)
    fabric.launch(shared)
    for mine, theirs in zip(torch.load(tmp_path / "0.pt", weights_only=True), whole, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_ranks_that_cannot_find_each_other_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "pais", "SLURM_NODELIST": "node.invalid"}
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in (slurm | {"SLURM_NTASKS_PER_NODE": "2"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lightning_fabric.plugins.environments.slurm._is_srun_used", lambda: True)
    with pytest.raises(BenchError, match=r"node\.invalid: the first node .* no address .*; set MASTER_ADDR"):
        shares.strategy(2)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert shares.strategy(2) != "auto" and shares.strategy(1) == "auto"
