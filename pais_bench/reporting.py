"""Which tables and figures does a study get? One of each report on the shelf."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pais_bench import plugins
from pais_bench.config import Study
from pais_bench.results import Results


class Report(Protocol):
    """Turn results into files: a table, or a figure and the numbers that it draws."""

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write the report of what is there so far, a half-finished grid too, into an existing folder."""
        ...


def write_reports(study: Study, results: Results, folder: Path) -> list[Path]:
    """Write every report into a folder, made where absent; give the paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    reports: list[Report] = [plugins.load("reports", name).Report() for name in plugins.names("reports")]
    return [path for report in reports for path in report.write(study, results, folder)]
