"""Collect what the page shows of each run that has started: its numbers, warnings, options, versions and hardware."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pais_bench.evaluation.evaluate import in_percent
from pais_bench.reports.results import Results
from pais_bench.reports.run_warnings import run_warnings
from pais_bench.runs.files import RUN

Facts = dict[str, Any]


def started_runs(results: Results) -> list[dict[str, Any]]:
    """Return what the page shows of each run; facts and options have dotted keys."""
    started = results.runs[results.runs["state"] != "missing"]
    contents = [_read(results.root / folder / RUN) for folder in started["folder"]]
    all_warnings = run_warnings(contents, results.pseudo_label_log, results.curves)
    runs = []
    for (_, row), content, warnings in zip(started.iterrows(), contents, all_warnings, strict=True):
        facts = {
            "folder": row["folder"],
            **{name: content[name] for name in ("commit", "wall_seconds") if content.get(name) is not None},
            **_flatten({name: content[name] for name in ("split", "versions", "hardware") if name in content}),
        }
        keys = {name: row[name] for name in ("network", "method", "percent", "fold", "digest", "state")}
        runs.append(
            {
                **keys,
                "numbers": [in_percent(row[name]) for name in ("segm_AP", "segm_AP50", "bbox_AP")],
                "time": _clock(row["wall_seconds"]),
                # A training writes run.json at its end.
                "warnings": warnings if content or row["state"] == "done" else [],
                "facts": facts,
                "options": _flatten(content.get("run", {})),
            }
        )
    return runs


def take_common(runs: Sequence[dict[str, Any]], kind: str) -> Facts:
    """Return the facts or options that all finished runs share, and remove them from each; nothing for a single run."""
    sets: list[Facts] = [run[kind] for run in runs if run["options"]]
    if len(sets) < 2:
        return {}
    common = {key: value for key, value in sets[0].items() if all(key in one and one[key] == value for one in sets)}
    for one in sets:
        for key in common:
            del one[key]
    return common


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Facts:
    """Return nested mappings as one, with dotted keys."""
    flat: Facts = {}
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
