"""Read the folder of a SAM or SAM 2 as transformers writes it: config.json and model.safetensors."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pais_bench.errors import BenchError
from pais_bench.optional_packages import import_package

CONFIG, WEIGHTS = "config.json", "model.safetensors"
KINDS = ("sam", "sam2", "sam2_video")
"""What the configuration calls SAM and SAM 2; the files of SAM 2 hold its memory for videos too, which is not used."""
MEASURED = "the encoder of Hiera-tiny (31 M) took 32 s an image of 1024 px on two busy CPU cores, no GPU was measured"


def describe_cost(folder: Path, images: int) -> str:
    """Return in words the weights of a SAM and how many images it encodes, or what is missing."""
    try:
        file = existing(folder) / WEIGHTS
        with file.open("rb") as content:
            header = json.loads(content.read(int.from_bytes(content.read(8), "little")))
        weights = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except BenchError as error:
        return str(error)
    except (OSError, ValueError, OverflowError, MemoryError, KeyError, TypeError, AttributeError):
        return f"{file}: not a file of safetensors; download it again"
    return f"SAM of {weights / 1e6:.1f} M weights encodes {images} images: {MEASURED}"


def existing(folder: Path) -> Path:
    """Return the folder of a SAM, ~ resolved; raise BenchError where it or one of its files is missing."""
    path = folder.expanduser()
    missing = [name for name in (CONFIG, WEIGHTS) if not (path / name).is_file()]
    if missing:
        what = f"holds no {missing[0]}" if path.is_dir() else "no such folder"
        raise BenchError(
            f"{path}: {what}; `sam` names the folder of a SAM, which `hf download facebook/sam2-hiera-large "
            f"--local-dir {path}` gets; others are facebook/sam-vit-base, -large and -huge"
        )
    return path


def load_sam(folder: Path) -> Any:
    """Return the network of a folder, frozen and in single precision; nothing is downloaded.

    Raises BenchError where transformers, a file or a weight is missing, and for a network of another kind.
    """
    path = existing(folder)
    try:
        kind = json.loads((path / CONFIG).read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path / CONFIG}: not the configuration of a network; download it again") from error
    if kind not in KINDS:
        raise BenchError(f"{path}: holds a network of the kind '{kind}'; `sam` names the folder of SAM or SAM 2")
    transformers = import_package("transformers", "install the extra 'pais-bench[sam]' there", "sam: ")
    transformers.utils.logging.disable_progress_bar()
    load = transformers.AutoModelForMaskGeneration.from_pretrained
    try:
        network, report = load(str(path), local_files_only=True, use_safetensors=True, output_loading_info=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BenchError(f"{path}: transformers cannot load it ({reason}); download it again") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        first = sorted(map(str, report["missing_keys"] or report["mismatched_keys"]))[0]
        raise BenchError(f"{path / WEIGHTS}: lacks weights of the network, such as {first}; download it again")
    return network.float().eval().requires_grad_(False)
