"""Write every report of a study, and the page that shows them all."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from pais_bench import plugins
from pais_bench.errors import BenchError, NothingToShow, describe_fault
from pais_bench.reports.html import write_page
from pais_bench.reports.report import Report, Section
from pais_bench.reports.results import Results
from pais_bench.study.study import Study
from pais_bench.whole_file import write_text

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
    sections: list[Section] = []
    tracebacks: list[str] = []
    for name in plugins.names("reports"):
        report: Report | None = None
        try:
            report = plugins.load("reports", name).Report()
            section = report.write(study, results, folder)
        except NothingToShow as error:
            section = Section(name, _title(report, name), reason=str(error))
        except Exception as error:  # whatever it is, it must not cost the other reports
            section = Section(name, _title(report, name), failure=_failure(error))
            tracebacks.append(f"{name}\n{traceback.format_exc()}")
        if report is not None and section.frame is not None:
            try:
                section = replace(section, charts=report.charts(study, results, section.frame))
            except Exception as error:  # nor must it cost the pictures of the same figures
                section = replace(section, failure=f"interactive figures: {_failure(error)}")
                tracebacks.append(f"{name}, interactive figures\n{traceback.format_exc()}")
        if not section.files:
            for path in (
                folder / f"{stem}.{kind}" for stem in (name, *getattr(report, "captions", ())) for kind in KINDS
            ):
                path.unlink(missing_ok=True)
        sections.append(section)
    files = [path for section in sections for path in section.files]
    files.append(write_page(study, results, sections, folder / "report.html", source or study.name))
    if tracebacks:
        files.append(write_text(folder / ERRORS, "\n".join(tracebacks)))
    else:
        (folder / ERRORS).unlink(missing_ok=True)
    return WrittenReports(files, {section.name: section.failure for section in sections if section.failure})


def _title(report: Report | None, name: str) -> str:
    """Return the title of a report; of one that could not be imported, its name."""
    return name if report is None else report.title


def _failure(error: Exception) -> str:
    """Return what a page says of an error; raise it where it is a fault of the machine."""
    if describe_fault(error):
        raise error
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
