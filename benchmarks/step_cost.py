"""What does a PAIS step cost over its floor? Timed beside supervised steps on the same labelled images.

python benchmarks/step_cost.py [mask_rcnn] [--study demo] [--pairs 30]

With L labelled and U unlabelled images the floor is (3L + 4U) / 3L supervised steps: a forward pass is a third of a
step, and an unlabelled image takes one of the teacher beside the student's step. Loading is not counted. Steps of both
kinds alternate, so that a busy machine slows both; medians are printed. What the diagnostics of a logged step cost,
loading the hidden truth included, is printed last.
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

from pais_bench import engine, geometry, plugins
from pais_bench.backends.torchvision import _weighted, knet
from pais_bench.splits import draw_split
from pais_bench.store import Store
from pais_bench.study_file import load_study

MATCHING: dict[tuple[str, str], dict[str, tuple[Any, str]]] = {
    ("torchvision", "mask_rcnn"): {
        "matching of anchors": (_weighted, "_match"),
        "matching of regions": (_weighted.WeightedRoIHeads, "select_training_samples"),
    },
    ("torchvision", "knet"): {"costs of the matching": (knet, "_costs"), "Hungarian matching": (knet, "match")},
}
"""Where a network matches; of others it is not listed."""


def main() -> None:
    """Train a little, so that the teacher finds something, then time pairs of steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="mask_rcnn")
    parser.add_argument("--study", default="demo")
    parser.add_argument("--warm", type=int, default=150, help="steps before the first timed one")
    parser.add_argument("--pairs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    study = load_study(given.study)
    run = study.run(study.split.percents[-1], study.split.folds[0], given.network, "pais")
    run = run.model_copy(update={"training": run.training.model_copy(update={"burn_in": given.warm})})
    with tempfile.TemporaryDirectory() as folder:
        plugin = plugins.load("datasets", study.dataset.name)
        plugin.Dataset(plugin.Options(**study.dataset.options), study.dataset.root).prepare(Path(folder), run.dataset)
        stores = {part: Store.open(Path(folder), part) for part in ("train", "val")}
        fabric = Fabric(accelerator="auto", devices=1, precision=run.training.precision)
        fabric.launch()
        split = draw_split(stores["train"], run.dataset, run.split)
        measure(engine.Trainer(run, stores, split, Path(folder), fabric), given.warm, given.pairs)


def measure(trainer: engine.Trainer, warm: int, pairs: int) -> None:
    """Print the medians of both kinds of steps, their ratio to the floor, and where a PAIS step spends its time."""
    parts: dict[str, list[float]] = defaultdict(list)
    network = trainer.run.network
    functions: dict[str, tuple[Any, str]] = {
        "teacher's prediction": (trainer.teacher, "predict"),
        "weights": (trainer.method, "weigh"),
        "projection": (geometry, "project_targets"),
        **MATCHING.get((network.backend, network.name), {}),
    }
    for part, (owner, name) in functions.items():
        timed(owner, name, part, parts)
    steps: dict[str, list[float]] = defaultdict(list)
    for step in range(warm):
        run_step(trainer, trainer.stream[step], step)
    spent: dict[str, float] = defaultdict(float)
    for step in range(warm, warm + pairs):
        batch = trainer.stream[step]
        alone = type(batch)(batch.step, batch.labelled, [])
        for name, one in (("supervised", alone), ("pais", batch)):
            parts.clear()
            steps[name].append(run_step(trainer, one, step))
        for part, calls in parts.items():  # of the PAIS step alone
            spent[part] += sum(calls)
    training = trainer.run.training
    labelled, unlabelled = training.labelled_batch, training.unlabelled_batch
    supervised, pais = (statistics.median(steps[name]) for name in ("supervised", "pais"))
    floor = supervised * (3 * labelled + 4 * unlabelled) / (3 * labelled)
    print(f"{trainer.fabric.device}, {labelled} labelled and {unlabelled} unlabelled images a step, {pairs} pairs")
    print(f"supervised step {1000 * supervised:7.1f} ms")
    print(f"floor           {1000 * floor:7.1f} ms")
    print(f"PAIS step       {1000 * pais:7.1f} ms = {pais / floor:.3f} of the floor")
    for part, total in spent.items():
        print(f"  of it {part:24} {1000 * total / pairs:6.1f} ms")
    log_every = trainer.run.training.log_every
    logged = statistics.median(seconds_of_a_line(trainer, warm + log_every * number) for number in range(pairs))
    share = logged / log_every / pais
    print(f"a logged step costs {1000 * logged:.1f} ms more, every {log_every} steps: {share:.2%} of a step")


def seconds_of_a_line(trainer: engine.Trainer, step: int) -> float:
    """Give what a logged step costs beyond another: reading the hidden truth, and describing the step with it."""
    log_every = trainer.run.training.log_every
    step -= step % log_every
    times = []
    for one in (step, step + log_every - 1):  # the second is logged, its batch holds the truth
        begun = time.perf_counter()
        batch = trainer.stream[one]
        times.append(time.perf_counter() - begun)
    trainer.step = step
    line = trainer._train_step(batch)
    begun = now(trainer.fabric.device)
    line()
    return now(trainer.fabric.device) - begun + times[1] - times[0]


def run_step(trainer: engine.Trainer, batch: Any, step: int) -> float:
    """Do one step and give its seconds, the work of the device included."""
    trainer.step = step
    begun = now(trainer.fabric.device)
    trainer._train_step(batch)
    return now(trainer.fabric.device) - begun


def timed(owner: Any, name: str, part: str, parts: dict[str, list[float]]) -> None:
    """Note the seconds of every call of a function under the part of a step that it is."""
    function: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any) -> Any:
        begun = time.perf_counter()
        found = function(*arguments)
        parts[part].append(time.perf_counter() - begun)
        return found

    setattr(owner, name, wrapped)


def now(device: torch.device) -> float:
    """Give the time in seconds when the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
