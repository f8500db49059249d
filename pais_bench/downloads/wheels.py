"""Find the wheels of a lock for another machine: uv asks the index, and nothing is downloaded yet."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from pais_bench.downloads.table import Download
from pais_bench.errors import BenchError

GLIBC = "2_28"
"""Of manylinux: the oldest that the locked torch runs on."""


def locked_files(uv: Path, lock: Path, python: str, machine: str) -> list[Download]:
    """Return a file for each package of a lock that a Linux with this Python, as 3.11, and machine installs.

    It is a wheel, or the source where the lock has no wheel for that machine, of a sha256 that the lock names. Raises
    BenchError where uv reaches no index, the index does not tell sizes, or the lock has no file for the machine.
    """
    import tomllib  # of Python 3.11, and commands that need no lock run with 3.10

    with TemporaryDirectory() as folder:
        output = Path(folder, "pylock.toml")
        command: list[str | Path] = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--no-deps",
            "--generate-hashes",
            "--format",
            "pylock.toml",
        ]
        command += ["--python-platform", f"{machine}-manylinux_{GLIBC}", "--python-version", python, "-o", output, lock]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise BenchError(
                f"{lock}: uv cannot find its packages for Python {python} on {machine} ({reason}); try again"
            )
        listed = tomllib.loads(output.read_text(encoding="utf-8"))
    hashes = lock.read_text(encoding="utf-8")
    return [_choose(package, lock, hashes, f"Python {python} on {machine}") for package in listed.get("packages", [])]


def _choose(package: dict[str, Any], lock: Path, hashes: str, target: str) -> Download:
    """Return the first wheel of a package, those of one platform before those of any, or else its source."""
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    for file in files:
        sha256 = file["hashes"].get("sha256", "")
        if sha256 and f"--hash=sha256:{sha256}" in hashes:
            name = unquote(urlsplit(file["url"]).path.rsplit("/", 1)[1])
            if "size" not in file:
                raise BenchError(
                    f"{name}: the package index does not tell its size; name another index in uv's settings"
                )
            return Download(name=name, url=file["url"], size=file["size"], sha256=sha256)
    raise BenchError(f"{lock}: has no file of {package['name']} for {target}; bundle for another --python or --machine")
