"""What did another codebase predict? A COCO results file, and a YAML that says what it is; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from pais_bench import plugins
from pais_bench.config import Label, Study, parse
from pais_bench.frozen import Frozen
from pais_bench.split_choice import Fold, Percent
from pais_bench.types import BenchError

UNKNOWN = "unknown"
"""The family of a split that nobody told."""


class External(Frozen):
    """Describe predictions of another codebase; the keys of the YAML beside them.

    name is that of its folder and unique in a study | network, method: how its row is called | split_family: one of
    ours, or unknown | source: where the predictions come from, in words | predictions: the COCO results file, relative
    to the YAML.
    """

    name: Label
    network: Label
    method: Label
    percent: Percent
    fold: Fold
    split_family: str
    source: str = Field(min_length=1)
    predictions: Path

    def folder(self, dataset: str) -> Path:
        """Give its folder below the results folder."""
        return Path("external", dataset, self.name)

    @property
    def told(self) -> dict[str, Any]:
        """Give what its numbers rest on, but for the predictions themselves."""
        return self.model_dump(mode="json", exclude={"predictions"})


def read(path: Path, study: Study) -> External:
    """Read a description; raise BenchError that names the file and the key of what is wrong or not in the study."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); describe the predictions there") from error
    except yaml.YAMLError as error:
        raise BenchError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise BenchError(f"{path}: holds no mapping; give {', '.join(External.model_fields)}")
    found = parse(External, values, str(path))
    known = [*plugins.names("families"), UNKNOWN]
    if found.split_family not in known:
        raise BenchError(
            f"{path}: 'split_family': there is no '{found.split_family}'; choose one of {', '.join(known)}"
        )
    if found.percent not in study.split.percents:
        told = ", ".join(f"{percent:g}" for percent in study.split.percents)
        raise BenchError(f"{path}: 'percent': {found.percent:g} is not in study '{study.name}'; it has {told}")
    return found.model_copy(update={"predictions": path.parent / found.predictions.expanduser()})


def read_all(study: Study) -> list[External]:
    """Read every description that a study names; raise BenchError where two have one name."""
    found = [read(path, study) for path in study.external]
    names = [one.name for one in found]
    for path, name in zip(study.external, names, strict=True):
        if names.count(name) > 1:
            raise BenchError(f"{path}: 'name': study '{study.name}' names '{name}' twice; give each its own")
    return found
