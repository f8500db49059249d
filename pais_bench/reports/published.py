"""Read the numbers of papers from published.yaml, cell by cell, each with its source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from pais_bench.study.base import StrictConfig, parse

LEDGER = Path(__file__).parent / "published.yaml"


class Cell(StrictConfig):
    """Hold one published mask AP in percent, or AP at IoU 0.50, its source, and how well it is verified."""

    percent: float = Field(gt=0, le=100)
    metric: Literal["AP", "AP50"] = "AP"
    ap: float = Field(ge=0, le=100)
    tag: Literal["verified", "secondary", "unverified"]
    source: str = Field(min_length=1)


class Row(StrictConfig):
    """Hold the numbers of one method on one dataset with one network."""

    method: str
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


def read(path: Path = LEDGER) -> tuple[Row, ...]:
    """Read the ledger; raise BenchError that names the file and the key of anything unknown or out of range."""
    return parse(Published, yaml.safe_load(path.read_text(encoding="utf-8")), str(path)).rows


def normalized(name: str) -> str:
    """Return the name of a method, network or dataset without the characters in which spellings differ."""
    return re.sub("[^a-z0-9]", "", name.lower())
