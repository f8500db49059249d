"""Draw every figure from the CSV beside it, so that it can be drawn again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import pandas as pd

from pais_bench.errors import BenchError, NothingToShow
from pais_bench.reports.report import Report, Section
from pais_bench.reports.results import Results
from pais_bench.reports.style import write_csv
from pais_bench.study.study import Study


def shown(labels: Iterable[str], column: pd.Series) -> list[str]:
    """Return the labels that a column of points has; raise NothingToShow where it has none of them."""
    present = [label for label in labels if (column == label).any()]
    if not present:
        raise NothingToShow(f"no row has a {column.name} of the study")
    return present


class FigureReport(Report):
    """Write name.csv and draw its figures as .pdf and .png; captions has an entry for each figure."""

    text_columns: ClassVar[tuple[str, ...]]
    number_columns: ClassVar[tuple[str, ...]]

    @abstractmethod
    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the plotted values in text_columns and number_columns; raise NothingToShow where there are none."""

    @abstractmethod
    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw every figure into a folder; return the paths.

        Raises NothingToShow where no point is of the study, unless empty panels can say so.
        """

    def write(self, study: Study, results: Results, folder: Path) -> Section:
        """Write the CSV and the figures."""
        points = self.points(study, results)
        path = write_csv(folder / f"{self.name}.csv", points[[*self.text_columns, *self.number_columns]])
        files = (path, *self.redraw(study, path, folder))
        return Section(self.name, self.title, files, captions=self.captions, frame=points)

    def redraw(self, study: Study, csv: Path, folder: Path) -> list[Path]:
        """Draw the figures of a CSV that write() made, edited or not; raise BenchError where it is another one.

        Raises NothingToShow as draw() does.
        """
        texts, numbers = list(self.text_columns), self.number_columns
        try:
            points = pd.read_csv(csv, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
            points = points.astype({name: float for name in numbers if name in points})
        except FileNotFoundError:
            raise BenchError(f"{csv}: no such file; `pais-bench report` writes it") from None
        except ValueError as error:
            raise BenchError(f"{csv}: not a CSV of numbers ({error}); `pais-bench report` writes it again") from error
        if missing := [name for name in (*texts, *numbers) if name not in points]:
            raise BenchError(f"{csv}: has no column '{missing[0]}'; take the {self.name}.csv of a report")
        points[texts] = points[texts].fillna("")
        return self.draw(study, points, folder)
