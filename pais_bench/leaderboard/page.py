"""Write the leaderboard as a page that needs neither network nor script, and its numbers as CSV."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from pais_bench import __version__
from pais_bench.evaluation.significance import MIN_FOLDS, SAMPLES
from pais_bench.leaderboard.ranking import Row, Section, network_options
from pais_bench.leaderboard.truth import Truth
from pais_bench.reports.gains import LEVEL
from pais_bench.reports.html import SOURCES, environment
from pais_bench.reports.overview import Card
from pais_bench.reports.style import write_csv
from pais_bench.reports.table import Table, interval, mean_and_deviation, p_value, signed
from pais_bench.whole_file import write_text

COLUMNS = ["rank", "method", "submitted by", "AP", "AP50", "folds", "gain", "95 % interval", "p", "test"]
CSV_COLUMNS = [
    *("dataset", "backend", "network", "family", "percent", "label_noise", "rank_first", "rank_last"),
    *("method", "by", "checkpoint", "configuration", "folds", "AP", "AP_std", "AP50"),
    *("gain", "low", "high", "p_holm", "common_folds", "files"),
]
EXPLANATION = (
    "Mask AP in percent, the mean ± s.d. over the folds, evaluated here from the predictions of every bundle. Gain: "
    "over the row below, on the folds that both have, with its 95 % interval and p. From "
    f"{MIN_FOLDS} folds on the test is the two-level bootstrap of folds and images, which covers other trainings; "
    f"below it is the paired bootstrap of {SAMPLES} samples of the images, which covers these very trainings alone. p "
    "is corrected by Holm over the rows of a table. Neighbours share a range of ranks unless p < "
    f"{LEVEL:g} tells them apart."
)
LACKS = "†"


def write_leaderboard(
    folder: Path, sections: Sequence[Section], refused: Mapping[str, str], truths: Mapping[str, Truth]
) -> list[Path]:
    """Write leaderboard.html and leaderboard.csv into a folder, and return their paths. All content is escaped."""
    fitting = sum(len(row.entries) for section in sections for row in section.rows)
    rows = sum(len(section.rows) for section in sections)
    cards = [
        Card(str(fitting), f"bundle{'s' * (fitting != 1)} ranked"),
        Card(str(rows), f"row{'s' * (rows != 1)} in {len(sections)} table{'s' * (len(sections) != 1)}"),
        Card(str(len(refused)), "refused", alarming=bool(refused)),
    ]
    html = (
        environment()
        .get_template("leaderboard.html")
        .render(
            version=__version__,
            truths=[
                (truth.label, len(truth.validation.image_ids), truth.validation.digest[:8]) for truth in truths.values()
            ],
            cards=cards,
            explanation=EXPLANATION,
            sections=[(_title(section), _table(section, truths[section.run.dataset])) for section in sections],
            refused=refused,
            style=Markup((SOURCES / "page.css").read_text(encoding="utf-8")),
        )
    )
    page = write_text(folder / "leaderboard.html", html)
    values = [_values(row) for section in sections for row in section.rows]
    return [page, write_csv(folder / "leaderboard.csv", pd.DataFrame(values, columns=CSV_COLUMNS))]


def _title(section: Section) -> str:
    run = section.run
    noise = f", {run.split.label_noise.name}" if run.split.label_noise else ""
    network = f"{run.network.backend} {run.network.label}"
    return f"{run.dataset}: {network}, {run.split.percent:g} % labelled, {run.split.family}{noise}"


def _table(section: Section, truth: Truth) -> Table:
    """Return the table of a section."""
    run, names = section.run, Counter(_name(row) for row in section.rows)
    shared = max((network_options(row.run) for row in section.rows), key=len)
    options = ", ".join(f"{key} {json.dumps(value)}" for key, value in shared.items())
    with_options = f"the options {options}" if options else "its default options"
    caption = f"Network {run.network.backend}/{run.network.name} with {with_options}."
    reason = truth.undrawable(run.split.family)
    same = "The labelled images of every row are those of the split, which was drawn again here."
    notes = [f"Which images were labelled was not checked: {reason}." if reason else same]
    if section.disagreeing:
        folds = ", ".join(map(str, section.disagreeing))
        notes.append(
            f"Fold {folds}: the rows do not have the same labelled images; where they differ, no gain is shown."
        )
    if any(set(row.folds) != section.folds for row in section.rows):
        notes.append(f"{LACKS} lacks folds that other rows have, so its mean is over other trainings than theirs.")
    rows = [_cells(row, section, names[_name(row)] > 1) for row in section.rows]
    return Table(caption, COLUMNS, rows, 3, notes)


def _name(row: Row) -> tuple[str, str]:
    return _method(row), row.entries[0].manifest.by


def _method(row: Row) -> str:
    checkpoint = row.entries[0].manifest.checkpoint
    return row.run.method.label + ("" if checkpoint == "teacher-last" else f" ({checkpoint})")


def _cells(row: Row, section: Section, ambiguous: bool) -> list[str]:
    first = row.entries[0]
    method = _method(row) + (f" [{first.submission.configuration}]" if ambiguous else "")
    place = str(row.first) if row.first == row.last else f"{row.first}–{row.last}"
    folds = f"{len(row.folds)}{LACKS if set(row.folds) != section.folds else ''}"
    known = [place, method, first.manifest.by or "–", mean_and_deviation(row.AP.mean, row.AP.sd), f"{row.AP50:.1f}"]
    tested = ["–", "–", "–", "–"]
    if not math.isnan(row.gain.value):
        tested = [signed(row.gain.value), interval(row.gain.low, row.gain.high), p_value(row.gain.p)]
        tested.append(f"{row.common} folds and images" if row.common >= MIN_FOLDS else "images")
    return [*known, folds, *tested]


def _values(row: Row) -> dict[str, Any]:
    run, first = row.run, row.entries[0]
    noise = run.split.label_noise.name if run.split.label_noise else ""
    values = [run.dataset, run.network.backend, run.network.label, run.split.family, run.split.percent, noise]
    values += [row.first, row.last, run.method.label, first.manifest.by, first.manifest.checkpoint]
    values += [first.submission.configuration, " ".join(map(str, row.folds)), row.AP.mean, row.AP.sd, row.AP50]
    values += [row.gain.value, row.gain.low, row.gain.high, row.gain.p, row.common]
    return dict(zip(CSV_COLUMNS, [*values, " ".join(entry.file for entry in row.entries)], strict=True))
