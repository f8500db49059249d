"""What is a study, and which runs is it? A study is data: a grid, its options, and nothing else; imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from pais_bench import plugins
from pais_bench.demands import Demand, Rule
from pais_bench.frozen import Frozen as Frozen
from pais_bench.split_choice import SplitChoice, SplitGrid
from pais_bench.types import BenchError

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")]
Steps = Annotated[int, Field(ge=1)]
Options = dict[str, Any]
Weights = Literal["teacher-last", "student-last", "teacher-best", "student-best"]
"""Which network of a run predicts: a model, after its last step or at its best evaluation."""
Model = TypeVar("Model", bound=BaseModel)


class DatasetChoice(Frozen):
    """Name a dataset plugin. label names its folder; root, where the raw data lies, changes no number."""

    name: str
    label: Label
    root: Path | None = None
    options: Options = {}

    @model_validator(mode="before")
    @classmethod
    def _label_is_the_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"label": values.get("name"), **values}


class Views(Frozen):
    """Set the sizes of the views, in pixels: the shorter side is drawn from short, the longer is at most long."""

    short: tuple[int, int] = (400, 1200)
    long: int = Field(default=1333, ge=16)
    test_short: int = Field(default=800, ge=16)
    test_long: int = Field(default=1333, ge=16)
    flip: float = Field(default=0.5, ge=0, le=1)


class Training(Frozen):
    """Set the one training loop. Batches are totals over all ranks; the defaults are PAIS on K-Net [paper.md 2.1]."""

    steps: Steps = 180_000
    labelled_batch: int = Field(default=4, ge=1)
    unlabelled_batch: int = Field(default=8, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    backbone_lr_factor: float = Field(default=0.25, ge=0)
    clip: float | None = Field(default=1.0, gt=0)
    warmup_steps: int = Field(default=1000, ge=0)
    warmup_factor: float = Field(default=0.001, gt=0, le=1)
    milestones: tuple[Steps, ...] = (120_000, 160_000)
    decay: float = Field(default=0.1, gt=0, le=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    burn_in: int = Field(default=0, ge=0)
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    log_every: Steps = 50
    evaluate_every: Steps = 8000
    evaluate_images: int | None = Field(default=None, ge=1)
    checkpoint_every: Steps = 2000


class NetworkChoice(Frozen):
    """Name a network plugin and its options."""

    backend: str
    name: str
    label: Label
    options: Options = {}


class MethodChoice(Frozen):
    """Name a method plugin and its options."""

    name: str
    label: Label
    options: Options = {}


class Run(Frozen):
    """Hold exactly what may change a number of one training."""

    dataset: Label
    dataset_name: str
    dataset_options: Options
    split: SplitChoice
    network: NetworkChoice
    method: MethodChoice
    views: Views
    training: Training
    model: Literal["teacher", "student"] = "teacher"
    """Which of its models a run lends to one that it teaches; which one is reported is the study's affair."""
    teacher: Run | None = None
    """The run whose trained network gives pseudo-labels, for methods that want one."""

    @property
    def seed(self) -> int:
        """Give the seed of every draw: the fold."""
        return self.split.fold

    @property
    def digest(self) -> str:
        """Give 8 hex digits that change with any value of the run."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    @property
    def folder(self) -> PurePosixPath:
        """Give the folder of the run below the results folder.

        The digest keeps two studies that call different options by one name from overwriting each other's training.
        """
        network = f"{self.network.backend}-{self.network.label}"
        return PurePosixPath("runs", self.dataset, self.split.stem, network, f"{self.method.label}-{self.digest}")


class StudyNetwork(Frozen):
    """Say one network of a study; name defaults to its key, training overrides keys of the study's training.

    methods are the ones that train it: all where none are named.
    """

    backend: str
    name: str | None = None
    options: Options = {}
    training: Options = {}
    methods: tuple[str, ...] | None = None


class StudyMethod(Frozen):
    """Say one method of a study; name defaults to its key, training overrides keys of the network's training.

    teacher is the label of the method whose trained network, of the same split, gives the pseudo-labels.
    """

    name: str | None = None
    options: Options = {}
    training: Options = {}
    teacher: str | None = None


class Study(Frozen):
    """Hold a study file: the grid dataset x percents x folds x networks x methods, and what all of it shares.

    model and checkpoint say whose numbers the tables print; also, which other weights are measured beside them.
    external lists the descriptions of other codebases' predictions (external.py), which become rows of the tables.
    """

    name: Label
    title: str = ""
    dataset: DatasetChoice
    split: SplitGrid
    views: Views = Views()
    training: Training = Training()
    networks: dict[Label, StudyNetwork] = Field(min_length=1)
    methods: dict[Label, StudyMethod] = Field(min_length=1)
    model: Literal["teacher", "student"] = "teacher"
    checkpoint: Literal["last", "best"] = "last"
    also: tuple[Weights, ...] = ()
    metrics: tuple[Label, ...] = ("coco",)
    external: tuple[Path, ...] = ()
    resources: dict[Rule, Demand] = {}

    @property
    def weights(self) -> tuple[Weights, ...]:
        """Give the weights that predict, the printed ones first."""
        printed: Weights = f"{self.model}-{self.checkpoint}"  # type: ignore[assignment]
        return tuple(dict.fromkeys((printed, *self.also)))

    @property
    def told(self) -> str:
        """Give what is printed, in the words of a caption."""
        return self.model if self.checkpoint == "last" else f"{self.model} at its best evaluation"

    def runs(self) -> list[Run]:
        """Expand the grid, in the order percent, fold, network, method."""
        return [
            self.run(percent, fold, network, method)
            for percent in self.split.percents
            for fold in self.split.folds
            for network, chosen in self.networks.items()
            for method in chosen.methods or self.methods
        ]

    def run(self, percent: float, fold: int, network: str, method: str) -> Run:
        """Give one run of the grid by its labels."""
        chosen, told = self.networks[network], self.methods[method]
        asked = getattr(plugins.load("methods", told.name or method).Method, "network", {})
        return Run(
            dataset=self.dataset.label,
            dataset_name=self.dataset.name,
            dataset_options=self.dataset.options,
            split=SplitChoice(family=self.split.family, percent=percent, fold=fold, corruption=self.split.corruption),
            network=NetworkChoice(
                backend=chosen.backend, name=chosen.name or network, label=network, options=chosen.options | asked
            ),
            method=MethodChoice(name=told.name or method, label=method, options=told.options),
            views=self.views,
            training=Training(**{**self.training.model_dump(), **chosen.training, **told.training}),
            teacher=self.run(percent, fold, network, told.teacher) if told.teacher else None,
        )


def suffix(weights: Weights) -> str:
    """Give what the names of the weights' files end in: nothing for the teacher after its last step."""
    return "" if weights == "teacher-last" else f"-{weights}"


def parse(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Validate values against a model; raise one BenchError of all faults, each by its key."""
    try:
        return model(**values)
    except ValidationError as error:
        raise BenchError(f"{source}: {'; '.join(_sentences(error, model))}") from error


def _sentences(error: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or model.__name__
        if fault["type"] == "extra_forbidden":
            known = f"; known keys here: {', '.join(model.model_fields)}" if len(fault["loc"]) == 1 else ""
            yield f"unknown key '{key}'{known}"
        elif fault["type"] == "missing":
            yield f"missing key '{key}'"
        else:
            yield f"'{key}': {fault['msg'][0].lower()}{fault['msg'][1:]}, got {json.dumps(fault['input'], default=str)}"
