"""Write every report of a study, and the page that shows them all."""

from __future__ import annotations

from pathlib import Path

from pais_bench import plugins
from pais_bench.errors import NothingToShow
from pais_bench.reports.html import write_page
from pais_bench.reports.report import Report, Section
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

KINDS = ("csv", "md", "tex", "pdf", "png")


def write_reports(study: Study, results: Results, folder: Path, source: str = "") -> list[Path]:
    """Write every report and report.html into a folder, made where absent; return the paths of the files.

    source is the study as named on a command line. Files that an earlier call wrote for a report that now has nothing
    to show are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for name in plugins.names("reports"):
        report: Report = plugins.load("reports", name).Report()
        try:
            sections.append(report.write(study, results, folder))
        except NothingToShow as error:
            sections.append(Section(name, report.title, reason=str(error)))
            for path in (folder / f"{stem}.{kind}" for stem in (name, *report.captions) for kind in KINDS):
                path.unlink(missing_ok=True)
    page = write_page(study, results, sections, folder / "report.html", source or study.name)
    return [*(path for section in sections for path in section.files), page]
