"""Build the network of a run, with random weights or with those of its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.layers.network import Network
from pais_bench.runs.files import CHECKPOINT, best_checkpoint
from pais_bench.study.base import parse
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.training.checkpoint import read_checkpoint


def build_backend(run: Run, isthing: Sequence[bool], pretrained: bool = True) -> Network:
    """Build the network of a run for classes of things and of stuff, in the order of labels.

    pretrained: false where a checkpoint replaces all weights, so that the files of pretrained ones need not be there.
    Raises BenchError for an option that is unknown or out of range.
    """
    name = f"{run.network.backend}/{run.network.name}"
    plugin = plugins.load("backends", name)
    options = parse(plugin.Options, run.network.options, f"networks.{run.network.label}.options")
    arguments = [len(isthing), options]
    if plugins.learns_stuff(name):
        arguments.append(stuff_labels(isthing))
    backend: Network = plugin.Backend(*arguments, pretrained=pretrained)
    return backend


def stuff_labels(isthing: Sequence[bool]) -> list[int]:
    """Return the labels of the classes that are stuff."""
    return [label for label, thing in enumerate(isthing) if not thing]


def load_trained(
    run: Run, isthing: Sequence[bool], folder: Path, checkpoint: ModelCheckpoint = "teacher-last"
) -> Network:
    """Build the network of a run with the weights that its training left in a folder.

    Files of pretrained weights need not be there. Raises BenchError where the run's own are missing: the best ones are
    kept only where the study evaluates them.
    """
    backend = build_backend(run, isthing, pretrained=False)
    model, _, moment = checkpoint.partition("-")
    path = folder / (CHECKPOINT if moment == "last" else best_checkpoint(model))
    if moment == "best" and not path.exists():
        raise BenchError(f"{path}: missing; it is kept while training alone: remove the folder and train the run again")
    backend.load_state_dict(read_checkpoint(path, run)[model])
    return backend
