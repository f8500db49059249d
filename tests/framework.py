"""Check that a network is the one of its framework: the laws that the tests of every framework share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import instances

from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.types import Losses, Targets

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
