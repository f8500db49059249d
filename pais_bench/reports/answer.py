"""Answer a study in words from the frames of its tables, for the head of the page and for the terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

import pandas as pd

from pais_bench import plugins
from pais_bench.errors import NothingToShow
from pais_bench.reports import findings
from pais_bench.reports.cells import baseline, bounds
from pais_bench.reports.results import Results
from pais_bench.study.study import Study

MAIN = "main_table"
TABLES = (MAIN, "significance", "method_pairs")


class Answer(NamedTuple):
    """Hold the sentence that answers the study, and one for each percent where there is more to say."""

    lead: str = ""
    sentences: tuple[str, ...] = ()


def answer(study: Study, results: Results, frames: Mapping[str, pd.DataFrame | None]) -> Answer:
    """Return the answer from the frames of TABLES, of which any may be absent; without main_table it is empty."""
    if (cells := frames.get(MAIN)) is None:
        return Answer()
    supervised, finished = baseline(study), int((results.runs["state"] == "done").sum())
    runs = results.runs
    grid = set(zip(runs["network"], runs["method"], runs["percent"], strict=True))
    cells = cells[[key in grid for key in zip(cells["network"], cells["method"], cells["percent"], strict=True)]]
    found = findings.find(cells, frames.get("significance"), frames.get("method_pairs"), supervised, bounds(study))
    sentences = findings.sentences(found, supervised) if finished > 1 else []
    return Answer(findings.lead(found, finished, supervised), tuple(sentences))


def in_terminal(study: Study, results: Results, failed: Collection[str] = ()) -> str:
    """Return the main table and the answer as plain text, ready to print; failed are tables that cannot be made."""
    reports = {name: plugins.load("reports", name).Report() for name in TABLES if name not in failed}
    frames: dict[str, pd.DataFrame | None] = {}
    for name, report in reports.items():
        with suppress(NothingToShow):
            frames[name] = report.frame(study, results)
    lead, sentences = answer(study, results, frames)
    table = reports[MAIN].table(study, results, frames[MAIN]).plain()
    return "\n".join([table, "", lead, *sentences])
