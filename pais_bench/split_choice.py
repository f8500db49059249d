"""Which set of labelled images is meant, and what is done to its annotations? Options only; nothing is drawn here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from pais_bench.frozen import Frozen, Sparse

IMPORTED = "imported"
"""The family whose splits are lists of the user."""

Percent = Annotated[float, Field(gt=0, le=100)]
Fold = Annotated[int, Field(ge=0, lt=2**32)]


class Corruption(Sparse):
    """Say how the labels of the labelled images are spoilt; what is spoilt depends on seed and annotation id alone.

    long_tail: ratio of the most to the least frequent class | drop, flip: percent of the instances that lose their
    annotation, or get another class | jitter: pixels by which a mask is moved and grown at most | coarsen: pixels of
    the cells that a mask is rounded to. They act in this order.
    """

    long_tail: float | None = Field(default=None, gt=1)
    drop: float | None = Field(default=None, gt=0, lt=100)
    flip: Percent | None = None
    jitter: int | None = Field(default=None, ge=1)
    coarsen: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _is_one(self) -> Corruption:
        if not self.kinds:
            known = ", ".join(key for key in type(self).model_fields if key != "seed")
            raise ValueError(f"give at least one of {known}, or remove the key")
        return self

    @property
    def kinds(self) -> dict[str, float]:
        """Give the kinds that are set, in the order in which they act."""
        return {key: value for key, value in self.model_dump().items() if key != "seed"}

    @property
    def name(self) -> str:
        """Give the label in paths: flip20, or drop10-flip20-seed3."""
        parts = [f"{key.replace('_', '')}{value:g}" for key, value in self.kinds.items()]
        return "-".join(parts + ([f"seed{self.seed}"] if self.seed else []))


class SplitChoice(Sparse):
    """Name one set of labelled images."""

    family: str
    percent: Percent
    fold: Fold
    corruption: Corruption | None = None

    @property
    def stem(self) -> str:
        """Give the part of a path that tells percent, fold and corruption."""
        return f"{self.percent:g}pct-fold{self.fold}" + (f"-{self.corruption.name}" if self.corruption else "")


class SplitGrid(Frozen):
    """Name the sets of labelled images of a study; source, the published file of a family, changes no number."""

    family: str = "soft_teacher"
    percents: tuple[Percent, ...] = Field(min_length=1)
    folds: tuple[Fold, ...] = Field(default=(1,), min_length=1)
    source: Path | None = None
    corruption: Corruption | None = None
