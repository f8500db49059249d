"""Define what a report is, and the section of the page that it fills."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from pais_bench.reports.results import Results
from pais_bench.study.study import Study

if TYPE_CHECKING:
    from pais_bench.reports.chart import Chart, Gallery
    from pais_bench.reports.table import Table


@dataclass(frozen=True)
class Section:
    """Hold the files and the table that a report wrote, or the reason why it wrote nothing.

    captions: those of the figures, by the stem of their files | reason: why there is nothing to show | failure: the
    error that ended the report, or the making of its charts alone, where it has files | frame: the numbers of its
    table or figures | charts: the interactive figures, by the stem of the files that show the same.
    """

    name: str
    title: str
    files: tuple[Path, ...] = ()
    table: Table | None = None
    captions: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    failure: str = ""
    frame: pd.DataFrame | None = None
    charts: Mapping[str, Chart | Gallery] = field(default_factory=dict)


class Report(ABC):
    """Turn results into files: a table, or figures and the numbers that they plot."""

    title: ClassVar[str]
    captions: ClassVar[Mapping[str, str]] = {}

    @property
    def name(self) -> str:
        """Return the name of the report, that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def write(self, study: Study, results: Results, folder: Path) -> Section:
        """Write the report of the present results, of an unfinished grid too, into an existing folder.

        Raises NothingToShow where the results have nothing for it.
        """

    def charts(self, study: Study, results: Results, points: pd.DataFrame) -> Mapping[str, Chart | Gallery]:
        """Return the interactive figures of the frame of its section, by the stem of the files that show the same."""
        return {}
