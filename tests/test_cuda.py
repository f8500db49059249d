"""Train on a GPU, where there is one: its numbers are the CPU's, and the host waits as rarely as the budgets say.

Networks of mmdet and detectron2 are trained where these are installed, with operators for the GPU.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from forked import RUN, Training
from lightning_fabric import Fabric
from on_device import (
    BUDGETS,
    EVERY_REGION,
    OF_FRAMEWORKS,
    PAIRS,
    R50,
    a_run,
    build,
    on_cpu,
    prepare,
    resnet50_options,
    train,
)
from tiny import SMALLEST, load_backend, write_study

from pais_bench.annotations.store import Store
from pais_bench.backends.torchvision import mask_rcnn
from pais_bench.cli.main import main
from pais_bench.data.loader import BatchDataset
from pais_bench.data.upload import tensors_on, upload_ahead
from pais_bench.machine.gpu import check_torch, read_gpus
from pais_bench.splits.draw import draw_split
from pais_bench.training.preemption import INTERRUPTED
from pais_bench.training.step import train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU of CUDA here")


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


@pytest.mark.parametrize(("network", "method"), [*PAIRS, *OF_FRAMEWORKS])
def test_training_evaluation_resume_and_prediction_are_those_of_the_cpu(
    network: str, method: str, data: Path, tmp_path: Path
) -> None:
    load_backend(network)
    run = a_run(network, method, EVERY_REGION.get(network))
    actual = train(run, data, tmp_path / "gpu", on_gpu, stop=True)
    expected = train(run, data, tmp_path / "cpu", on_cpu, stop=False)
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.keys() == theirs.keys() and mine["event"] == theirs["event"]
        if theirs["event"] == "step":
            assert all(map(math.isfinite, mine["loss"].values()))
            labelled = [term for term in theirs["loss"] if term.startswith("labelled/")]
            # after an update the last digits of a loss depend on the path taken, and pseudo-labels hang on thresholds
            for term in theirs["loss"] if theirs["step"] == 1 else labelled:
                bound = 1e-3 if theirs["step"] == 1 else 0.1
                assert mine["loss"][term] == pytest.approx(theirs["loss"][term], rel=bound, abs=1e-5), term
        elif theirs["event"] == "prediction":
            assert len(mine["boxes"]) == len(theirs["boxes"])


def test_mask_rcnn_is_channels_last_on_a_gpu_alone() -> None:
    network = mask_rcnn.Backend(3, mask_rcnn.Options(**SMALLEST["torchvision/mask_rcnn"] | R50))
    (weight, *_) = (one.weight for one in network.model.backbone.modules() if isinstance(one, torch.nn.Conv2d))
    assert weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last)
    network.to("cuda")
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize(
    ("network", "method"), [p for p in [*PAIRS, *OF_FRAMEWORKS] if p[1] in ("supervised", "pais", "soft_teacher")]
)
def test_mixed_precision_trains(network: str, method: str, precision: str, data: Path, tmp_path: Path) -> None:
    load_backend(network)
    run = a_run(network, method, EVERY_REGION.get(network), precision=precision)
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
    batch = next(trainer.dataset.loader(0, 0, trainer.fabric.device))
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


def test_sigterm_to_the_whole_process_group_saves_and_the_same_command_continues(tmp_path: Path) -> None:
    training = Training(tmp_path, steps=200, log_every=1, checkpoint_every=200, evaluate_every=200)
    command = [sys.executable, "-m", "pais_bench", "train", str(training.path), "--results", str(training.results)]
    log = training.folder / "log.jsonl"
    with (tmp_path / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen([*command, *RUN, "--workers", "2"], stderr=stderr, cwd=ROOT, start_new_session=True)
        while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") >= 3):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)  # as SLURM does before the time limit
        assert process.wait(60) == INTERRUPTED, (tmp_path / "stderr.txt").read_text()
    assert "saved and stopped after step" in (tmp_path / "stderr.txt").read_text()
    assert 3 <= len(training.log()) < 200
    assert main([*command[3:], *RUN, "--workers", "2"]) == 0
    assert [line["step"] for line in training.log() if line["event"] == "step"] == list(range(1, 201))


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
