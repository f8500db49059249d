"""Say in words what came out of a study: the best method at each percent, its gain, and whether it is more than luck.

Everything is a function of the frames of three tables: main_table, significance and method_pairs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from pais_bench.evaluation.significance import MIN_FOLDS
from pais_bench.reports.gains import LEVEL
from pais_bench.reports.missing_runs import MissingRun
from pais_bench.reports.table import interval, p_value, signed

MAX_NAMES = 3
"""Methods that a sentence names; of more it says how many."""


@dataclass(frozen=True)
class Finding:
    """Hold the best method of a network and percent; AP and gain in percent 0..100, NaN where there is none.

    methods: how many have a finished run | method: empty where none has | gain: over supervised, below 0 where every
    method is worse | interval: text of its 95 % interval | folds: those that the test is over, 0 where there is no test
    | p: corrected by Holm | significant: as in the table significance | partial: some folds are not finished |
    unranked: methods of fewer folds with a larger gain | tied: methods from which a paired t test over the folds does
    not tell it apart | also: others whose gain is significant | bound: the gain of the held-out labels themselves |
    bounds: the methods that learn these, and have a finished run.
    """

    network: str
    percent: float
    methods: int
    method: str = ""
    ap: float = math.nan
    gain: float = math.nan
    interval: str = ""
    folds: int = 0
    p: float = math.nan
    significant: bool = False
    partial: bool = False
    unranked: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    bound: float = math.nan
    bounds: tuple[str, ...] = ()


def find(
    cells: pd.DataFrame,
    gains: pd.DataFrame | None,
    pairs: pd.DataFrame | None,
    supervised: str | None,
    bounds: Sequence[str] = (),
) -> list[Finding]:
    """Return a finding per network and percent of the study's own methods, in the order of main_table's frame.

    Methods are ranked by their gain, which is paired by fold, as unfinished folds would shift a mean; by mean AP where
    there is no gain. Those of one or two folds are not ranked where others have three and a gain. gains and pairs are
    the frames of significance and method_pairs, None where they were not written. bounds are methods that learn the
    held-out labels, and are not ranked.
    """
    own = cells[cells["model"] != ""]
    findings = []
    for _, cell in own.groupby(["network", "percent"], sort=False):
        is_bound = cell["method"].isin(bounds)
        finding = _best(cell["network"].iloc[0], cell["percent"].iloc[0], cell[~is_bound], supervised)
        finished = tuple(cell.loc[is_bound & cell["AP"].notna(), "method"])
        finding = replace(finding, bound=cell.loc[is_bound, "gain"].max(), bounds=finished)
        findings.append(_tested(finding, gains, pairs, supervised))
    return findings


def _best(network: str, percent: float, cell: pd.DataFrame, supervised: str | None) -> Finding:
    done = cell[cell["AP"].notna()]
    if done.empty:
        return Finding(network, percent, 0)
    rivals = done[done["gain"].notna() & (done["method"] != supervised)]
    tested = rivals["folds"] >= MIN_FOLDS
    kept = rivals[tested] if (rivals["gain"][tested] > 0).any() else rivals
    ranked = done.sort_values("AP", kind="stable") if kept.empty else kept.sort_values("gain", kind="stable")
    best = ranked.iloc[-1]
    partial = bool((cell["folds"] < cell["folds_expected"]).any())
    unranked = tuple(rivals["method"][rivals["gain"] > best["gain"]])
    return Finding(
        network, percent, len(done), best["method"], best["AP"], best["gain"], partial=partial, unranked=unranked
    )


def _tested(
    finding: Finding, gains: pd.DataFrame | None, pairs: pd.DataFrame | None, supervised: str | None
) -> Finding:
    """Add the test of the gain, and the methods that cannot be told from the best."""
    if math.isnan(finding.gain):
        return finding
    also = []
    for _, row in _of_cell(gains, finding).iterrows():
        if row["method"] != finding.method:
            also += [row["method"]] * bool(row["significant"] and row["gain"] > 0)
        elif row["folds"]:
            bounds = interval(row["low"], row["high"])
            if bounds == "–":
                bounds = f"{interval(row['low_images'], row['high_images'])} (over images alone)"
            test = {"interval": bounds, "folds": int(row["folds"]), "p": row["p_holm"], "gain": row["gain"]}
            finding = replace(finding, **test, significant=bool(row["significant"]))
    tied = []
    for _, row in _of_cell(pairs, finding).iterrows():
        names = {row["first"], row["second"]}
        if finding.method in names and row["folds"] >= MIN_FOLDS and not row["p_holm"] < LEVEL:
            tied += sorted(names - {finding.method, supervised})
    return replace(finding, tied=tuple(tied), also=tuple(also))


def _of_cell(frame: pd.DataFrame | None, finding: Finding) -> pd.DataFrame:
    if frame is None or frame.empty:
        return pd.DataFrame()
    return frame[(frame["network"] == finding.network) & (frame["percent"] == finding.percent)]


def lead(findings: Sequence[Finding], finished: int, supervised: str | None) -> str:
    """Return the sentence that answers the study; finished is the number of finished runs."""
    done = [finding for finding in findings if finding.methods]
    if not finished:
        return "No run is finished yet."
    if bounds := [] if done else _finished_bounds(findings):
        return f"Only {_names(bounds)} is finished, which learns the held-out labels: there is nothing to compare yet."
    if not done:
        return "The mask AP of the finished runs is undefined, as the validation images have no object to find."
    if finished == 1:
        (one,) = done
        return (
            f"One run is finished, {one.method} on {one.network} at {one.percent:g} % labels, with a mask AP of "
            f"{one.ap:.1f}. There is nothing to compare it with yet."
        )
    if len({finding.network for finding in done}) > 1:
        return _over_networks(done, supervised)
    if supervised is None:
        highest = _said(done, "has the highest mask AP", "have the highest mask AP")
        return f"{highest}. The study has no supervised method, so no gain is stated."
    if all(finding.methods == 1 and finding.method == supervised for finding in done):
        return f"Only {supervised} is finished, so no gain is stated."
    compared = [finding for finding in done if not math.isnan(finding.gain)]
    if not compared:
        return f"No method has a finished fold in common with {supervised} yet, so no gain is stated."
    ahead = [finding for finding in compared if finding.gain > 0]
    if not ahead:
        return f"No method is ahead of {supervised}{' so far' if any(one.partial for one in compared) else ''}."
    significant = [finding for finding in ahead if finding.significant]
    significant += [replace(finding, method=method) for finding in ahead for method in finding.also]
    if significant:
        return f"{_said(significant, 'is better than', 'are better than')} {supervised}, by more than luck."
    return f"{_said(ahead, 'is ahead of', 'are ahead of')} {supervised}, {_doubt(ahead)}."


def _said(findings: Sequence[Finding], singular: str, plural: str) -> str:
    """Return where which methods are best, and the beginning of what is said of them."""
    places: dict[str, list[str]] = {}
    for finding in findings:
        places.setdefault(finding.method, []).append(f"{finding.percent:g}")
    where = {method: f"at {_names(percents, len(percents))} % labels" for method, percents in places.items()}
    first = next(iter(where.values()))
    if set(where.values()) == {first}:
        return f"{first.capitalize()}, {_names(list(where))} {singular if len(where) == 1 else plural}"
    return f"{_names([f'{method} ({place})' for method, place in where.items()])} {plural}"


def _finished_bounds(findings: Sequence[Finding]) -> list[str]:
    """Return the methods with a finished run that learn the held-out labels, once each."""
    return list(dict.fromkeys(method for finding in findings for method in finding.bounds))


def _over_networks(done: Sequence[Finding], supervised: str | None) -> str:
    """Return how often which method is best, over networks and percents."""
    text = f"Of {len(done)} networks and percents, {_ranked(done, supervised, 'is best', 'at')}"
    ahead = [finding for finding in done if finding.gain > 0]
    if not ahead:
        return f"{text}."
    significant = sum(_has_significant(finding) for finding in ahead)
    if not significant:
        return f"{text}, {_doubt(ahead)}."
    verb = "has" if significant == 1 else "have"
    return f"{text}; {significant} of {len(ahead)} {verb} a gain over {supervised} that is more than luck."


def _ranked(done: Sequence[Finding], supervised: str | None, verb: str, place: str) -> str:
    """Return the methods by how often they are the best; supervised is, where no other is better."""
    best = [supervised if supervised is not None and finding.gain <= 0 else finding.method for finding in done]
    (first, count), *others = Counter(best).most_common()
    return _names([f"{first} {verb} {place} {count}", *(f"{method} {place} {number}" for method, number in others)])


def _doubt(findings: Sequence[Finding]) -> str:
    """Return why gains are not more than luck."""
    if all(finding.folds == 0 for finding in findings):
        return "but this is not tested, as the predictions are not here"
    if all(finding.folds < MIN_FOLDS for finding in findings):
        return f"but these are single trainings, fewer than {MIN_FOLDS} folds: they cannot tell a method from luck"
    return "but none of these gains is more than luck can give"


def sentences(findings: Sequence[Finding], supervised: str | None) -> list[str]:
    """Return a sentence per percent: of its one network in full, of several networks in sum."""
    by_percent: dict[float, list[Finding]] = {}
    for finding in findings:
        by_percent.setdefault(finding.percent, []).append(finding)
    return [
        f"{percent:g} % labels: {_one(group[0], supervised) if len(group) == 1 else _sum(group, supervised)}."
        for percent, group in by_percent.items()
    ]


def _one(finding: Finding, supervised: str | None) -> str:
    if not finding.methods:
        return f"only {_names(finding.bounds)} is finished" if finding.bounds else "no run is finished"
    so_far = " so far" if finding.partial else ""
    if finding.methods == 1:
        return f"only {finding.method} is finished{so_far}, with a mask AP of {finding.ap:.1f}{_bound(finding)}"
    highest = f"{finding.method} has the highest mask AP{so_far}, {finding.ap:.1f}"
    if supervised is None:
        return highest
    if math.isnan(finding.gain):
        return f"{highest}, without a fold in common with {supervised}"
    gain = signed(finding.gain)
    if finding.gain <= 0:
        nearest = f"the nearest, {finding.method}, has {gain} {finding.interval}".rstrip()
        return f"no method is ahead of {supervised}{so_far}; {nearest}{_bound(finding)}"
    among = f" of those with {MIN_FOLDS} folds," if finding.unranked else ""
    text = f"{finding.method} is best{so_far}{among} with a mask AP of {finding.ap:.1f}, {gain} over {supervised}"
    text += f" {finding.interval}; " if finding.interval else "; "
    text += verdict(finding) + (f", not told apart from {_names(finding.tied)}" if finding.tied else "")
    text += f"; better than {supervised} by more than luck: {_names(finding.also)}" if finding.also else ""
    text += (
        f"; more is gained in fewer than {MIN_FOLDS} folds by {_names(finding.unranked)}" if finding.unranked else ""
    )
    return text + _bound(finding)


def _has_significant(finding: Finding) -> bool:
    """Return whether some method gains more than luck can give, the best one or another."""
    return finding.significant or bool(finding.also)


def _bound(finding: Finding) -> str:
    """Return what the held-out labels themselves would gain, where an oracle has learnt them."""
    return "" if math.isnan(finding.bound) else f"; the held-out labels themselves give {signed(finding.bound)}"


def verdict(finding: Finding) -> str:
    """Return whether a gain is more than luck, by the two-level bootstrap over folds and images."""
    if not finding.folds:
        return "not tested, as the predictions are not here"
    if finding.folds < MIN_FOLDS:
        return f"single trainings ({finding.folds} fold{'s' if finding.folds > 1 else ''}), cannot tell it from luck"
    test = f"p {'' if finding.p < 0.0005 else '= '}{p_value(finding.p)}, {finding.folds} folds"
    return f"more than luck ({test})" if finding.significant else f"may be luck ({test})"


def _sum(findings: Sequence[Finding], supervised: str | None) -> str:
    done = [finding for finding in findings if finding.methods]
    if not done:
        return _one(replace(findings[0], bounds=tuple(_finished_bounds(findings))), supervised)
    if len(done) == 1:
        return f"on {done[0].network}, the only network with a finished run, {_one(done[0], supervised)}"
    partial = len(done) < len(findings) or any(finding.partial for finding in done)
    text = f"of {len(done)} networks, {_ranked(done, supervised, 'is best so far' if partial else 'is best', 'on')}"
    ahead = [finding for finding in done if finding.gain > 0]
    if not ahead:
        return text
    low, high = (extreme(finding.gain for finding in ahead) for extreme in (min, max))
    if signed(low) == signed(high):
        text += f"; gain over {supervised} of {signed(high)}"
    else:
        text += f"; gains over {supervised} from {signed(low)} to {signed(high)}"
    tested = any(finding.folds >= MIN_FOLDS for finding in ahead)
    significant = sum(map(_has_significant, ahead))
    return f"{text}; {significant or 'none'} of {len(ahead)} with a gain that is more than luck" if tested else text


def _names(names: Sequence[str], most: int = MAX_NAMES) -> str:
    """Return `a, b and c`, with at most `most` names, and how many others there are."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def missing_sentence(total: int, missing: Sequence[MissingRun]) -> str:
    """Return how many of all runs are missing, counted by what is known of them; empty where none is."""
    if not missing:
        return ""
    states = Counter("failed" if run.failed else run.state for run in missing)
    names = {"failed": "failed", "trained": "trained but not evaluated", "started": "started", "missing": "not started"}
    counts = [f"{states[state]} {name}" for state, name in names.items() if states[state]]
    verb = "is" if len(missing) == 1 else "are"
    return f"{len(missing)} of {total} runs {verb} missing ({', '.join(counts)}). This command continues the grid:"
