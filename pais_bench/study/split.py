"""Name a set of labelled images and the noise of its labels. Options only; nothing is drawn here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pais_bench.study.base import CompactConfig, StrictConfig, each_once

IMPORTED = "imported"
"""The family whose splits are lists of the user."""

Percent = Annotated[float, Field(gt=0, le=100)]
Fold = Annotated[int, Field(ge=0, lt=2**32)]


class LabelNoise(CompactConfig):
    """Set the noise of the labelled images' labels; it depends on seed and annotation id alone, not on the method.

    imbalance: ratio of the most to the least frequent class, reached by removing images | missing, class_flip: percent
    of the instances that lose their annotation, or get another class | boundary_jitter: pixels by which a mask is moved
    and grown at most | coarse_polygons: pixels of the cells that a mask is rounded to. They act in this order.
    """

    imbalance: float | None = Field(default=None, gt=1)
    missing: float | None = Field(default=None, gt=0, lt=100)
    class_flip: Percent | None = None
    boundary_jitter: int | None = Field(default=None, ge=1)
    coarse_polygons: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _has_a_kind(self) -> LabelNoise:
        if not self.kinds:
            known = ", ".join(key for key in type(self).model_fields if key != "seed")
            raise ValueError(f"give at least one of {known}, or remove the key")
        return self

    @property
    def kinds(self) -> dict[str, float]:
        """Return the kinds that are set, in the order in which they act."""
        return {key: value for key, value in self.model_dump().items() if key != "seed"}

    @property
    def name(self) -> str:
        """Return the label in paths: classflip20, or missing10-classflip20-seed3."""
        parts = [f"{key.replace('_', '')}{value:g}" for key, value in self.kinds.items()]
        return "-".join(parts + ([f"seed{self.seed}"] if self.seed else []))


class SplitChoice(CompactConfig):
    """Name one set of labelled images."""

    family: str
    percent: Percent
    fold: Fold
    label_noise: LabelNoise | None = None

    @property
    def stem(self) -> str:
        """Return the part of a path that names percent, fold and label noise."""
        return f"{self.percent:g}pct-fold{self.fold}" + (f"-{self.label_noise.name}" if self.label_noise else "")


class SplitGrid(StrictConfig):
    """Name the sets of labelled images of a study; source, the published file of a family, changes no number."""

    family: str = "soft_teacher"
    percents: Annotated[tuple[Percent, ...], AfterValidator(each_once)] = Field(min_length=1)
    folds: Annotated[tuple[Fold, ...], AfterValidator(each_once)] = Field(default=(1,), min_length=1)
    source: Path | None = None
    label_noise: LabelNoise | None = None
