"""How does a figure come from numbers, and come from them again? Every figure is drawn from the CSV beside it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pandas as pd

from pais_bench.config import Study
from pais_bench.reports._style import write_csv
from pais_bench.results import Results
from pais_bench.types import BenchError


class FigureReport(ABC):
    """Write a CSV and draw its figures, .pdf and .png.

    stem names the CSV | texts are its columns that hold text, numbers those that hold numbers | figures: what a reader
    needs to know of each figure, by its stem.
    """

    stem: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]
    numbers: ClassVar[tuple[str, ...]]
    figures: ClassVar[Mapping[str, str]]

    @abstractmethod
    def points(self, study: Study, results: Results) -> pd.DataFrame:
        """Give what is drawn, a column for each of texts and numbers; raise LeftOut where there is nothing to draw."""

    @abstractmethod
    def draw(self, study: Study, points: pd.DataFrame, folder: Path) -> list[Path]:
        """Draw every figure into a folder; give the paths."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write the CSV and what is drawn from it."""
        points = self.points(study, results)
        path = write_csv(folder / f"{self.stem}.csv", points[[*self.texts, *self.numbers]])
        return [path, *self.redraw(study, path, folder)]

    def redraw(self, study: Study, csv: Path, folder: Path) -> list[Path]:
        """Draw the figures of a CSV that write() made, edited or not; raise BenchError where it is another one."""
        try:
            points = pd.read_csv(csv, dtype=dict.fromkeys(self.texts, str), keep_default_na=False, na_values=[""])
            points = points.astype({name: float for name in self.numbers if name in points})
        except FileNotFoundError:
            raise BenchError(f"{csv}: no such file; `pais-bench report` writes it") from None
        except ValueError as error:
            raise BenchError(f"{csv}: not a CSV of numbers ({error}); `pais-bench report` writes it again") from error
        if missing := [name for name in (*self.texts, *self.numbers) if name not in points]:
            raise BenchError(f"{csv}: has no column '{missing[0]}'; take the {self.stem}.csv of a report")
        points[list(self.texts)] = points[list(self.texts)].fillna("")
        return self.draw(study, points, folder)
