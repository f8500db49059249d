"""What should a reader know before believing the number of a run? imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

Described = Mapping[str, Any]


def caveats(described: Sequence[Described], looks: pd.DataFrame) -> list[list[str]]:
    """Give the warnings of every run of a study.

    described are the contents of their run.json, empty where there is none; looks are those of results.Results. What
    differs is told of the runs that differ from most.
    """
    silent = _silent(looks)
    usual = {key: _most(_value(one, *key) for one in described) for key in _COMPARED}
    splits: dict[Any, set[Any]] = {}
    for one in described:
        splits.setdefault(_cell(one), set()).add(_value(one, "split", "sha256"))
    return [list(_of(one, usual, splits, silent)) for one in described]


_COMPARED: dict[tuple[str, ...], str] = {
    ("commit",): "source",
    ("hardware", "device"): "device",
    **{("versions", name): name for name in ("python", "torch", "torchvision", "lightning-fabric", "numpy")},
}


def _of(
    one: Described, usual: Mapping[tuple[str, ...], Any], splits: Mapping[Any, set[Any]], silent: set[str]
) -> Iterator[str]:
    if not one:
        yield "no run.json: neither its options nor its versions are known"
        return
    if str(one.get("commit", "")).endswith("+changes"):
        yield "trained from files that differ from their commit"
    for key, name in _COMPARED.items():
        value = _value(one, *key)
        if value is not None and value != usual[key]:
            yield f"{name} {_short(value)}, most runs of the study {_short(usual[key])}"
    if len(splits[_cell(one)]) > 1:
        yield "other runs of this percent and fold were trained with another split"
    if note := _value(one, "split", "note"):
        yield f"split: {note}"
    percent, effective = _value(one, "split", "percent"), _value(one, "split", "effective_percent")
    if percent and effective and abs(effective - percent) > 0.02 * percent:
        yield f"{effective:.3g} % of the images are labelled, not {percent:g} %"
    if one.get("digest") in silent:
        yield "no pseudo-label was kept in the second half of the training"


def _silent(looks: pd.DataFrame) -> set[str]:
    """Give the digests of the runs whose unlabelled part had nothing to teach in the second half."""
    if looks.empty:
        return set()
    late = looks[looks["step"] > looks.groupby("digest")["step"].transform("max") / 2]
    kept = late.groupby("digest")["kept_per_image"].max()
    return set(kept[kept == 0].index)


def _most(values: Iterator[Any]) -> Any:
    counted = Counter(value for value in values if value is not None)
    return counted.most_common(1)[0][0] if counted else None


def _cell(one: Described) -> Any:
    return _value(one, "split", "percent"), _value(one, "split", "fold")


def _value(one: Described, *keys: str) -> Any:
    found: Any = one
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 40 else text
