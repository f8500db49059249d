"""Time PAIS steps beside supervised steps on the same labelled images, relative to the floor.

python benchmarks/step_cost.py [mask_rcnn] [--study demo] [--pairs 30]

With L labelled and U unlabelled images the floor is (3L + 4U) / 3L supervised steps: a forward pass is a third of a
step, and an unlabelled image takes one of the teacher beside the student's step. Loading is not counted. Steps of both
kinds alternate, so that a busy machine slows both; medians are printed. The cost of a logged step's diagnostics,
including the loading of held-out labels, is printed last.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.backends.torchvision import _weighted_heads, _weighted_rpn, knet
from pais_bench.splits.draw import draw_split
from pais_bench.study.load import load_study
from pais_bench.training import step as training_step
from pais_bench.training.record import StepRecord
from pais_bench.training.trainer import Trainer
from pais_bench.types import Batch

MATCHING: dict[tuple[str, str], dict[str, tuple[Any, str]]] = {
    ("torchvision", "mask_rcnn"): {
        "matching of anchors": (_weighted_rpn.WeightedRPN, "_match"),
        "matching of regions": (_weighted_heads.WeightedRoIHeads, "select_training_samples"),
    },
    ("torchvision", "knet"): {"costs of the matching": (knet, "matching_cost"), "Hungarian matching": (knet, "match")},
}
"""The matching functions of each network; those of other networks are not timed."""


def main() -> None:
    """Train a little, so that the teacher has detections, then time pairs of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="mask_rcnn")
    parser.add_argument("--study", default="demo")
    parser.add_argument("--warm", type=int, default=150, help="steps before the first timed one")
    parser.add_argument("--pairs", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(arguments.study)
    run = study.run(study.split.percents[-1], study.split.folds[0], arguments.network, "pais")
    run = run.model_copy(update={"training": run.training.model_copy(update={"burn_in": arguments.warm})})
    with tempfile.TemporaryDirectory() as folder:
        plugin = plugins.load("datasets", study.dataset.name)
        plugin.Dataset(plugin.Options(**study.dataset.options), study.dataset.root).prepare(Path(folder), run.dataset)
        stores = {subset: Store.open(Path(folder), subset) for subset in ("train", "val")}
        fabric = Fabric(accelerator="auto", devices=1, precision=run.training.precision)
        fabric.launch()
        split = draw_split(stores["train"], run.dataset, run.split)
        measure(Trainer(run, stores, split, Path(folder), fabric), arguments.warm, arguments.pairs)


def measure(trainer: Trainer, warm: int, pairs: int) -> None:
    """Print the medians of both kinds of steps, the ratio to the floor, and the time of each part of a PAIS step."""
    parts: dict[str, list[float]] = defaultdict(list)
    network = trainer.run.network
    functions: dict[str, tuple[Any, str]] = {
        "teacher's prediction": (training_step, "detect"),
        "weights": (training_step, "assign_weights"),
        "projection": (training_step, "project_to_strong_views"),
        **MATCHING.get((network.backend, network.name), {}),
    }
    for part, (owner, name) in functions.items():
        timed(owner, name, part, parts)
    steps: dict[str, list[float]] = defaultdict(list)
    for step in range(warm):
        train_step(trainer, load(trainer, step))
    spent: dict[str, float] = defaultdict(float)
    for step in range(warm, warm + pairs):
        batch = load(trainer, step)
        for name, unlabelled in (("supervised", []), ("pais", batch.unlabelled)):
            parts.clear()
            seconds, _ = train_step(trainer, Batch(step, batch.labelled, unlabelled))
            steps[name].append(seconds)
        for part, calls in parts.items():  # of the PAIS step alone
            spent[part] += sum(calls)
    training = trainer.run.training
    labelled, unlabelled = training.labelled_batch_size, training.unlabelled_batch_size
    supervised, pais = (statistics.median(steps[name]) for name in ("supervised", "pais"))
    floor = supervised * (3 * labelled + 4 * unlabelled) / (3 * labelled)
    print(f"{trainer.fabric.device}, {labelled} labelled and {unlabelled} unlabelled images a step, {pairs} pairs")
    print(f"supervised step {1000 * supervised:7.1f} ms")
    print(f"floor           {1000 * floor:7.1f} ms")
    print(f"PAIS step       {1000 * pais:7.1f} ms = {pais / floor:.3f} of the floor")
    for part, total in spent.items():
        print(f"  of it {part:24} {1000 * total / pairs:6.1f} ms")
    log_every = training.log_every
    logged = statistics.median(log_seconds(trainer, warm + log_every * number) for number in range(pairs))
    share = logged / log_every / pais
    print(f"a logged step costs {1000 * logged:.1f} ms more, every {log_every} steps: {share:.2%} of a step")


def log_seconds(trainer: Trainer, step: int) -> float:
    """Return the additional seconds of a logged step: to read the held-out labels, and to describe the step."""
    log_every = trainer.run.training.log_every
    step -= step % log_every
    times = []
    for index in (step, step + log_every - 1):  # the second is logged, and its batch has the held-out labels
        begin = time.perf_counter()
        batch = load(trainer, index)
        times.append(time.perf_counter() - begin)
    _, record = train_step(trainer, batch)
    begin = now(trainer.fabric.device)
    record.log_line(trainer.fabric)
    return now(trainer.fabric.device) - begin + times[1] - times[0]


def load(trainer: Trainer, step: int) -> Batch:
    """Return the batch of a step on the trainer's device."""
    return trainer.dataset.pack(step).unpack(trainer.fabric.device)


def train_step(trainer: Trainer, batch: Batch) -> tuple[float, StepRecord]:
    """Do one step and return its seconds, the work of the device included."""
    begin = now(trainer.fabric.device)
    record = training_step.train_step(trainer.run, trainer.method, trainer.models, batch, trainer.fabric)
    return now(trainer.fabric.device) - begin, record


def timed(owner: Any, name: str, part: str, parts: dict[str, list[float]]) -> None:
    """Record the seconds of every call of a function, as a part of the step."""
    function: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments)
        parts[part].append(time.perf_counter() - begin)
        return result

    setattr(owner, name, wrapped)


def now(device: torch.device) -> float:
    """Return the time in seconds once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
