"""Rank the submissions of each section, a dataset x network x split, and test each row against the one below."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pais_bench import plugins
from pais_bench.evaluation import significance
from pais_bench.evaluation.significance import MIN_FOLDS, Difference, Floats
from pais_bench.leaderboard.entries import Entry
from pais_bench.reports.gains import LEVEL
from pais_bench.study.run import Run

NO_TEST = Difference(math.nan, math.nan, math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Row:
    """Hold the submissions of one method, configuration and submitter, one per fold.

    first, last: the range of its rank; rows that are not told apart share it | gain: over the row below, in percent
    0..100, NaN for the last row, with p corrected by Holm over the section | common: the folds that both have.
    """

    entries: tuple[Entry, ...]
    first: int = 0
    last: int = 0
    gain: Difference = NO_TEST
    common: int = 0

    @property
    def run(self) -> Run:
        """Return one of its runs."""
        return self.entries[0].submission.run

    @property
    def AP(self) -> significance.Interval:
        """Return mask AP in percent over the folds."""
        return significance.over_folds([100 * entry.samples[0] for entry in self.entries])

    @property
    def AP50(self) -> float:
        """Return the mean of mask AP50 in percent over the folds."""
        return float(np.mean([100 * entry.AP50 for entry in self.entries]))

    @property
    def folds(self) -> list[int]:
        """Return the numbers of its folds."""
        return [entry.submission.run.split.fold for entry in self.entries]

    @property
    def samples(self) -> dict[tuple[int, str], Floats]:
        """Return AP in percent on the images and samples of them, by fold and the sha256 of its labels."""
        return {
            (entry.submission.run.split.fold, entry.submission.split_sha256): 100 * entry.samples
            for entry in self.entries
        }


@dataclass(frozen=True)
class Section:
    """Hold the ranked rows of a dataset, network with its options, and split but its fold."""

    rows: tuple[Row, ...]

    @property
    def run(self) -> Run:
        """Return one of its runs."""
        return self.rows[0].run

    @property
    def folds(self) -> set[int]:
        """Return the folds that any row has."""
        return {fold for row in self.rows for fold in row.folds}

    @property
    def disagreeing(self) -> list[int]:
        """Return the folds whose labelled images are not the same in all rows."""
        labels: dict[int, set[str]] = {}
        for row in self.rows:
            for fold, sha256 in row.samples:
                labels.setdefault(fold, set()).add(sha256)
        return sorted(fold for fold, found in labels.items() if len(found) > 1)


def rank(entries: Sequence[Entry]) -> list[Section]:
    """Return the sections in the order of their names, each with its rows by falling AP."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[Entry]]] = {}
    runs = [entry.submission.run for entry in entries]
    chosen = {(run.network.label, key) for run in runs for key in network_options(run)}
    for entry in entries:
        run = entry.submission.run
        row = (run.method.label, entry.manifest.by, entry.manifest.checkpoint, entry.submission.configuration)
        groups.setdefault(_section(run, chosen), {}).setdefault(row, []).append(entry)
    return [Section(_ranked(groups[key])) for key in sorted(groups)]


def _section(run: Run, chosen: Collection[tuple[str, str]]) -> tuple[str, ...]:
    """Return what the rows of a section have in common, as a key that sorts percents as numbers.

    chosen are the options, by network, that some run has without its method's asking: all rows have to have them then.
    """
    own = network_options(run)
    asked = {key: value for key, value in run.network.options.items() if (run.network.label, key) in chosen}
    options = json.dumps({**own, **asked}, sort_keys=True)
    network = (run.network.backend, run.network.label, run.network.name, options)
    noise = run.split.label_noise.model_dump_json() if run.split.label_noise else ""
    return (run.dataset, *network, run.split.family, noise, f"{run.split.percent:012.6f}")


def network_options(run: Run) -> dict[str, Any]:
    """Return the options of a run's network that are not of its method, such as a second mask head."""
    methods = plugins.names("methods")
    own = plugins.load("methods", run.method.name).Method.network_options if run.method.name in methods else {}
    return {key: value for key, value in run.network.options.items() if key not in own}


def _ranked(groups: Mapping[tuple[str, ...], list[Entry]]) -> tuple[Row, ...]:
    """Return the rows of a section with their ranks, and each with its gain over the row below."""
    by_fold = [tuple(sorted(group, key=lambda entry: entry.submission.run.split.fold)) for group in groups.values()]
    rows = sorted(map(Row, by_fold), key=lambda row: -row.AP.mean)
    tests = [_gain(low, high) for high, low in zip(rows, rows[1:], strict=False)]
    corrected = significance.holm([gain.p for gain, _ in tests])
    # Rows of other folds may have the higher mean and the lower AP on the common folds.
    apart = [bool(p < LEVEL) and gain.value > 0 for p, (gain, _) in zip(corrected, tests, strict=True)]
    ends = [place for place, told in enumerate([*apart, True], start=1) if told]
    ranked = []
    for place, row in enumerate(rows, start=1):
        last = next(end for end in ends if end >= place)
        first = max((end + 1 for end in ends if end < place), default=1)
        gain, common = tests[place - 1] if place <= len(tests) else (NO_TEST, 0)
        if place <= len(tests):
            gain = replace(gain, p=float(corrected[place - 1]))
        ranked.append(replace(row, first=first, last=last, gain=gain, common=common))
    return tuple(ranked)


def _gain(low: Row, high: Row) -> tuple[Difference, int]:
    """Return AP of a row minus that of another, tested on the folds that both have, and their number.

    From MIN_FOLDS folds on the bootstrap is of folds and images, below of images alone.
    """
    first, second = low.samples, high.samples
    common = sorted(set(first) & set(second))
    if not common:
        return NO_TEST, 0
    test = significance.two_level if len(common) >= MIN_FOLDS else significance.difference
    return test([first[key] for key in common], [second[key] for key in common]), len(common)
