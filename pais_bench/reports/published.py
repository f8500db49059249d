"""Read the numbers of papers from published.yaml, cell by cell, each with its source."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from pais_bench.errors import NothingToShow
from pais_bench.study.base import StrictConfig, parse
from pais_bench.study.study import Study
from pais_bench.study.yaml_file import read_yaml

LEDGER = Path(__file__).parent / "published.yaml"


class Cell(StrictConfig):
    """Hold one published mask AP in percent, or AP at IoU 0.50, its source, and how well it is verified."""

    percent: float = Field(gt=0, le=100)
    metric: Literal["AP", "AP50"] = "AP"
    ap: float = Field(ge=0, le=100)
    tag: Literal["verified", "secondary", "unverified"]
    source: str = Field(min_length=1)


class Row(StrictConfig):
    """Hold the numbers of one method on one dataset with one network; plugin is its name here, where it is another."""

    method: str
    plugin: str = ""
    detector: str
    backbone: str
    dataset: Literal["coco", "cityscapes", "ade20k"]
    split_family: Literal["soft_teacher", "noisy_boundaries", "s4m_cityscapes", "unseeded", "unknown"]
    protocol: Literal["coco", "cityscapes"]
    cells: tuple[Cell, ...] = Field(min_length=1)


MARKS = {"verified": "", "secondary": "*", "unverified": "?"}
"""What follows a number in tables and figures, by its tag."""
LEGEND = (
    "Published value without a mark: read in the paper's own abstract or page; *: in a later paper's table or on a "
    "mirror; ?: unverified, recalled without a source."
)


class Published(StrictConfig):
    """Hold every row of the ledger."""

    rows: tuple[Row, ...]


@cache
def read(path: Path = LEDGER) -> tuple[Row, ...]:
    """Read the ledger; raise BenchError that names the file and the key of anything unknown or out of range."""
    return parse(Published, read_yaml(path), str(path)).rows


def has_numbers_of(study: Study) -> bool:
    """Return whether a paper has numbers of the study's data; a label other than the plugin's name is own data."""
    return study.dataset.label == study.dataset.name and any(row.dataset == study.dataset.name for row in read())


def read_for(study: Study) -> tuple[Row, ...]:
    """Read the ledger; raise NothingToShow for a study of data that no paper has, which compares with none of them."""
    if not has_numbers_of(study):
        raise NothingToShow(f"no paper of the ledger has numbers of {study.dataset.label}")
    return read()


def labels_of(study: Study, method: str) -> list[str]:
    """Return the labels of the study's methods that are one of a paper or another codebase, in any spelling."""
    return [label for label, own in study.methods.items() if normalized(own.name) == normalized(method)]


def normalized(name: str) -> str:
    """Return the name of a method, network or dataset without the characters in which spellings differ."""
    return re.sub("[^a-z0-9]", "", name.lower())
