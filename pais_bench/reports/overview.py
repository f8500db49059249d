"""Count what a study has done so far, for the cards at the head of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from pais_bench.reports.missing_runs import MissingRun


@dataclass(frozen=True)
class Card:
    """Hold a number, what it counts, a detail that may be empty, and whether it asks for attention."""

    value: str
    label: str
    detail: str = ""
    alarming: bool = False


def cards(runs: pd.DataFrame, missing: Sequence[MissingRun], warned: int) -> list[Card]:
    """Return the cards of runs done, runs failed, time of training, and runs with warnings.

    runs is that of Results | warned: how many started runs have a warning. The time is that of finished trainings,
    times the devices of each; a burn-in that several share counts once.
    """
    done, failed = int((runs["state"] == "done").sum()), sum(run.failed for run in missing)
    timed = runs[runs["wall_seconds"].notna()]
    devices = timed["devices"].fillna(1).astype(float)
    counted_before = timed["begun_with"].duplicated() & (timed["begun_with"] != "")
    seconds = timed["wall_seconds"].astype(float) - timed["burn_in_seconds"].where(counted_before, 0.0)
    hours = float((seconds * devices).sum()) / 3600
    names = ", ".join(sorted(set(timed["device"].dropna().astype(str))))
    unit = f"{'device ' * bool((devices > 1).any())}{'hours' if hours >= 1 else 'minutes'} of training"
    time = f"{60 * hours:.0f}" if hours < 1 else f"{hours:,.1f}" if hours < 100 else f"{hours:,.0f}"
    in_total = [
        Card(f"{done} of {len(runs)}", "runs done"),
        Card(str(failed), "failed", alarming=failed > 0),
        Card(time, unit, f"on {names}" if names else ""),
    ]
    return in_total + [Card(str(warned), "runs with warnings", alarming=True)] * (warned > 0)
