"""How does a study read as one page? report.html: tables, figures, gaps and runs in a file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from pais_bench import __version__
from pais_bench.caveats import caveats
from pais_bench.config import Study
from pais_bench.gaps import gaps, whole_grid
from pais_bench.results import Results
from pais_bench.store import write_text

SOURCES = Path(__file__).parent / "html"
FIRST = ("main_table", "significance", "label_efficiency", "convergence", "accuracy_cost", "panels", "score_iou")
"""The reports that a reader wants first; the others follow by name."""

LONG = 60
"""Signs above which the text of a cell is broken into lines."""

SCALE = 120 / 300
"""Pixels of the page for one of a figure: figures have 300 to the inch, and their text is to be read on a screen."""


@dataclass(frozen=True)
class Section:
    """Hold what one report wrote: its question, its files, the captions of its figures by stem, or why it has none."""

    name: str
    question: str
    files: tuple[Path, ...]
    captions: Mapping[str, str]
    reason: str = ""


def write(study: Study, results: Results, sections: Sequence[Section], path: Path, source: str) -> Path:
    """Write the page; source is what a command line calls the study. Whatever the files hold is escaped."""
    order = sorted(sections, key=lambda one: (FIRST.index(one.name) if one.name in FIRST else len(FIRST), one.name))
    style, script = ((SOURCES / name).read_text() for name in ("page.css", "page.js"))
    missing = gaps(study, results, source)
    html = (
        _environment()
        .get_template("page.html")
        .render(
            study=study,
            version=__version__,
            states=Counter(results.runs["state"]),
            total=len(results.runs),
            sections=[_section(one) for one in order if one.files],
            left_out=[one for one in order if one.reason],
            gaps=missing,
            everything=whole_grid(source, results.root),
            runs=list(_runs(results)),
            style=Markup(style),
            script=Markup(script),
            policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}",
        )
    )
    write_text(path, html)
    return path


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(SOURCES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _hash(text: str) -> str:
    """Give a source of a content security policy: a browser runs and applies this text and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _section(section: Section) -> dict[str, Any]:
    texts = [block for path in section.files if path.suffix == ".md" for block in _blocks(path.read_text())]
    figures = [
        {
            "stem": path.stem,
            "caption": section.captions.get(path.stem, ""),
            "data": base64.b64encode(path.read_bytes()).decode(),
            "width": round(_pixels_wide(path) * SCALE),
        }
        for path in section.files
        if path.suffix == ".png"
    ]
    files = [path.name for path in section.files]
    return {"name": section.name, "question": section.question, "blocks": texts, "figures": figures, "files": files}


def _pixels_wide(path: Path) -> int:
    """Read the width from the head of a PNG."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(20)[16:], "big")


def _blocks(markdown: str) -> Iterator[dict[str, Any]]:
    """Take a report's Markdown apart into paragraphs and tables, as reports/_table.py writes them."""
    for block in markdown.strip().split("\n\n"):
        if not block.startswith("|"):
            yield {"text": block}
            continue
        heads, rule, *rows = ([cell.strip() for cell in _cells(line)] for line in block.splitlines())
        columns = zip(rule, *rows, strict=True)
        kinds = [_kind(mark, column) for mark, *column in columns]
        yield {"text": "", "heads": heads, "kinds": kinds, "rows": [[_cell(cell) for cell in row] for row in rows]}


def _kind(mark: str, column: Sequence[str]) -> str:
    """Give the class of a column's cells, if any: long texts are broken into lines, numbers stand at the right."""
    if any(len(cell) > LONG for cell in column):
        return "long"
    return "number" if mark.endswith(":") else ""


def _cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))


def _cell(text: str) -> tuple[str, bool]:
    """Give the text of a cell, and whether it is bold."""
    text = text.replace(r"\|", "|")
    bold = len(text) > 4 and text.startswith("**") and text.endswith("**")
    return (text[2:-2] if bold else text), bold


def _runs(results: Results) -> Iterator[dict[str, Any]]:
    """Give what the page tells of each run that has begun."""
    begun = results.runs[results.runs["state"] != "missing"]
    described = [_described(results.root / folder / "run.json") for folder in begun["folder"]]
    for (_, row), told, warnings in zip(begun.iterrows(), described, caveats(described, results.looks), strict=True):
        facts = {
            "folder": row["folder"],
            **{name: told[name] for name in ("commit", "wall_seconds") if told.get(name) is not None},
            **_flat({name: told[name] for name in ("split", "versions", "hardware") if name in told}),
        }
        yield {
            **{name: row[name] for name in ("network", "method", "percent", "fold", "digest", "state")},
            "numbers": [_percent(row[name]) for name in ("segm_AP", "segm_AP50", "bbox_AP")],
            "time": _clock(row["wall_seconds"]),
            # A training writes run.json at its end.
            "warnings": warnings if told or row["state"] == "done" else [],
            "facts": facts,
            "options": _flat(told.get("run", {})),
        }


def _described(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat


def _percent(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def _clock(seconds: float) -> str:
    """Give a time as h:mm:ss."""
    if pd.isna(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
