"""Train on a GPU, where there is one: its numbers are the CPU's, and the host waits as rarely as the budgets say."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import RUN, Training
from lightning_fabric import Fabric
from on_device import BUDGETS, NETWORKS, PAIRS, a_run, build, on_cpu, prepare, resnet50_options, train
from tiny import write_study

from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.data.loader import BatchDataset
from pais_bench.data.upload import tensors_on, upload_ahead
from pais_bench.machine.gpu import check_torch, read_gpus
from pais_bench.splits.draw import draw_split
from pais_bench.training.step import train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU of CUDA here")

EVERY_REGION = {"rpn_batch_size_per_image": 10**6, "box_batch_size_per_image": 10**6}
"""Options of Mask R-CNN that sample every anchor and region: two devices draw differently from one seed."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(autouse=True)
def float32() -> Iterator[None]:
    """Compute in float32 alone: convolutions of CUDA are in TF32 by default."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = True


def on_gpu(precision: str = "32-true") -> Fabric:
    fabric = Fabric(accelerator="cuda", devices=1, precision=precision)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


@pytest.mark.parametrize(("network", "method"), PAIRS)
def test_training_evaluation_resume_and_prediction_are_those_of_the_cpu(
    network: str, method: str, data: Path, tmp_path: Path
) -> None:
    run = a_run(network, method, EVERY_REGION if network.endswith("mask_rcnn") else None)
    actual = train(run, data, tmp_path / "gpu", on_gpu, stop=True)
    expected = train(run, data, tmp_path / "cpu", on_cpu, stop=False)
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.keys() == theirs.keys() and mine["event"] == theirs["event"]
        if theirs["event"] == "step":
            assert_same_losses(mine["loss"], theirs["loss"], theirs["step"], method)
        elif theirs["event"] == "prediction":
            assert len(mine["boxes"]) == len(theirs["boxes"])


def assert_same_losses(actual: dict[str, float], expected: dict[str, float], step: int, method: str) -> None:
    """Compare the losses of a step with those of the CPU; those of SAM's points differ, which the device draws."""
    assert actual.keys() == expected.keys() and all(map(math.isfinite, actual.values()))
    for term, loss in expected.items():
        if step == 1 and (term.startswith("labelled/") or method != "sam_refined"):
            assert actual[term] == pytest.approx(loss, rel=1e-3, abs=1e-3), term
        elif term.startswith("labelled/"):
            assert actual[term] == pytest.approx(loss, rel=0.1, abs=1e-3), term
        elif step == 1:
            assert actual[term] == pytest.approx(loss, rel=0.2, abs=0.01), term


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("method", ["supervised", "pais", "soft_teacher"])
@pytest.mark.parametrize("network", NETWORKS)
def test_mixed_precision_trains(network: str, method: str, precision: str, data: Path, tmp_path: Path) -> None:
    if (network, method) not in PAIRS:
        pytest.skip("the method is for networks with regions")
    run = a_run(network, method, EVERY_REGION if network.endswith("mask_rcnn") else None, precision=precision)
    mixed = train(run, data, tmp_path / "mixed", lambda: on_gpu(precision), stop=True)
    full = train(run, data, tmp_path / "full", on_gpu, stop=False)
    assert [line["event"] for line in mixed] == [line["event"] for line in full]
    for loss, other in zip(mixed[0]["loss"].values(), full[0]["loss"].values(), strict=True):
        assert math.isfinite(loss) and loss == pytest.approx(other, rel=0.1, abs=0.05)


@pytest.mark.parametrize("step", BUDGETS, ids=lambda step: "-".join(map(str, step)))
def test_the_host_waits_as_often_as_the_budgets_of_the_pretended_device_say(
    step: tuple[str, str, int, int], data: Path, tmp_path: Path
) -> None:
    network, method, labelled, unlabelled = step
    sizes = {"labelled_batch_size": labelled, "unlabelled_batch_size": max(unlabelled, 1), "log_every": 99}
    run = a_run(network, method, resnet50_options(network, tmp_path), steps=9, **sizes)
    trainer = build(run, data, tmp_path, on_gpu())
    batch = next(trainer.dataset.loader(0, 0, trainer.method.uses_unlabelled, trainer.fabric.device))
    train_step(trainer.run, trainer.method, trainer.models, replace(batch, unlabelled=[]), trainer.fabric)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        train_step(trainer.run, trainer.method, trainer.models, batch, trainer.fabric)
        torch.cuda.set_sync_debug_mode("default")
    waits = Counter(f"{w.filename}:{w.lineno}" for w in caught if "synchronizing CUDA operation" in str(w.message))
    assert waits.total() <= BUDGETS[step].waits, "\n".join(f"{n:5d} {line}" for line, n in waits.most_common())


def test_views_of_the_device_are_those_of_the_cpu_to_the_bit(data: Path) -> None:
    store = Store.open(data, "train")
    run = a_run("torchvision/mask_rcnn", "mean_teacher", labelled_batch_size=3, unlabelled_batch_size=8, log_every=1)
    packed = BatchDataset(run, store, draw_split(store, run.dataset, run.split)).pack(0, views_on_device=True)
    gpu = torch.device("cuda", 0)
    (actual,), expected = upload_ahead([packed.pin_memory()], gpu), packed.unpack(torch.device("cpu"))
    there, here = list(tensors_on(gpu, actual)), list(tensors_on(torch.device("cpu"), expected.labelled))
    here += [view.image for image in expected.unlabelled for view in (image.weak, image.strong)]
    matrices = [view for view in here if view.dtype == torch.float64]
    assert len(there) == len(here) - len(matrices)
    for tensor, other in zip(there, [view for view in here if view.dtype != torch.float64], strict=True):
        pixels = tensor.is_floating_point() and tensor.ndim == 3  # u8 / 255, where the last digit depends on the device
        assert torch.equal(*((one * 255).round() if pixels else one for one in (tensor.cpu(), other)))


def test_the_commands_train_predict_and_evaluate(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study, results = str(write_study(tmp_path)), str(tmp_path / "results")
    cell = ("--percent", "10", "--fold", "1")
    run = (*cell, "--network", "mask_rcnn", "--method", "pais")
    assert main(["prepare", study, "--results", results]) == 0
    assert main(["split", study, "--results", results, *cell]) == 0
    assert main(["train", study, "--results", results, *run, "--workers", "2"]) == 0
    for command in ("predict", "evaluate"):
        assert main([command, study, "--results", results, *run]) == 0
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results").rglob("run.json"))
    assert torch.cuda.get_device_name() in json.dumps(record["hardware"])
    assert "set_float32_matmul_precision" not in capfd.readouterr().err  # Lightning's hint: it is a key of the study


def test_too_little_memory_of_the_device_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(tmp_path)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        code = main(["train", str(training.path), "--results", str(training.results), *RUN])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 2
    assert "out of memory of the device; raise --accumulate or --devices" in capsys.readouterr().err


def test_the_driver_tells_of_the_gpu_that_torch_has() -> None:
    gpus = read_gpus()
    assert torch.cuda.get_device_name() in {gpu.name for gpu in gpus}
    assert all(gpu.total and gpu.free and gpu.capability == torch.cuda.get_device_capability() for gpu in gpus)
    assert not [finding for finding in check_torch() if finding.level == "fail"]
