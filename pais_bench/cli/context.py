"""Share common arguments, the lookup of what they name, and progress lines among the commands."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.cli.prepared import open_stores
from pais_bench.errors import BenchError
from pais_bench.machine.gpu_claim import claim_gpus
from pais_bench.splits.split import Split, check_split, read_split, require_objects, split_path
from pais_bench.study.load import load_study, shipped
from pais_bench.study.run import ModelCheckpoint, Run
from pais_bench.study.split import SplitChoice
from pais_bench.study.study import Study
from pais_bench.whole_file import write_text

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def at_least(least: int) -> Callable[[str], int]:
    """Return the type of an argument that is an integer from a number on."""

    def integer(text: str) -> int:
        if (value := int(text)) < least:
            raise ArgumentTypeError(f"{value} is too few; give {least} or more")
        return value

    return integer


def add_study(parser: ArgumentParser) -> None:
    """Add the study."""
    parser.add_argument("study", metavar="STUDY", help=f"path of a study file, or one of {shipped()}")


def add_results(parser: ArgumentParser) -> None:
    """Add the results folder."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def add_split(parser: ArgumentParser) -> None:
    """Add percent and fold, which name a split of the study."""
    parser.add_argument("--percent", type=float, required=True, help="percent of the images that is labelled")
    parser.add_argument("--fold", type=int, required=True, help="fold, also the seed where training.seed is null")


def add_run(parser: ArgumentParser) -> None:
    """Add the study, the results folder, and what names one run: percent, fold, network and method."""
    add_study(parser)
    add_results(parser)
    add_split(parser)
    parser.add_argument("--network", required=True, help="label of a network in the study")
    parser.add_argument("--method", required=True, help="label of a method in the study")


def add_checkpoint(parser: ArgumentParser) -> None:
    """Add the checkpoint of a run."""
    parser.add_argument("--checkpoint", help="teacher-last, student-best, ... (default: what the tables print)")


def add_torch(parser: ArgumentParser) -> None:
    """Add threads, locked versions and accelerator of torch; none of them changes what is computed."""
    parser.add_argument("--threads", type=at_least(1), default=1, help="CPU threads of torch (default: 1)")
    parser.add_argument("--locked", metavar="NAME", help="refuse other versions than envs/NAME.txt pins")
    parser.add_argument("--accelerator", default="auto", help="cpu, cuda, mps, or auto (default)")


def add_workers(parser: ArgumentParser) -> None:
    """Add the loader processes."""
    workers = "loader processes; changes no number (default: the CPUs given less one with a GPU, 0 without)"
    parser.add_argument("--workers", type=at_least(0), help=workers)


def add_gpus(parser: ArgumentParser) -> None:
    """Add the GPUs that this process shares with others."""
    gpus = "GPUs, as CUDA_VISIBLE_DEVICES names them: use those that no other process claims (default: the visible)"
    parser.add_argument("--gpus", type=_comma_separated, default=[], metavar="0,1,...", help=gpus)


def _comma_separated(text: str) -> list[str]:
    """Return names between commas, once each."""
    return list(dict.fromkeys(name for name in map(str.strip, text.split(",")) if name))


def add_sources(parser: ArgumentParser) -> None:
    """Add the published files of split families that read one."""
    source = "published file or folder of a split family that reads one; may be given several times"
    parser.add_argument("--source", action="append", default=[], metavar="FAMILY=PATH", help=source)


def find_sources(arguments: Namespace) -> dict[str, Path]:
    """Return the path of each family that --source names; raise BenchError for an unknown family."""
    sources, families = named_paths("--source", arguments.source), plugins.names("families")
    for family in sources.keys() - set(families):
        raise BenchError(f"--source {family}: no such family; choose one of {', '.join(families)}")
    return sources


def named_paths(option: str, texts: Sequence[str]) -> dict[str, Path]:
    """Return the path of each name of NAME=PATH; raise BenchError for another text, and for a name given twice."""
    pairs: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise BenchError(f"{option} {text}: not a name and a path; give NAME=PATH")
        if name in pairs:
            raise BenchError(f"{option} {text}: '{name}' is given twice; give each name once")
        pairs[name] = Path(path)
    return pairs


def claim_named_gpus(arguments: Namespace, count: int) -> None:
    """Claim that many of the GPUs that --gpus names; processes that a training starts for its GPUs see the same."""
    if arguments.gpus and "LOCAL_RANK" not in os.environ:
        claim_gpus(arguments.gpus, count, print_progress)


def count_workers(arguments: Namespace, device: str, processes: int = 1) -> int:
    """Return the number of loader processes: that of --workers, else one less than the CPUs for this process.

    device is the type of the device, such as cuda; processes is the number of those that share this node's CPUs.
    """
    if arguments.workers is not None:
        return int(arguments.workers)
    if device != "cuda":
        return 0
    given = os.environ.get("SLURM_CPUS_PER_TASK")
    cpus = int(given) if given else len(os.sched_getaffinity(0)) // processes
    return max(0, cpus - 1)


def read_study(arguments: Namespace) -> Study:
    """Load the study that the arguments name."""
    return load_study(arguments.study)


def find_split(study: Study, arguments: Namespace) -> SplitChoice:
    """Return the split that percent and fold name; raise BenchError for a value that is not in the study.

    A percent is known by the digits that the names of its folders have, 0.195312 for 0.1953125.
    """
    grid = study.split
    known = {f"{percent:g}": percent for percent in grid.percents}
    percent = known.get(f"{arguments.percent:g}", arguments.percent)
    _require_known(study, "percent", percent, grid.percents)
    _require_known(study, "fold", arguments.fold, grid.folds)
    return SplitChoice(family=grid.family, percent=percent, fold=arguments.fold, label_noise=grid.label_noise)


def find_run(study: Study, arguments: Namespace) -> Run:
    """Return the run that the arguments name; raise BenchError for a value that is not in the study."""
    split = find_split(study, arguments)
    _require_known(study, "network", arguments.network, study.networks)
    _require_known(study, "method", arguments.method, study.methods)
    return study.run(split.percent, split.fold, arguments.network, arguments.method)


def _require_known(study: Study, key: str, value: object, known: Collection[object]) -> None:
    if value not in known:
        raise BenchError(f"--{key} {value}: not in study '{study.name}'; choose one of {', '.join(map(str, known))}")


def find_checkpoint(study: Study, arguments: Namespace) -> ModelCheckpoint:
    """Return the checkpoint that the arguments name, by default the one that the tables print."""
    checkpoint: ModelCheckpoint = arguments.checkpoint or study.checkpoints[0]
    if checkpoint not in study.checkpoints:
        known = ", ".join(study.checkpoints)
        raise BenchError(
            f"--checkpoint {checkpoint}: not in study '{study.name}', which has {known}; add it to 'also_evaluate'"
        )
    return checkpoint


def open_store(study: Study, results: Path, subset: str) -> Store:
    """Open a subset (train, val, unlabelled) of the study's prepared dataset, which must be of the study's files."""
    return open_stores(study, results, subset)[subset]


def read_checked_split(dataset: str, choice: SplitChoice, results: Path, store: Store) -> Split:
    """Read a split and check that it was drawn from the store and has an object to learn from."""
    split = read_split(split_path(results, dataset, choice))
    check_split(split, store, choice)
    require_objects(split, store)
    return split


def quieten_fabric() -> None:
    """Silence Fabric's hints: several GPUs are started by srun in the workflow, TF32 is a key of the study."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # to INFO by its import
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")


def one_device(arguments: Namespace, run: Run) -> Fabric:
    """Set torch's threads and the run's precision, and return the one device that predicts."""
    import torch
    from lightning_fabric import Fabric

    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision(run.training.matmul_precision)
    quieten_fabric()
    return Fabric(accelerator=arguments.accelerator, devices=1, precision=run.training.precision)


def print_progress(text: str) -> None:
    """Print a line with the time of day to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def read_json(path: Path) -> Any:
    """Read a JSON file; raise BenchError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError(f"{path}: missing; run the command before this one first") from None
    except ValueError as error:
        raise BenchError(
            f"{path}: not valid JSON ({error}); delete it and run the command before this one again"
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content) + "\n")
