"""Draw every figure from the CSV beside it, so that it can be drawn again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
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
    """Write name.csv and draw its figures as .pdf and .png; captions has an entry for each figure.

    optional_columns: number columns whose cells may be empty, where a number is undefined.
    """

    text_columns: ClassVar[tuple[str, ...]]
    number_columns: ClassVar[tuple[str, ...]]
    optional_columns: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Return the plotted values in text_columns and number_columns; raise NothingToShow where there are none."""

    @abstractmethod
    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw every figure into a folder; return the paths.

        Raises NothingToShow where no point is of the study, unless empty panels can say so.
        """

    def captions_of(self, points: pd.DataFrame) -> Mapping[str, str]:
        """Return the caption of each figure of these points, by the stem of its files."""
        return self.captions

    def write(self, study: Study, results: Results, folder: Path) -> Section:
        """Write the CSV and the figures."""
        points = self.points(study, results)
        path = write_csv(folder / f"{self.name}.csv", points[[*self.text_columns, *self.number_columns]])
        files = (path, *self.draw(study, self._points(self._read(path)), folder))
        return Section(self.name, self.title, files, captions=self.captions_of(points), frame=points)

    def redraw(self, study: Study, csv: Path, folder: Path) -> list[Path]:
        """Draw the figures of a CSV that write() made, edited or not; raise BenchError where it is another one.

        Raises NothingToShow as draw() does.
        """
        cells = self._read(csv)
        self._require_numbers(csv, cells)
        return self.draw(study, self._points(cells), folder)

    def _read(self, csv: Path) -> pd.DataFrame:
        """Return the texts of the cells of a CSV, by the number of their line; raise BenchError where it is another."""
        try:
            # Lines without a cell are kept until rows are named by their number in the file.
            cells = pd.read_csv(csv, dtype=str, keep_default_na=False, na_values=[""], skip_blank_lines=False)
        except FileNotFoundError:
            raise BenchError(f"{csv}: no such file; `pais-bench report` writes it") from None
        except ValueError as error:
            raise BenchError(f"{csv}: not a CSV ({error}); `pais-bench report` writes it again") from error
        if missing := [name for name in (*self.text_columns, *self.number_columns) if name not in cells]:
            raise BenchError(f"{csv}: has no column '{missing[0]}'; take the {self.name}.csv of a report")
        return cells.set_axis(cells.index + 2).dropna(how="all")

    def _points(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Return the values of cells that _read() returned; those of number_columns are NaN where there is none."""
        numbers = {name: pd.to_numeric(cells[name], errors="coerce") for name in self.number_columns}
        texts = {name: cells[name].fillna("") for name in self.text_columns}
        return cells.assign(**numbers, **texts).reset_index(drop=True)

    def _require_numbers(self, csv: Path, cells: pd.DataFrame) -> None:
        """Raise BenchError that names line and column of the first cell that is no number of its kind.

        cells are those of _read(). A row of 0 folds is that of a method without a log.
        """
        points = self._points(cells).set_axis(cells.index)
        without_log = points["folds"] == 0 if "folds" in points else pd.Series(False, index=points.index)
        for name in self.number_columns:
            text, numbers = cells[name], points[name].astype(float)
            empty = text.isna() & ~without_log & (name not in self.optional_columns)
            wrong = empty | (text.notna() & ~np.isfinite(numbers)) | (name.endswith("_std") & (numbers < 0))
            if wrong.any():
                first = int(np.flatnonzero(wrong)[0])
                line, fault = wrong.index[first], "is empty" if empty.iloc[first] else f"has '{text.iloc[first]}'"
                kind = "number from 0 on" if name.endswith("_std") else "finite number"
                raise BenchError(f"{csv}: line {line} {fault} in column '{name}'; give a {kind}, or remove the line")
