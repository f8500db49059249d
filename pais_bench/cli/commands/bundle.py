"""Pack a study for a cluster without internet: wheels of its environments, this package, its files, weights.

The folder is brought to the cluster, where its install.sh builds the environments from the wheels, by the hashes of the
locks. A call that was ended is continued by the same command. Images are not packed.
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import yaml

from pais_bench import downloads, provenance
from pais_bench.cli import context
from pais_bench.cli.prepared import WEIGHTS
from pais_bench.downloads.table import Download, as_size, read_table
from pais_bench.downloads.transfer import download, require_space
from pais_bench.downloads.wheels import locked_files
from pais_bench.errors import BenchError
from pais_bench.provenance import sha256_of
from pais_bench.reports.external import read_all
from pais_bench.study.load import load_study, read_values, study_path
from pais_bench.study.study import Study
from pais_bench.whole_file import partial_path, write_text

INSTALLER = Path(downloads.__file__).with_name("install.sh")
CHECKOUT = (
    "Snakefile",
    "rules",
    "profiles",
    "envs",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)
"""What a checkout has beside the package that a build needs."""


class Item(NamedTuple):
    """Hold a file of the bundle: its path there, bytes, and where it comes from: an address, a file, or its text."""

    path: str
    size: int
    source: Download | Path | str


class Contents:
    """Collect the items of a bundle, where its installer puts weights, and what the user has to bring."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.places: list[tuple[str, str]] = []
        self.bring: list[str] = []

    def add(self, path: str, source: Download | Path | str) -> None:
        """Add a file or text, or all files of a folder but those that Python caches."""
        if isinstance(source, Download):
            self.items[path] = Item(path, source.size or 0, source)
        elif isinstance(source, str):
            self.items[path] = Item(path, len(source.encode()), source)
        elif source.is_dir():
            for file in sorted(source.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    self.add(f"{path}/{file.relative_to(source).as_posix()}", file)
        else:
            self.items[path] = Item(path, source.stat().st_size, source)


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the folder, the Python and machine of the cluster, and the dry-run."""
    context.add_study(parser)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="folder of the bundle")
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--python", default=mine, help=f"Python of the cluster (default: {mine}, that of this command)")
    parser.add_argument(
        "--machine", default=platform.machine(), help=f"x86_64 or aarch64, under Linux (default: {platform.machine()})"
    )
    parser.add_argument("-n", "--dry-run", action="store_true", help="list files and sizes, and download nothing")


def run(arguments: Namespace) -> None:
    """List or write the bundle; raise BenchError where the index, a server or the disk fails."""
    contents, environments = Contents(), []
    study = load_study(arguments.study)
    _add_study(contents, study, study_path(arguments.study))
    _add_weights(contents, study)
    for name in ("uv", "workflow", *sorted({network.backend for network in study.networks.values()})):
        if _add_environment(contents, name, arguments.python, arguments.machine):
            environments.append(name)
    package = Path(provenance.__file__).parent
    contents.add("project/pais_bench", package)
    if not provenance.INSTALLED:
        for name in CHECKOUT:
            contents.add(f"project/{name}", provenance.PROJECT / name)
    contents.add("install.sh", _installer(contents, environments[1:], arguments.python))
    _print(contents, arguments)
    if not arguments.dry_run:
        _write(contents, arguments, environments)


def _add_study(contents: Contents, study: Study, path: Path) -> None:
    """Add the study with its bases merged into it, and what it names: lists of splits, other codebases' predictions."""
    values = read_values(path)
    if study.split.source:
        values["split"]["source"] = f"split/{study.split.source.name}"
        if study.split.source.exists():
            contents.add(f"study/split/{study.split.source.name}", study.split.source)
        else:
            contents.bring.append(f"split.source, {study.split.source}: as study/split/{study.split.source.name}")
    for number, external in enumerate(read_all(study)):
        predictions, folder = external.predictions, f"study/external/{number}"
        if predictions.exists():
            contents.add(f"{folder}/{predictions.name}", predictions)
        else:
            contents.bring.append(f"external, {predictions}: as {folder}/{predictions.name}")
        contents.add(f"{folder}/description.yaml", _dump({**external.description, "predictions": predictions.name}))
    if study.external:
        values["external"] = [f"external/{number}/description.yaml" for number in range(len(study.external))]
    if root := study.dataset.root:
        # A base's root has this machine's home in it; the cluster has another one.
        in_home = root.absolute().is_relative_to(Path.home())
        values["dataset"]["root"] = f"~/{root.absolute().relative_to(Path.home())}" if in_home else str(root.absolute())
        contents.bring.append(f"dataset.root: the images and annotations, as {values['dataset']['root']}")
    contents.add("study/study.yaml", _dump(values))


def _dump(values: dict[str, Any]) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _add_weights(contents: Contents, study: Study) -> None:
    """Add the files and folders that options of networks and methods name, from this machine or by `fetch`."""
    known = {(group.folder / file.name).expanduser(): file for group in read_table().values() for file in group.files}
    for number, value in enumerate(dict.fromkeys(_paths(study))):
        path = Path(value).expanduser()
        place = f"{number}/{path.name}"
        if not path.is_absolute():
            contents.bring.append(f"{value}: is relative to the folder where a command runs; as project/{value}")
            continue
        if not path.exists() and path not in known:
            contents.bring.append(f"{value}: is not on this machine")
            continue
        contents.add(f"files/{place}", path if path.exists() else known[path])
        contents.places.append((place, value))


def _paths(study: Study) -> Iterator[str]:
    """Yield the options of networks and methods that are absolute paths or name weights, as they are written."""
    networks, methods = study.networks.values(), study.methods.values()
    for options in (*(network.options for network in networks), *(method.options for method in methods)):
        for key, value in options.items():
            if isinstance(value, str) and (key in WEIGHTS or value.startswith(("~/", "/"))):
                yield value


def _add_environment(contents: Contents, name: str, python: str, machine: str) -> bool:
    """Add the files of a lock and of its source builds; return False for one that is built from a repository."""
    source = provenance.LOCKS / f"{name}.source.txt"
    locks = [provenance.LOCKS / f"{name}.txt", *([source] if source.exists() else [])]
    if any(" @ git+" in lock.read_text(encoding="utf-8") for lock in locks):
        contents.bring.append(f"environment {name}: is built from a repository, and cannot be packed")
        return False
    build = subprocess.run([sys.executable, provenance.LOCKS / "build.py", "uv"], stdout=subprocess.PIPE, text=True)
    if build.returncode:
        raise BenchError("uv cannot be installed, for the reason above; try again")
    for lock in locks:
        for file in locked_files(provenance.PROJECT / build.stdout.strip(), lock, python, machine):
            contents.add(f"wheels/{file.name}", file)
    return True


def _installer(contents: Contents, environments: list[str], python: str) -> str:
    build = provenance.LOCKS.relative_to(Path(provenance.__file__).parent.parent) / "build.py"
    places = []
    for file, value in contents.places:
        home = value.startswith("~/")
        places.append(f"place {shlex.quote(file)} {'~/' if home else ''}{shlex.quote(value[2:] if home else value)}")
    return Template(INSTALLER.read_text(encoding="utf-8")).substitute(
        python=python,
        build=f"project/{build.as_posix()}",
        environments=" ".join(environments),
        places="\n".join(places),
        bring="\n".join(f"echo {shlex.quote(f'still to bring: {line}')}" for line in contents.bring),
    )


def _print(contents: Contents, arguments: Namespace) -> None:
    project = [item for item in contents.items.values() if item.path.startswith("project/")]
    for item in contents.items.values():
        if item not in project:
            print(f"{as_size(item.size):>9}  {item.path}")
    print(f"{as_size(sum(item.size for item in project)):>9}  project/, {len(project)} files")
    total, number = sum(item.size for item in contents.items.values()), len(contents.items)
    print(f"{as_size(total)} in {number} files, for Python {arguments.python} on {arguments.machine}")
    for line in contents.bring:
        print(f"not packed: {line}")
    sys.stdout.flush()


def _write(contents: Contents, arguments: Namespace, environments: list[str]) -> None:
    """Write what is not there yet; the manifest and the installer come last."""
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    items = sorted(contents.items.values(), key=lambda item: item.path == "install.sh")
    missing = [item for item in items if not _is_there(item, out / item.path)]
    require_space(out, sum(item.size for item in missing), "the bundle", "--out")
    for number, item in enumerate(missing):
        _write_item(item, out / item.path, f"file {number + 1} of {len(missing)}")
    files = [{"path": item.path, "bytes": item.size, "sha256": _sha256(item, out / item.path)} for item in items]
    write_text(out / "SHA256SUMS", "".join(f"{file['sha256']}  {file['path']}\n" for file in files))
    facts = {"study": arguments.study, "python": arguments.python, "machine": arguments.machine}
    facts |= {"commit": provenance.commit(), "environments": environments, "files": files}
    write_text(out / "manifest.json", json.dumps(facts, indent=1) + "\n")
    print(f"{out}: packed; on the cluster run {out.name}/install.sh")


def _is_there(item: Item, path: Path) -> bool:
    """Return whether a file need not be written again: an address with its sha256, or a copy of the same time."""
    if isinstance(item.source, str) or not path.exists():
        return False
    if isinstance(item.source, Download):
        return path.stat().st_size == item.size and sha256_of(path) == item.source.sha256
    return path.stat().st_size == item.size and path.stat().st_mtime_ns == item.source.stat().st_mtime_ns


def _write_item(item: Item, path: Path, count: str) -> None:
    if isinstance(item.source, Download):
        download(item.source, path, lambda text: context.print_progress(f"{count}: {text}"))
    elif isinstance(item.source, str):
        write_text(path, item.source)
    else:
        with partial_path(path) as partial:
            shutil.copy2(item.source, partial)
    if path.suffix == ".sh":
        path.chmod(0o755)


def _sha256(item: Item, path: Path) -> str:
    return str(item.source.sha256) if isinstance(item.source, Download) else sha256_of(path)
