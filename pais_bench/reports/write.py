"""Write every report of a study, and the page that shows them all."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from pais_bench import plugins
from pais_bench.errors import BenchError, NothingToShow, describe_fault
from pais_bench.reports.html import write_page
from pais_bench.reports.report import Report, Section
from pais_bench.reports.results import Results
from pais_bench.reports.style import write
from pais_bench.study.study import Study

KINDS = ("csv", "md", "tex", "pdf", "png")
ERRORS = "errors.txt"
"""The file of the tracebacks, beside the page."""


@dataclass(frozen=True)
class WrittenReports:
    """Hold the paths of all files that were written, and the failure of each report that could not be, by its name."""

    paths: list[Path]
    failures: dict[str, str]


def write_reports(study: Study, results: Results, folder: Path, source: str = "") -> WrittenReports:
    """Write every report and report.html into a folder, made where absent.

    source is the study as named on a command line. A report that fails takes no other with it: the page names it, and
    errors.txt has the traceback. Files that an earlier call wrote for a report that now has nothing to show, or that
    fails, are removed, as their numbers are of other results. A fault of the machine is raised.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections, tracebacks = [], []
    for name in plugins.names("reports"):
        report: Report = plugins.load("reports", name).Report()
        try:
            sections.append(report.write(study, results, folder))
            continue
        except NothingToShow as error:
            sections.append(Section(name, report.title, reason=str(error)))
        except Exception as error:  # whatever it is, it must not cost the other reports
            if describe_fault(error):
                raise
            failure = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
            sections.append(Section(name, report.title, failure=failure))
            tracebacks.append(f"{name}\n{traceback.format_exc()}")
        for path in (folder / f"{stem}.{kind}" for stem in (name, *report.captions) for kind in KINDS):
            path.unlink(missing_ok=True)
    files = [path for section in sections for path in section.files]
    files.append(write_page(study, results, sections, folder / "report.html", source or study.name))
    if tracebacks:
        files.append(write(folder / ERRORS, "\n".join(tracebacks)))
    else:
        (folder / ERRORS).unlink(missing_ok=True)
    return WrittenReports(files, {section.name: section.failure for section in sections if section.failure})
