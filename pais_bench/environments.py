"""Do the installed packages fit: each other, and the lock of a backend? Read from metadata; imports no framework."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from pais_bench.types import BenchError

LOCKS = Path(__file__).parent.parent / "envs"
FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "torchvision": (),
    "mmdet": ("onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "mmdet", "mmengine", "mmcv"),
    "detectron2": ("detectron2", "fvcore", "iopath"),
}
"""Packages of each backend beside torch and torchvision that may change a number; mmdet has two sets of names."""

_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:==| @ \S+@)([^\s;\\]+)", re.MULTILINE)


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Give the version of every package that is installed; one from a repository has its commit for a version."""
    found = {}
    for package in packages:
        try:
            found[package] = _commit(package) or metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def misfits(packages: Iterable[str]) -> list[str]:
    """Name every pair of installed packages of which the first declares that it does not work with the second."""
    told = []
    for package, version in installed(packages).items():
        for line in metadata.requires(package) or ():
            wanted = Requirement(line)
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            try:
                have = metadata.version(wanted.name)
            except metadata.PackageNotFoundError:
                continue
            if not wanted.specifier.contains(have, prereleases=True):
                told.append(
                    f"{package} {version} needs {wanted.name}{wanted.specifier}, and {wanted.name} {have} is installed"
                )
    return told


def require_locked(name: str, packages: Iterable[str]) -> None:
    """Raise BenchError unless each package that envs/NAME.txt pins is installed in a pinned version."""
    pins = _pins(name)
    packages = [package for package in packages if package in pins]
    have = installed(packages)
    for package in packages:
        version = have.get(package)
        if version is None or version.split("+")[0] not in pins[package]:
            raise BenchError(
                f"{package} {version or 'is not installed'}: the environment '{name}' pins "
                f"{' or '.join(sorted(pins[package]))}; run in what `{command(name)}` prints, or name an "
                f"interpreter of your own (--config python=PATH), which is not held to the pins"
            )


def command(backend: str) -> str:
    """Give the command that installs the environment of a backend."""
    return f"python3 envs/build.py {backend}"


def _pins(name: str) -> dict[str, set[str]]:
    """Read the versions that a lock and what is built from source allow; a marker makes two of one package."""
    paths = [path for path in (LOCKS / f"{name}.txt", LOCKS / f"{name}.source.txt") if path.exists()]
    if not paths:
        raise BenchError(f"--locked {name}: there is no {LOCKS / name}.txt; leave it out, or run in a checkout")
    pins: dict[str, set[str]] = {}
    for path in paths:
        for package, version in _PIN.findall(path.read_text()):
            pins.setdefault(package, set()).add(version)
    return pins


def _commit(package: str) -> str | None:
    told = metadata.distribution(package).read_text("direct_url.json")
    commit = json.loads(told).get("vcs_info", {}).get("commit_id") if told else None
    return str(commit) if commit else None
