"""Describe where a number comes from: commit, versions and hardware, as run.json keeps them; hash files."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from runpy import run_path
from typing import Any

from packaging.requirements import Requirement

from pais_bench import __version__
from pais_bench.errors import BenchError

_COPIES = Path(__file__).parent / "_project"
INSTALLED = _COPIES.is_dir()
PROJECT = _COPIES if INSTALLED else Path(__file__).parent.parent
"""Folder of Snakefile, rules/, profiles/ and envs/: the checkout, or the copies that an installed package has."""
LOCKS = PROJECT / "envs"
FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "torchvision": ("timm",),
    "mmdet": ("onedl-mmdetection", "onedl-mmengine", "onedl-mmcv", "mmdet", "mmengine", "mmcv"),
    "detectron2": ("detectron2", "fvcore", "iopath"),
}
"""Packages of each backend, beside torch and torchvision, that may change a number; mmdet has two sets of names."""

_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:==| @ \S+@)([^\s;\\]+)", re.MULTILINE)

PACKAGES = (
    *("torch", "torchvision", "lightning-fabric", "numpy", "pycocotools", "pillow", "pydantic"),
    *("opencv-python-headless", "opencv-python", "open-clip-torch", "transformers"),
    *(package for packages in FRAMEWORKS.values() for package in packages),
)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def commit() -> str:
    """Return the commit of the source, with '+changes' if the package differs from it, or the installed version.

    A file that the commit lacks, such as a method of the user's, is a change. A package that was installed or copied
    into somebody else's repository is not one of its files.
    """
    folder = Path(__file__).parent
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        head = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--", ".", ":(exclude,glob)**/__pycache__/**")
        return head + ("+changes" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return f"pais-bench {__version__}"


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that may change a number and is installed."""
    return {"python": platform.python_version(), **installed(PACKAGES)}


def require_versions(lock: str | None) -> None:
    """Raise BenchError where a package that may change a number differs from a lock; None checks nothing."""
    if lock is not None:
        require_locked(lock, PACKAGES)


def hardware(device: str, devices: int, threads: int) -> dict[str, Any]:
    """Return the processor, the device that trained, and the peak memory of this process in MiB."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "devices": devices,
        "threads": threads,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of every installed package; of a package from a repository, the commit."""
    versions = {}
    for package in packages:
        try:
            versions[package] = _installed_commit(package) or metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def incompatible_packages(packages: Iterable[str]) -> list[str]:
    """Describe every requirement of installed packages that another installed package does not meet."""
    faults = []
    for package, version in installed(packages).items():
        for line in metadata.requires(package) or ():
            required = Requirement(line)
            name, specifier = required.name, required.specifier
            if required.marker is not None and not required.marker.evaluate({"extra": ""}):
                continue
            try:
                other = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
            if not specifier.contains(other, prereleases=True):
                faults.append(f"{package} {version} needs {name}{specifier}, and {name} {other} is installed")
    return faults


def require_locked(name: str, packages: Iterable[str]) -> None:
    """Raise BenchError unless each package that envs/NAME.txt pins is installed in a pinned version."""
    pins = _pins(name)
    packages = [package for package in packages if package in pins]
    versions = installed(packages)
    for package in packages:
        version = versions.get(package)
        if version is None or version.split("+")[0] not in pins[package]:
            raise BenchError(
                f"{package} {version or 'is not installed'}: the environment '{name}' pins "
                f"{' or '.join(sorted(pins[package]))}; run with the Python that `{install_command(name)}` prints, or "
                f"name your own (--config python=PATH), whose versions are not checked"
            )


def environment_folder(name: str) -> Path | None:
    """Return where envs/build.py builds an environment, built or not; None where that script is absent.

    It lies in the checkout, and below the user's cache where the package is installed.
    """
    if not (LOCKS / "build.py").exists():
        return None
    script = run_path(str(LOCKS / "build.py"))
    return Path(script["HOME"], script["folder"](name))


def install_command(backend: str) -> str:
    """Return the command that installs the environment of a backend."""
    return f"python3 {LOCKS if INSTALLED else 'envs'}/build.py {backend}"


def _pins(name: str) -> dict[str, set[str]]:
    """Read the versions that a lock and its source builds pin; a package may have several, by markers."""
    paths = [path for path in (LOCKS / f"{name}.txt", LOCKS / f"{name}.source.txt") if path.exists()]
    if not paths:
        raise BenchError(f"--locked {name}: there is no {LOCKS / name}.txt; leave it out, or run in a checkout")
    pins: dict[str, set[str]] = {}
    for path in paths:
        for package, version in _PIN.findall(path.read_text(encoding="utf-8")):
            pins.setdefault(package, set()).add(version)
    return pins


def _installed_commit(package: str) -> str | None:
    text = metadata.distribution(package).read_text("direct_url.json")
    commit = json.loads(text).get("vcs_info", {}).get("commit_id") if text else None
    return str(commit) if commit else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    # A git hook sets GIT_DIR and its like, which name its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()
