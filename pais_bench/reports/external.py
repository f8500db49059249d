"""Read the descriptions of predictions of other codebases: a YAML file each, beside a COCO results file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.study.base import StrictConfig, parse
from pais_bench.study.run import Label
from pais_bench.study.split import Fold, Percent
from pais_bench.study.study import Study
from pais_bench.study.yaml_file import read_yaml

UNKNOWN = "unknown"
"""The family of a split that is not known."""


class External(StrictConfig):
    """Describe predictions of another codebase; the keys of the YAML beside them.

    name: of its folder, unique in a study | network, method: the labels of its row | split_family: one of ours, or
    unknown | source: the origin of the predictions, as text | predictions: the COCO results file, relative to the YAML.
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
        """Return its folder below the results folder."""
        return Path("external", dataset, self.name)

    @property
    def description(self) -> dict[str, Any]:
        """Return the keys and values without the path of the predictions."""
        return self.model_dump(mode="json", exclude={"predictions"})


def read(path: Path, study: Study) -> External:
    """Read a description; raise BenchError that names the file and the key of anything wrong or not in the study."""
    try:
        values = read_yaml(path)
    except OSError as error:
        raise BenchError(f"{path}: cannot be read ({error.strerror}); describe the predictions there") from error
    if not isinstance(values, dict):
        raise BenchError(f"{path}: holds no mapping; give {', '.join(External.model_fields)}")
    description = parse(External, values, str(path))
    known = [*plugins.names("families"), UNKNOWN]
    if description.split_family not in known:
        raise BenchError(
            f"{path}: 'split_family': there is no '{description.split_family}'; choose one of {', '.join(known)}"
        )
    if description.percent not in study.split.percents:
        percents = ", ".join(f"{percent:g}" for percent in study.split.percents)
        raise BenchError(
            f"{path}: 'percent': {description.percent:g} is not in study '{study.name}'; it has {percents}"
        )
    return description.model_copy(update={"predictions": path.parent / description.predictions.expanduser()})


def read_all(study: Study) -> list[External]:
    """Read every description that a study lists; raise BenchError where two have one name, or are one training."""
    descriptions = [read(path, study) for path in study.external]
    names = [description.name for description in descriptions]
    for path, name in zip(study.external, names, strict=True):
        if names.count(name) > 1:
            raise BenchError(f"{path}: 'name': study '{study.name}' names '{name}' twice; give each its own")
    places: dict[tuple[object, ...], str] = {}
    for path, one in zip(study.external, descriptions, strict=True):
        place = (one.network, one.method, one.split_family, one.percent, one.fold)
        if (other := places.setdefault(place, one.name)) != one.name:
            raise BenchError(
                f"{path}: 'fold': '{other}' is fold {one.fold} of the same network, method, split family and percent; "
                f"give it a fold or a method of its own"
            )
    return descriptions
