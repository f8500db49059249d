"""Which tables and figures does a study get? One of each report on the shelf, and a page that shows them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pais_bench import page, plugins
from pais_bench.config import Study
from pais_bench.results import Results
from pais_bench.types import LeftOut


class Report(Protocol):
    """Turn results into files: a table, or figures and the numbers that they draw.

    A report of figures may also have `figures`, a caption by the stem of each.
    """

    def write(self, study: Study, results: Results, folder: Path) -> list[Path]:
        """Write the report of what is there so far, a half-finished grid too, into an existing folder.

        Raises LeftOut where what is there has nothing of the kind.
        """
        ...


def write_reports(study: Study, results: Results, folder: Path, source: str = "") -> list[Path]:
    """Write every report into a folder, made where absent, and report.html; give the paths of the files.

    source is what a command line calls the study. Files that an earlier call wrote for a report that is now left out
    are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    sections = []
    for name in plugins.names("reports"):
        plugin = plugins.load("reports", name)
        report: Report = plugin.Report()
        captions: Mapping[str, str] = getattr(report, "figures", {})
        try:
            files, reason = report.write(study, results, folder), ""
        except LeftOut as error:
            files, reason = [], str(error)
            for path in (folder / f"{stem}.{kind}" for stem in (name, *captions) for kind in ("csv", "pdf", "png")):
                path.unlink(missing_ok=True)
        written += files
        question = (plugin.__doc__ or "").strip().splitlines()[0]
        sections.append(page.Section(name, question, tuple(files), captions, reason))
    return [*written, page.write(study, results, sections, folder / "report.html", source or study.name)]
