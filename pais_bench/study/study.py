"""Describe a study: a grid of runs and what all of it shares, as data and nothing else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pais_bench import plugins
from pais_bench.study.base import StrictConfig, each_once
from pais_bench.study.resources import Resources, Rule
from pais_bench.study.run import (
    InputOptions,
    Label,
    MethodChoice,
    ModelCheckpoint,
    NetworkChoice,
    Options,
    Run,
    Training,
)
from pais_bench.study.split import SplitChoice, SplitGrid


class DatasetChoice(StrictConfig):
    """Name a dataset plugin. label names its folder; root, where the raw data lies, changes no number."""

    name: str
    label: Label
    root: Path | None = None
    options: Options = {}

    @model_validator(mode="before")
    @classmethod
    def _label_is_the_name(cls, values: Any) -> Any:
        return {"label": values.get("name"), **values} if isinstance(values, dict) else values


Name = Annotated[str, BeforeValidator(lambda name: name or "")]
"""Of a plugin; null and nothing are the label of the entry."""


class StudyNetwork(StrictConfig):
    """Describe one network of a study; name defaults to its key, training overrides keys of the study's training.

    methods are the ones that train it: all where none are named.
    """

    backend: str
    name: Name = ""
    options: Options = {}
    training: Options = {}
    methods: Annotated[tuple[str, ...] | None, AfterValidator(each_once)] = None


class StudyMethod(StrictConfig):
    """Describe one method of a study; name defaults to its key, training overrides keys of the network's training.

    teacher is the label of the method whose trained network, of the same split, gives the pseudo-labels.
    """

    name: Name = ""
    options: Options = {}
    training: Options = {}
    teacher: str | None = None


class Reported(StrictConfig):
    """Set whose numbers the tables print."""

    model: Literal["teacher", "student"] = "teacher"
    checkpoint: Literal["last", "best"] = "last"


class Study(StrictConfig):
    """Hold a study file: the grid dataset x percents x folds x networks x methods, and what all of it shares.

    note is a sentence that the main table ends with. report says which checkpoint the tables print, also_evaluate which
    others are evaluated beside it. external lists the descriptions of other codebases' predictions
    (reports/external.py), which become rows of the tables.
    """

    name: Label
    title: str = ""
    note: str = ""
    dataset: DatasetChoice
    split: SplitGrid
    input: InputOptions = InputOptions()
    training: Training = Training()
    networks: dict[Label, StudyNetwork] = Field(min_length=1)
    methods: dict[Label, StudyMethod] = Field(min_length=1)
    report: Reported = Reported()
    also_evaluate: tuple[ModelCheckpoint, ...] = ()
    metrics: Annotated[tuple[Label, ...], AfterValidator(each_once)] = ("coco",)
    external: tuple[Path, ...] = ()
    resources: dict[Rule, Resources] = {}

    @field_validator("networks", "methods")
    @classmethod
    def _name_is_the_label(cls, grid: dict[str, Any]) -> dict[str, Any]:
        return {label: one if one.name else one.model_copy(update={"name": label}) for label, one in grid.items()}

    @property
    def checkpoints(self) -> tuple[ModelCheckpoint, ...]:
        """Return the checkpoints that predict, the printed one first."""
        printed: ModelCheckpoint = f"{self.report.model}-{self.report.checkpoint}"  # type: ignore[assignment]
        return tuple(dict.fromkeys((printed, *self.also_evaluate)))

    @property
    def best_models(self) -> list[str]:
        """Return the models, teacher and student, whose checkpoint at the best evaluation a training keeps."""
        return [checkpoint.removesuffix("-best") for checkpoint in self.checkpoints if checkpoint.endswith("-best")]

    @property
    def printed(self) -> str:
        """Return which checkpoint is printed, in the words of a caption."""
        model = self.report.model
        return model if self.report.checkpoint == "last" else f"{model} at its best evaluation"

    def methods_of(self, network: str) -> list[str]:
        """Return the labels of the methods that train a network."""
        return list(self.networks[network].methods or self.methods)

    def cells(self) -> list[tuple[str, str, float]]:
        """Return network, method and percent of each cell of the grid, in this order."""
        return [
            (network, method, percent)
            for network in self.networks
            for method in self.methods_of(network)
            for percent in self.split.percents
        ]

    def runs(self) -> list[Run]:
        """Expand the grid, in the order percent, fold, network, method."""
        return [
            self.run(percent, fold, network, method)
            for percent in self.split.percents
            for fold in self.split.folds
            for network in self.networks
            for method in self.methods_of(network)
        ]

    def shared_burn_ins(self) -> dict[PurePosixPath, list[Run]]:
        """Return the runs that begin with one burn-in, two or more, by the folder of the burn-in.

        Where the best checkpoint is kept, a burn-in has to end with an evaluation that its runs do too.
        """
        sharing: dict[PurePosixPath, list[Run]] = {}
        for run in self.runs():
            if run.burn_in and not (self.best_models and run.training.burn_in % run.training.evaluate_every):
                sharing.setdefault(run.burn_in.folder, []).append(run)
        return {folder: runs for folder, runs in sharing.items() if len(runs) > 1}

    def run(self, percent: float, fold: int, network_label: str, method_label: str) -> Run:
        """Return one run of the grid."""
        network, method = self.networks[network_label], self.methods[method_label]
        required = plugins.load("methods", method.name).Method.network_options
        return Run(
            dataset=self.dataset.label,
            dataset_name=self.dataset.name,
            dataset_options=self.dataset.options,
            split=SplitChoice(family=self.split.family, percent=percent, fold=fold, label_noise=self.split.label_noise),
            network=NetworkChoice(
                backend=network.backend,
                name=network.name,
                label=network_label,
                options={**network.options, **required},
            ),
            method=MethodChoice(name=method.name, label=method_label, options=method.options),
            input=self.input,
            training=Training(**{**self.training.model_dump(), **network.training, **method.training}),
            teacher=self.run(percent, fold, network_label, method.teacher) if method.teacher else None,
        )
