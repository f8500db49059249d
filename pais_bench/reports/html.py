"""Write report.html: what came out of a study, its tables, figures and runs, in one file that needs no network."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pais_bench import __version__
from pais_bench.reports import findings
from pais_bench.reports.answer import answer
from pais_bench.reports.chart import Chart, Gallery
from pais_bench.reports.missing_runs import MissingRun, grid_command, missing_runs
from pais_bench.reports.overview import cards
from pais_bench.reports.report import Section
from pais_bench.reports.results import Results
from pais_bench.reports.started_runs import started_runs, take_common
from pais_bench.reports.style import GREY
from pais_bench.reports.table import Bold, Table
from pais_bench.study.study import Study
from pais_bench.whole_file import write_text

SOURCES = Path(__file__).parent / "page"
FIRST = ("main_table", "convergence", "label_efficiency")
"""The reports that stand open on the page; the others are behind tabs."""
TABS: dict[str, tuple[str, ...]] = {
    "Significance": ("significance", "method_pairs", "ablation", "checkpoints"),
    "Errors": ("error_kinds", "object_sizes", "confusion", "worst_images"),
    "Examples": ("examples",),
    "Speed and cost": ("convergence_numbers", "accuracy_cost", "cost"),
    "Pseudo-labels": ("pseudo_label_quality", "score_iou", "calibration"),
    "Classes and protocols": ("per_class", "panoptic_efficiency", "panoptic_quality", "protocols"),
    "Published numbers": ("paper_ledger", "records"),
}
OTHERS = "More"
"""The tab of a report that no other has."""

MAX_CELL = 60
"""Characters above which the text of a cell is broken into lines."""

SCALE = 120 / 300
"""Pixels of the page per pixel of a figure: figures have 300 per inch, and their text has to be legible on a screen."""

GLYPHS = {
    **{"circle": "●", "square": "■", "triangle-up": "▲", "diamond": "◆", "triangle-down": "▼", "cross": "✚"},
    **{"x": "✖", "star": "★", "circle-open": "○", "square-open": "□", "triangle-up-open": "△", "diamond-open": "◇"},
    **{"triangle-down-open": "▽", "cross-open": "✙", "x-open": "✕", "star-open": "☆"},
}
"""The character of the legend that looks like a symbol of plotly."""


def write_page(study: Study, results: Results, sections: Sequence[Section], path: Path, source: str) -> Path:
    """Write the page; source is the study as named on a command line. All content is escaped.

    Where plotly is not installed, the pictures of the figures stand in the place of the interactive ones.
    """
    library = _plotly() if any(section.charts for section in sections) else ""
    missing, runs = missing_runs(study, results, source), started_runs(results)
    common = {kind: take_common(runs, kind) for kind in ("facts", "options")}
    written = {section.name: _section(section, bool(library)) for section in sections if section.files}
    style, script = ((SOURCES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    script += (SOURCES / "charts.js").read_text(encoding="utf-8")
    # Plotly sets the style of what it draws; no text of the page can, as all of it is escaped.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {_hash(script)}"
    html = (
        environment()
        .get_template("page.html")
        .render(
            study=study,
            version=__version__,
            **_answer(study, results, sections, missing),
            cards=cards(results.runs, missing, sum(bool(run["warnings"]) for run in runs)),
            first=[written[name] for name in FIRST if name in written],
            tabs=_tabs(written),
            omitted=[section for section in sections if section.reason],
            failed=[section for section in sections if section.failure],
            missing_runs=missing,
            grid_command=grid_command(source, results.root),
            runs=runs,
            common=common,
            style=Markup(style),
            library=_packed(library),
            charts=Markup(_chart_data(sections) if library else "{}"),
            script=Markup(script),
            policy=f"{policy} {_hash(library)}" if library else policy,
        )
    )
    write_text(path, html)
    return path


def _answer(
    study: Study, results: Results, sections: Sequence[Section], missing: Sequence[MissingRun]
) -> dict[str, Any]:
    """Return the words of the head, from the frames of the tables that were written."""
    words = answer(study, results, {section.name: section.frame for section in sections})
    return {**words._asdict(), "missing_sentence": findings.missing_sentence(len(results.runs), missing)}


def _tabs(written: Mapping[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the sections of each tab that has any."""
    known = {*FIRST, *(name for names in TABS.values() for name in names)}
    tabs = {**TABS, OTHERS: tuple(name for name in written if name not in known)}
    filled = {title: [written[name] for name in names if name in written] for title, names in tabs.items()}
    return {title: group for title, group in filled.items() if group}


def _plotly() -> str:
    """Return the source of plotly.js, from the package; empty where it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return ""
    source: str = get_plotlyjs()
    return source


def _packed(text: str) -> str:
    """Return a text as gzip in base64, a third of its size, which browsers can unpack; the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode() if text else ""


def _chart_data(sections: Sequence[Section]) -> str:
    """Return the panels of every chart as JSON that ends no script."""
    data = {
        stem: [{"traces": panel.traces, "layout": panel.layout} for _, panels in chart.rows for panel in panels]
        for section in sections
        for stem, chart in section.charts.items()
        if isinstance(chart, Chart)
    }
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def environment() -> jinja2.Environment:
    """Return what fills the templates in page/; all values are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"cell_classes": _cell_classes, "glyphs": GLYPHS, "grey": GREY}
    environment.tests["bold"] = lambda cell: isinstance(cell, Bold)
    return environment


def _hash(text: str) -> str:
    """Return a source of a content security policy: a browser runs this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(section: Section, interactive: bool) -> dict[str, Any]:
    """Return what the page shows of a section; each figure as a chart, a gallery or a picture."""
    figures = []
    for path in section.files:
        if path.suffix != ".png":
            continue
        chart = section.charts.get(path.stem)
        figure: dict[str, Any] = {
            "stem": path.stem,
            "caption": section.captions.get(path.stem, ""),
            "chart": None,
            "gallery": None,
        }
        if isinstance(chart, Gallery):
            figure["gallery"] = chart
        elif chart is not None and interactive:
            figure["chart"] = chart
        else:
            figure |= {"data": base64.b64encode(path.read_bytes()).decode(), "width": round(_width(path) * SCALE)}
        figures.append(figure)
    files = [path.name for path in section.files if path.suffix not in (".pdf", ".png")]
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
