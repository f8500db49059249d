"""Read the names of YOLO's classes, of a data set's YAML file or of text files with one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pais_bench.converters.formats.base import read_lines
from pais_bench.errors import BenchError


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping of a YAML file, empty where it holds none."""
    try:
        content = yaml.safe_load("\n".join(read_lines(path)))
    except yaml.YAMLError as error:
        raise BenchError(f"{path}: not valid YAML ({error}); correct it") from error
    return content if isinstance(content, dict) else {}


def read_names(path: Path) -> dict[int, str]:
    """Return the names of a YAML file, or of a text file, one a line, by category id."""
    if path.suffix not in (".yaml", ".yml"):
        return class_names("\n".join(read_lines(path)).rstrip().split("\n"), path)
    content = read_mapping(path)
    if "names" not in content:
        raise BenchError(f"{path}: has no names; give the data.yaml that the network was trained with")
    return class_names(content["names"], path)


def read_same_names(paths: Sequence[Path]) -> dict[int, str]:
    """Return the names of all files by category id; raise BenchError where two name a class differently."""
    known: dict[int, tuple[str, Path]] = {}
    for path in paths:
        for number, name in read_names(path).items():
            earlier, other = known.setdefault(number, (name, path))
            if earlier != name:
                raise BenchError(
                    f"{path}: class {number - 1} is '{name}', but '{earlier}' in {other}; number the "
                    f"classes of all labels alike, and leave one such file"
                )
    return {number: name for number, (name, _) in known.items()}


def class_names(names: Any, path: Path) -> dict[int, str]:
    """Return the names by category id, which is YOLO's index and one, as COCO's ids begin at 1.

    Raises BenchError for a name that is no text, as YAML reads a bare `no`, an empty one, and one that is there twice.
    """
    try:
        pairs = dict(enumerate(names)) if isinstance(names, list) else {int(key): name for key, name in names.items()}
    except (AttributeError, TypeError, ValueError):
        raise BenchError(
            f"{path}: names is no list of class names, nor a mapping from their numbers; correct it"
        ) from None
    known: dict[str, int] = {}
    for number, name in sorted(pairs.items()):
        if not isinstance(name, str) or not name.strip():
            raise BenchError(f"{path}: class {number} has the name {name!r}; give it a name, in quotes in YAML")
        if (other := known.setdefault(name.strip(), number)) != number:
            raise BenchError(
                f"{path}: class {number} has the name '{name.strip()}' of class {other}; give every class its own"
            )
    return {number + 1: name for name, number in known.items()}
