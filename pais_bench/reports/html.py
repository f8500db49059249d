"""Write report.html: the tables, figures, missing runs and runs of a study, in one file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from pais_bench import __version__
from pais_bench.annotations.store import write_text
from pais_bench.evaluation.evaluate import in_percent
from pais_bench.reports.missing_runs import grid_command, missing_runs
from pais_bench.reports.report import Section
from pais_bench.reports.results import Results
from pais_bench.reports.run_warnings import run_warnings
from pais_bench.reports.table import Bold, Table
from pais_bench.study.study import Study

SOURCES = Path(__file__).parent / "page"
FIRST = (
    *("main_table", "significance", "method_pairs", "label_efficiency", "convergence", "convergence_numbers"),
    *("accuracy_cost", "examples", "score_iou"),
)
"""The first reports of the page; the others follow by name."""

MAX_CELL = 60
"""Characters above which the text of a cell is broken into lines."""

SCALE = 120 / 300
"""Pixels of the page per pixel of a figure: figures have 300 per inch, and their text has to be legible on a screen."""


def write_page(study: Study, results: Results, sections: Sequence[Section], path: Path, source: str) -> Path:
    """Write the page; source is the study as named on a command line. All content is escaped."""
    rank = {name: index for index, name in enumerate(FIRST)}
    ordered = sorted(sections, key=lambda section: (rank.get(section.name, len(FIRST)), section.name))
    style, script = ((SOURCES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    html = (
        _environment()
        .get_template("page.html")
        .render(
            study=study,
            version=__version__,
            states=Counter(results.runs["state"]),
            total=len(results.runs),
            sections=[_section(section) for section in ordered if section.files],
            omitted=[section for section in ordered if section.reason],
            failed=[section for section in ordered if section.failure],
            missing_runs=missing_runs(study, results, source),
            grid_command=grid_command(source, results.root),
            runs=list(_runs(results)),
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        )
    )
    write_text(path, html)
    return path


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["cell_classes"] = _cell_classes
    environment.tests["bold"] = lambda cell: isinstance(cell, Bold)
    return environment


def _hash(text: str) -> str:
    """Return a source of a content security policy: a browser runs and applies this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(section: Section) -> dict[str, Any]:
    figures = [
        {
            "stem": path.stem,
            "caption": section.captions.get(path.stem, ""),
            "data": base64.b64encode(path.read_bytes()).decode(),
            "width": round(_width(path) * SCALE),
        }
        for path in section.files
        if path.suffix == ".png"
    ]
    files = [path.name for path in section.files]
    return {"name": section.name, "title": section.title, "figures": figures, "table": section.table, "files": files}


def _width(path: Path) -> int:
    """Read the width in pixels from the header of a PNG."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(20)[16:], "big")


def _cell_classes(table: Table) -> list[str]:
    """Return the class of each column's cells: long texts are broken into lines, numbers are aligned right."""
    classes = [""] * table.text_columns + ["number"] * (len(table.columns) - table.text_columns)
    for row in table.rows:
        classes = ["long" if len(cell) > MAX_CELL else known for cell, known in zip(row, classes, strict=True)]
    return classes


def _runs(results: Results) -> Iterator[dict[str, Any]]:
    """Yield what the page shows of each run that has started."""
    started = results.runs[results.runs["state"] != "missing"]
    contents = [_read(results.root / folder / "run.json") for folder in started["folder"]]
    all_warnings = run_warnings(contents, results.pseudo_label_log)
    for (_, row), content, warnings in zip(started.iterrows(), contents, all_warnings, strict=True):
        facts = {
            "folder": row["folder"],
            **{name: content[name] for name in ("commit", "wall_seconds") if content.get(name) is not None},
            **_flatten({name: content[name] for name in ("split", "versions", "hardware") if name in content}),
        }
        yield {
            **{name: row[name] for name in ("network", "method", "percent", "fold", "digest", "state")},
            "numbers": [in_percent(row[name]) for name in ("segm_AP", "segm_AP50", "bbox_AP")],
            "time": _clock(row["wall_seconds"]),
            # A training writes run.json at its end.
            "warnings": warnings if content or row["state"] == "done" else [],
            "facts": facts,
            "options": _flatten(content.get("run", {})),
        }


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _clock(seconds: float) -> str:
    """Return a time as h:mm:ss."""
    if pd.isna(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
