"""Warn of what weakens the number of a run: other sources, versions, splits or hardware, pseudo-labels of no use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from pais_bench.evaluation.evaluate import in_percent
from pais_bench.reports.pseudo_label_log import second_half

Content = Mapping[str, Any]
"""The content of a run.json, empty where there is none."""

_COMPARED: dict[tuple[str, ...], str] = {
    ("commit",): "source",
    ("hardware", "device"): "device",
    **{("versions", name): name for name in ("python", "torch", "torchvision", "lightning-fabric", "numpy")},
}


def run_warnings(contents: Sequence[Content], pseudo_label_log: pd.DataFrame, curves: pd.DataFrame) -> list[list[str]]:
    """Return the warnings of every run of a study; the runs that differ from most of the others are warned of.

    pseudo_label_log and curves are those of Results.
    """
    without_pseudo_labels = _without_pseudo_labels(pseudo_label_log)
    taught = set() if pseudo_label_log.empty else set(pseudo_label_log["digest"])
    teachers: dict[Any, pd.DataFrame] = {}
    if not curves.empty:
        teachers = dict(list(curves[curves["model"] == "teacher"].groupby("digest")))
    usual = {key: _most_common(_value(content, *key) for content in contents) for key in _COMPARED}
    splits: dict[Any, set[Any]] = {}
    for content in contents:
        splits.setdefault(_cell(content), set()).add(_value(content, "split", "sha256"))
    warnings = []
    for content in contents:
        found = list(_warnings(content, usual, splits, without_pseudo_labels))
        curve = teachers.get(content.get("digest")) if content.get("digest") in taught else None
        if curve is not None and (text := _taught_nothing(content, curve)):
            found.append(text)
        warnings.append(found)
    return warnings


def _warnings(
    content: Content,
    usual: Mapping[tuple[str, ...], Any],
    splits: Mapping[Any, set[Any]],
    without_pseudo_labels: set[str],
) -> Iterator[str]:
    if not content:
        yield "no run.json: its options and its versions are unknown"
        return
    if str(content.get("commit", "")).endswith("+changes"):
        yield "trained from files that differ from their commit"
    if earlier := content.get("earlier_commits"):
        yield f"begun with other sources: {', '.join(map(_short, earlier))}"
    for key, name in _COMPARED.items():
        value = _value(content, *key)
        if value is not None and value != usual[key]:
            yield f"{name} {_short(value)}, most runs of the study {_short(usual[key])}"
    if len(splits[_cell(content)]) > 1:
        yield "other runs of this percent and fold were trained with another split"
    if note := _value(content, "split", "note"):
        yield f"split: {note}"
    percent, effective, pool = (_value(content, "split", key) for key in ("percent", "effective_percent", "pool"))
    one_image = 100 / pool if pool else 0  # of few images, no whole number of them is the percent
    if percent and effective and abs(effective - percent) >= max(0.02 * percent, one_image):
        yield f"{effective:.3g} % of the images are labelled, not {percent:g} %"
    if content.get("digest") in without_pseudo_labels:
        yield "no pseudo-label was kept in the second half of the training"


def _without_pseudo_labels(log: pd.DataFrame) -> set[str]:
    """Return the digests of the runs that kept no pseudo-label in the second half of their training."""
    if log.empty:
        return set()
    kept = second_half(log).groupby("digest")["kept_per_image"].max()
    return set(kept[kept == 0].index)


def _taught_nothing(content: Content, curve: pd.DataFrame) -> str:
    """Return the warning of a run whose teacher ends no better than its burn-in left it; empty where it is better."""
    burn_in, steps = (_value(content, "run", "training", key) or 0 for key in ("burn_in", "steps"))
    before, end = curve[curve["step"] <= burn_in]["AP"], curve[curve["step"] == steps]["AP"]
    if before.empty or end.empty or end.iloc[-1] > before.iloc[-1]:
        return ""
    start, last = (in_percent(values.iloc[-1]) for values in (before, end))
    return f"its teacher ends at {last} AP, after {start} at the end of its burn-in: its pseudo-labels taught nothing"


def _most_common(values: Iterator[Any]) -> Any:
    counts = Counter(value for value in values if value is not None)
    return counts.most_common(1)[0][0] if counts else None


def _cell(content: Content) -> Any:
    return _value(content, "split", "percent"), _value(content, "split", "fold")


def _value(content: Content, *keys: str) -> Any:
    value: Any = content
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 40 else text
