"""Check backends and this machine for what would fail, or data for photos that are there twice.

Of a backend the command checks the locked environment and the Python that runs it, each in a process of its own, so
that a build that crashes is reported too. Of the machine it checks cores, memory, GPUs, the file system of the results
and SLURM, with --for against what a study needs. The exit code is 1 where something fails. Of a study or of image
folders it compares all images of all subsets, and the exit code is 1 where two subsets share a photo.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shutil import which

from pais_bench import plugins, provenance
from pais_bench.cli import context
from pais_bench.cli.plan import mean_disk
from pais_bench.cli.prepared import absent_weights, open_stores
from pais_bench.errors import BenchError
from pais_bench.images.files import image_subsets
from pais_bench.images.similar import find_similar
from pais_bench.machine.filesystem import check_filesystem
from pais_bench.machine.finding import Finding
from pais_bench.machine.gpu import check_gpus, check_torch
from pais_bench.machine.node import check_node
from pais_bench.machine.slurm import SINFO, check_slurm
from pais_bench.provenance import (
    FRAMEWORKS,
    LOCKS,
    environment_folder,
    incompatible_packages,
    install_command,
    installed,
)
from pais_bench.study.load import STUDIES, load_study
from pais_bench.study.study import Study
from pais_bench.study.yaml_file import read_yaml
from pais_bench.workflow.progress import Progress, measured_step_seconds

READY, BROKEN, ABSENT = 0, 1, 3


def add_arguments(parser: ArgumentParser) -> None:
    """Add the backends or data, the results folder, and whether other environments are checked."""
    parser.add_argument(
        "names",
        metavar="BACKEND|DATA",
        nargs="*",
        help="backends (default: all, and this machine), or a study whose dataset is prepared, or image folders, one "
        "per subset",
    )
    context.add_results(parser)
    parser.add_argument(
        "--for", metavar="STUDY", dest="study", help="check its backends, and what it needs of this machine"
    )
    parser.add_argument("--here", action="store_true", help="check only the backends of the Python that runs this")


def run(arguments: Namespace) -> int:
    """Print a paragraph for each backend, or what each two subsets share; raise BenchError for what is neither."""
    known = sorted({name.split("/")[0] for name in plugins.names("backends")})
    others = [name for name in arguments.names if name not in known]
    if arguments.study and arguments.names:
        raise BenchError(f"--for {arguments.study}: checks the backends of the study; leave out {arguments.names[0]}")
    if not others:
        study = load_study(arguments.study) if arguments.study else None
        needed = sorted({network.backend for network in study.networks.values()}) if study else known
        check = _check_this_python if arguments.here else _check_environments
        states = [check(backend) for backend in arguments.names or needed]
        if not arguments.here and not arguments.names:
            states.append(_check_machine(study, arguments.results))
        return BROKEN if BROKEN in states else max(states)
    if len(others) < len(arguments.names):
        raise BenchError(f"{others[0]}: give either backends or data")
    return _check_data(_subsets(others, arguments.results, known))


def _check_machine(study: Study | None, results: Path) -> int:
    """Print what is found of this machine, and for a study; return BROKEN where something fails."""
    print("machine" + (f", for {study.name}" if study else ""))
    return _print_findings(_find(study, results), "  ")


def _find(study: Study | None, results: Path) -> Iterator[Finding]:
    """Yield each finding as soon as it is there."""
    trainings = Progress(study, results).read() if study else []
    step_seconds = measured_step_seconds(trainings)
    seconds = [training.seconds_left(step_seconds) or 0.0 for training in trainings]
    mean = mean_disk(trainings)
    needed = None if mean is None else mean * sum(not training.is_trained for training in trainings)
    yield from check_node(study)
    if study and not all(training.is_trained for training in trainings):
        yield from (Finding("fail", line) for line in absent_weights(study))
    yield from check_gpus()
    yield from check_filesystem(results, needed, on_cluster=which(SINFO[0]) is not None)
    profile = read_yaml(provenance.PROJECT / "profiles" / "slurm" / "config.yaml")
    yield from check_slurm(study.resources if study else None, profile, max(seconds, default=0.0))


def _print_findings(findings: Iterable[Finding], indent: str = "") -> int:
    state = READY
    for level, text in findings:
        print(f"{indent}{level + ':':<5} {text}", flush=True)
        state = BROKEN if level == "fail" else state
    return state


def _subsets(names: Sequence[str], results: Path, backends: Sequence[str]) -> dict[str, list[Path]]:
    """Return the image files of each subset of a study, of a folder of subsets, or of several folders."""
    folders = [Path(name) for name in names]
    if len(names) == 1 and ((STUDIES / f"{names[0]}.yaml").is_file() or folders[0].suffix in (".yaml", ".yml")):
        stores = open_stores(load_study(names[0]), results)
        return {name: [store.path(image_id) for image_id in store.image_ids] for name, store in stores.items()}
    for name, folder in zip(names, folders, strict=True):
        if not folder.is_dir():
            raise BenchError(
                f"{name}: there is no such backend; choose one of {', '.join(backends)}, or give one study or folders"
            )
    found = {str(folder): image_subsets(folder) for folder in folders}
    for name, subsets in found.items():
        if not subsets:
            raise BenchError(f"{name}: holds no image; give the folder of the images")
    if len(found) == 1:
        return found[str(folders[0])]
    return {name: [path for paths in subsets.values() for path in paths] for name, subsets in found.items()}


def _check_data(subsets: dict[str, list[Path]]) -> int:
    """Print which photos two subsets share, or one has twice; return BROKEN where two share one."""
    print(", ".join(f"{name}: {len(paths)} images" for name, paths in subsets.items()))
    state = READY
    for (first, second), count, pairs in find_similar(subsets, context.print_progress):
        total = len(subsets[second])
        if first == second:
            print(f"{first}: {count} of {total} images look like an earlier one")
        else:
            print(f"{second}: {count} of {total} images look like one of {first}")
            state = BROKEN if count else state
        for pair in pairs:
            print(f"  {pair.first}  {pair.second}  correlation {pair.correlation:.3f}")
    return state


def _check_environments(backend: str) -> int:
    print(backend)
    folder = environment_folder(backend)
    states = []
    if folder and (folder / "READY").exists():
        states.append(_check_python(backend, str(folder), folder / "bin" / "python"))
    else:
        print(f"  locked environment: not built; {install_command(backend)}{_source_note(backend)}")
    states.append(_check_python(backend, "this Python", Path(sys.executable)))
    return BROKEN if BROKEN in states else READY


def _source_note(backend: str) -> str:
    source = LOCKS / f"{backend}.source.txt"
    if not source.exists():
        return ""
    comment = itertools.takewhile(lambda line: line.startswith("#"), source.read_text(encoding="utf-8").splitlines())
    return f"  ({' '.join(line.lstrip('# ') for line in comment)})"


def _check_python(backend: str, name: str, python: Path) -> int:
    """Run the command in another Python with --here, and print its lines under a name."""
    command = (python, "-m", "pais_bench", "doctor", "--here", backend)
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode not in (READY, BROKEN, ABSENT):
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"  {name}: broken: {last} (exit code {process.returncode})")
        return BROKEN
    for line in process.stdout.splitlines():
        print(f"  {name}: {line}")
    return process.returncode


def _check_this_python(backend: str) -> int:
    """Print a backend's packages in this Python, and whether they can be imported."""
    packages = ("torch", "torchvision", *FRAMEWORKS.get(backend, ()))
    versions = ", ".join(f"{package} {version}" for package, version in installed(packages).items())
    faults = incompatible_packages(packages)
    for fault in faults:
        print(f"incompatible: {fault}; {install_command(backend)}")
    try:
        for name in plugins.names("backends"):
            if name.startswith(f"{backend}/"):
                plugins.load("backends", name)
    except BenchError as error:
        print(f"not installed: {error}")
        return BROKEN if faults else ABSENT
    except Exception as error:  # a framework may fail in any way
        message = " ".join(str(error).split())[:300]
        print(f"broken: {type(error).__name__}: {message}; it has {versions}; {install_command(backend)}")
        return BROKEN
    print(f"ready: python {provenance.versions()['python']}, {versions}")
    return max(_print_findings(check_torch()), BROKEN if faults else READY)
