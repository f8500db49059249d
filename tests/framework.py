"""Check that a network is the one of its framework: the laws that the tests of every framework share."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from pretend_device import NAME, pretend
from tiny import instances

from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.types import Instances, Losses, Targets

CLASSES = 3
COUNTS = pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0), (5,)], ids=str)


def batch(*counts: int) -> tuple[list[torch.Tensor], list[Targets]]:
    """Return an image for every number of instances."""
    generator = torch.Generator().manual_seed(4)
    images = [torch.rand((3, 64, 80), generator=generator) for _ in counts]
    boxes = [[[4 + 7 * i, 3 + 5 * i, 30 + 8 * i, 28 + 6 * i] for i in range(count)] for count in counts]
    return images, [Targets.unweighted(instances(b, [i % 3 for i in range(len(b))], size=(64, 80))) for b in boxes]


def assert_same_losses(
    backend: Any, stock: Any, stock_losses: Callable[[list[torch.Tensor], list[Targets]], Losses], *counts: int
) -> None:
    """Check losses and gradients at unit weights; stock_losses names the framework's losses as ours are named."""
    images, targets = batch(*counts)
    torch.manual_seed(1)  # the frameworks sample anchors, regions and points
    actual = backend.loss(images, targets, batch_normalizer)
    torch.manual_seed(1)
    expected = stock_losses(images, targets)
    assert set(actual) == {*expected, "mask_iou"}
    for term, loss in expected.items():
        torch.testing.assert_close(actual[term], loss, rtol=1e-5, atol=1e-7, msg=term)
    sum(loss for term, loss in actual.items() if term != "mask_iou").backward()
    sum(expected.values()).backward()  # type: ignore[union-attr]
    gradients = dict(backend.model.named_parameters())
    for name, parameter in stock.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def assert_the_mask_iou_loss_has_a_weight(build: Callable[..., Any]) -> None:
    """Check that mask_iou_weight is a factor of that loss and of no other; build maps options to a backend."""
    losses = []
    for weight in ({}, {"mask_iou_weight": 1.0}, {"mask_iou_weight": 0.25}):
        backend = build(**weight)
        torch.manual_seed(1)
        losses.append(backend.loss(*batch(3, 1), batch_normalizer))
    default, one, quarter = losses
    assert default["mask_iou"] > 0 and all(torch.equal(default[term], one[term]) for term in default)
    assert torch.equal(quarter.pop("mask_iou"), default["mask_iou"] / 4)
    assert all(torch.equal(default[term], loss) for term, loss in quarter.items())


def assert_same_size(backend: Any, stock: Any, smallest: int) -> None:
    """Check that a backend is the framework's network and a mask-IoU branch of smallest..1M parameters."""
    size = {module: sum(p.numel() for p in module.parameters()) for module in (backend, stock)}
    branch = sum(p.numel() for name, p in backend.named_parameters() if "mask_iou" in name)
    assert size[backend] - branch == size[stock]
    assert smallest < branch < 1_000_000


def assert_misfits_are_refused(
    build: Callable[[Path], Any], state: dict[str, torch.Tensor], name: str, key: str, reshaped: str, folder: Path
) -> None:
    """Check the errors of checkpoints in which `name` is renamed or reshaped, and of torn and absent files.

    key is that of a checkpoint's parameters, and reshaped a pattern of the message about another shape.
    """
    renamed = {("stem" if other == name else other): value for other, value in state.items()}
    for file, changed, message in (
        ("renamed", renamed, rf"{name}.*1 are unknown"),
        ("reshaped", {**state, name: state[name][:1]}, reshaped),
    ):
        torch.save({key: changed}, folder / f"{file}.pth")
        with pytest.raises(BenchError, match=rf"{file}\.pth: these weights are of another network.*{message}"):
            build(folder / f"{file}.pth")
    (folder / "torn.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BenchError, match=r"torn\.pth: cannot be loaded"):
        build(folder / "torn.pth")
    with pytest.raises(BenchError, match=r"absent\.pth: no such file"):
        build(folder / "absent.pth")


class OnDevice(NamedTuple):
    """Hold what a network computes on the pretend device and on the CPU, and the waits (kind, line) of the host."""

    losses: dict[str, float]
    expected_losses: dict[str, float]
    scores: list[list[float]]
    expected_scores: list[list[float]]
    loss_waits: Counter[tuple[str, str]]
    predict_waits: Counter[tuple[str, str]]


def run_on_device(backend: Any) -> OnDevice:
    """Return losses after a backward pass, and the upper half of detections; to be called in a process of its own."""
    images, targets = batch(3, 1, 2, 5)
    torch.manual_seed(1)
    on_cpu = copy.deepcopy(backend)  # whose batch norm has statistics of its own
    expected = {term: loss.item() for term, loss in on_cpu.loss(images, targets, batch_normalizer).items()}
    detections = [one.scores.tolist() for one in on_cpu.predict(images, keep=_upper_half)]
    with pretend() as recorder:
        device = torch.device(NAME, 0)
        backend.to(device)
        there = [image.to(device) for image in images]
        moved = [_to(target, device) for target in targets]
        recorder.clear()
        torch.manual_seed(1)
        losses = backend.loss(there, moved, batch_normalizer)
        sum(losses.values()).backward()
        loss_waits = Counter(recorder.waits)
        values = {term: loss.detach().to("cpu").item() for term, loss in losses.items()}
        recorder.clear()
        found = backend.predict(there, keep=_upper_half)
        predict_waits = Counter(recorder.waits)
        return OnDevice(values, expected, [one.scores.tolist() for one in found], detections, loss_waits, predict_waits)


def assert_same_on_device(cost: OnDevice, budget: dict[str, tuple[int, int]]) -> None:
    """Check what run_on_device returned; budget: the most waits of pais_bench's own lines, and of all, by function."""
    assert cost.losses == pytest.approx(cost.expected_losses, rel=1e-5)
    for scores, expected in zip(cost.scores, cost.expected_scores, strict=True):
        assert scores == pytest.approx(expected, rel=1e-5)
    for name, waits in (("loss", cost.loss_waits), ("predict", cost.predict_waits)):
        ours = {place: count for place, count in waits.items() if "pais_bench/" in place[1]}
        mine, most = budget[name]
        assert sum(ours.values()) <= mine and waits.total() <= most, (ours, waits)


def assert_half_precision_moves_no_box(backend: Any) -> None:
    """Check the box head of a view under autocast, with deltas that bfloat16 holds exactly."""
    (regressor,) = (module for module in backend.modules() if getattr(module, "out_features", 0) == 4 * CLASSES)
    torch.nn.init.zeros_(regressor.weight)
    regressor.bias.data = torch.tensor([0.25, -0.5, 1.0, -0.75]).repeat(CLASSES)
    _, (scorer,) = backend.predict_with_scorers(batch(0)[0])
    boxes = torch.tensor([[700.3, 401.7, 1333.1, 799.9], [3.14, 2.72, 25.5, 14.1]])
    _, expected = scorer(boxes)
    with torch.autocast("cpu", torch.bfloat16):
        _, (scorer,) = backend.predict_with_scorers(batch(0)[0])
        _, refined = scorer(boxes)
    torch.testing.assert_close(refined, expected)


def _upper_half(detections: Instances) -> torch.Tensor:
    return detections.mask_iou >= detections.mask_iou.median()


def _to(target: Targets, device: torch.device) -> Targets:
    weights = {name: getattr(target, name).to(device) for name in ("class_weight", "mask_weight", "box_weight")}
    return replace(target, instances=target.instances.to(device), **weights)
