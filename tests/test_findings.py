"""Check the words at the head of the page: a sentence for every way in which a study can stand."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from pais_bench.reports.findings import find, lead, missing_sentence, sentences
from pais_bench.reports.missing_runs import MissingRun
from pais_bench.reports.overview import cards
from pais_bench.reports.table import p_value

NAN = math.nan
Cell = tuple[str, float, float, int]
"""Method, AP, gain and finished folds of three."""


def main_table(*cells: Cell, network: str = "small", percent: float = 10) -> pd.DataFrame:
    """Return the frame of main_table for one network and percent."""
    rows = [(network, percent, "teacher", method, ap, gain, folds, 3) for method, ap, gain, folds in cells]
    columns = ["network", "percent", "model", "method", "AP", "gain", "folds", "folds_expected"]
    return pd.DataFrame(rows, columns=columns)


def gain_test(method: str, gain: float, folds: int, p: float, network: str = "small") -> pd.DataFrame:
    """Return the frame of significance for one method, with an interval of 1 on either side."""
    bounds = (gain - 1, gain + 1) if folds > 1 else (NAN, NAN)
    row: dict[str, Any] = {"network": network, "percent": 10, "method": method, "folds": folds, "gain": gain}
    row |= {"low": bounds[0], "high": bounds[1], "low_images": gain - 0.5, "high_images": gain + 0.5}
    return pd.DataFrame([{**row, "p_holm": p, "significant": folds >= 3 and p < 0.05}])


def said(
    cells: pd.DataFrame, gains: pd.DataFrame | None = None, finished: int = 9, base: str | None = "sup"
) -> list[str]:
    """Return the lead and the sentences of each percent."""
    found = find(cells, gains, None, base)
    return [lead(found, finished, base), *sentences(found, base)]


THREE = main_table(("sup", 40.0, NAN, 3), ("pais", 42.5, 2.5, 3), ("weak", 39.0, -1.0, 3))
BEST = "10 % labels: pais is best with a mask AP of 42.5, +2.5 over sup [+1.5, +3.5]"


@pytest.mark.parametrize(
    ("cells", "gains", "expected"),
    [
        (
            THREE,
            gain_test("pais", 2.5, 3, 0.012),
            [
                "At 10 % labels, pais is better than sup, by more than luck.",
                f"{BEST}; more than luck (p = 0.012, 3 folds).",
            ],
        ),
        (
            THREE,
            gain_test("pais", 2.5, 3, 0.0001),
            [
                "At 10 % labels, pais is better than sup, by more than luck.",
                f"{BEST}; more than luck (p < 0.001, 3 folds).",
            ],
        ),
        (
            THREE,
            gain_test("pais", 2.5, 3, 0.2),
            [
                "At 10 % labels, pais is ahead of sup, but none of these gains is more than luck can give.",
                f"{BEST}; may be luck (p = 0.200, 3 folds).",
            ],
        ),
        (
            main_table(("sup", 40.0, NAN, 3), ("pais", 39.8, -0.2, 3), ("weak", 39.0, -1.0, 3)),
            gain_test("pais", -0.2, 3, 0.9),
            [
                "No method is ahead of sup.",
                "10 % labels: no method is ahead of sup; the nearest, pais, has −0.2 [−1.2, +0.8].",
            ],
        ),
        (
            THREE,
            gain_test("pais", 2.5, 1, NAN),
            [
                "At 10 % labels, pais is ahead of sup, but these are single trainings, fewer than 3 folds: they cannot "
                "tell a method from luck.",
                "10 % labels: pais is best with a mask AP of 42.5, +2.5 over sup [+2.0, +3.0] (over images alone); "
                "single trainings (1 fold), cannot tell it from luck.",
            ],
        ),
        (
            THREE,
            None,
            [
                "At 10 % labels, pais is ahead of sup, but this is not tested, as the predictions are not here.",
                "10 % labels: pais is best with a mask AP of 42.5, +2.5 over sup; not tested, as the predictions are "
                "not here.",
            ],
        ),
    ],
    ids=["gain", "certain gain", "perhaps luck", "no gain", "one fold", "no predictions"],
)
def test_a_gain_and_whether_it_is_more_than_luck(
    cells: pd.DataFrame, gains: pd.DataFrame | None, expected: list[str]
) -> None:
    assert said(cells, gains) == expected


def test_an_unfinished_grid_ranks_by_paired_gains_and_says_so() -> None:
    cells = main_table(("sup", 40.0, NAN, 3), ("pais", 41.0, 2.5, 3), ("weak", 42.0, 1.0, 4), ("late", 44.0, 4.0, 2))
    cells["folds_expected"] = 5
    text = said(cells, gain_test("pais", 2.5, 3, 0.2))[1]
    assert text.startswith("10 % labels: pais is best so far of those with 3 folds, with a mask AP of 41.0, +2.5")
    assert text.endswith("; more is gained in fewer than 3 folds by late.")
    worse = main_table(("sup", 40.0, NAN, 3), ("pais", 22.0, -18.0, 3))
    worse["folds_expected"] = 5
    assert said(worse)[0] == "No method is ahead of sup so far."
    late = main_table(("late", 55.0, 15.0, 2))
    assert said(pd.concat([worse, late]))[1].startswith(
        "10 % labels: late is best so far with a mask AP of 55.0, +15.0"
    )
    waiting = main_table(("sup", 40.0, NAN, 1), ("pais", 41.0, NAN, 1))
    assert said(waiting) == [
        "No method has a finished fold in common with sup yet, so no gain is stated.",
        "10 % labels: pais has the highest mask AP so far, 41.0, without a fold in common with sup.",
    ]
    none = main_table(("sup", NAN, NAN, 0), ("pais", NAN, NAN, 0))
    assert said(none, finished=0) == ["No run is finished yet.", "10 % labels: no run is finished."]
    assert said(none)[0].startswith("The mask AP of the finished runs is undefined")
    only = pd.concat([main_table(("sup", 40.0, NAN, 1), ("pais", NAN, NAN, 0)), none.assign(percent=20)])
    assert said(only, finished=1)[0] == (
        "One run is finished, sup on small at 10 % labels, with a mask AP of 40.0. There is nothing to compare it with "
        "yet."
    )
    assert said(only)[0] == "Only sup is finished, so no gain is stated."
    assert said(only)[1] == "10 % labels: only sup is finished so far, with a mask AP of 40.0."


def test_a_study_without_a_supervised_method_states_no_gain() -> None:
    cells = main_table(("pais", 42.5, NAN, 3), ("weak", 39.0, NAN, 3))
    assert said(cells, base=None) == [
        "At 10 % labels, pais has the highest mask AP. The study has no supervised method, so no gain is stated.",
        "10 % labels: pais has the highest mask AP, 42.5.",
    ]


def test_methods_that_the_folds_do_not_tell_apart_are_named() -> None:
    cells = main_table(("sup", 40.0, NAN, 3), ("pais", 42.5, 2.5, 3), ("near", 42.0, 2.0, 3), ("far", 39.0, -1.0, 3))
    pairs = pd.DataFrame(
        [("pais", "near", 3, 0.6), ("pais", "far", 3, 0.01), ("sup", "pais", 3, 0.6), ("near", "far", 3, 0.6)],
        columns=["first", "second", "folds", "p_holm"],
    ).assign(network="small", percent=10)
    (finding,) = find(cells, gain_test("pais", 2.5, 3, 0.01), pairs, "sup")
    assert finding.tied == ("near",)
    assert sentences([finding], "sup")[0].endswith("more than luck (p = 0.010, 3 folds), not told apart from near.")


def test_a_steadier_method_behind_the_best_is_named_where_its_gain_alone_is_more_than_luck() -> None:
    cells = main_table(("sup", 40.0, NAN, 3), ("pais", 42.5, 2.5, 3), ("steady", 42.0, 2.0, 3))
    gains = pd.concat([gain_test("pais", 2.5, 3, 0.2), gain_test("steady", 2.0, 3, 0.01)])
    assert said(cells, gains) == [
        "At 10 % labels, steady is better than sup, by more than luck.",
        f"{BEST}; may be luck (p = 0.200, 3 folds); better than sup by more than luck: steady.",
    ]
    both = pd.concat([gain_test("pais", 2.5, 3, 0.02), gain_test("steady", 2.0, 3, 0.01)])
    assert said(cells, both)[0] == "At 10 % labels, pais and steady are better than sup, by more than luck."


def test_the_gain_of_the_held_out_labels_is_said_and_not_ranked() -> None:
    cells = main_table(("sup", 40.0, NAN, 3), ("pais", 42.5, 2.5, 3), ("all_labels", 47.0, 7.0, 3))
    (finding,) = find(cells, gain_test("pais", 2.5, 3, 0.012), None, "sup", ["all_labels"])
    assert (finding.method, finding.methods, finding.bound) == ("pais", 2, 7.0)
    end = "; the held-out labels themselves give +7.0."
    assert sentences([finding], "sup") == [f"{BEST}; more than luck (p = 0.012, 3 folds){end}"]
    (worse,) = find(cells.assign(gain=[NAN, -0.5, 0.4]), None, None, "sup", ["all_labels"])
    assert sentences([worse], "sup")[0].endswith("pais, has −0.5; the held-out labels themselves give +0.4.")


def test_finished_runs_of_the_bound_alone_are_not_called_undefined() -> None:
    cells = main_table(("sup", NAN, NAN, 0), ("all_labels", 47.0, NAN, 1))
    findings = find(cells, None, None, "sup", ["all_labels"])
    assert (
        lead(findings, 1, "sup")
        == "Only all_labels is finished, which learns the held-out labels: there is nothing to compare yet."
    )
    assert sentences(findings, "sup") == ["10 % labels: only all_labels is finished."]
    cells = main_table(("sup", 40.0, NAN, 1), ("all_labels", 47.0, 7.0, 1))
    assert sentences(find(cells, None, None, "sup", ["all_labels"]), "sup") == [
        "10 % labels: only sup is finished so far, with a mask AP of 40.0; the held-out labels themselves give +7.0."
    ]


def test_several_networks_are_summed_up() -> None:
    worse = main_table(("sup", 40.0, NAN, 3), ("pais", 39.0, -1.0, 3), network="other")
    cells, gains = pd.concat([THREE, worse]), gain_test("pais", 2.5, 3, 0.01)
    assert said(cells, gains) == [
        "Of 2 networks and percents, pais is best at 1 and sup at 1; 1 of 1 has a gain over sup that is more than "
        "luck.",
        "10 % labels: of 2 networks, pais is best on 1 and sup on 1; gain over sup of +2.5; "
        "1 of 1 with a gain that is more than luck.",
    ]
    behind = pd.concat([gain_test("pais", 2.5, 3, 0.2), gain_test("weak", 1.0, 3, 0.01)])
    text = said(pd.concat([THREE.replace({"gain": {-1.0: 1.0}}), worse]), behind)
    assert text[0].endswith("; 1 of 1 has a gain over sup that is more than luck."), "another method's than the best"
    unfinished = main_table(("sup", NAN, NAN, 0), ("pais", NAN, NAN, 0), network="other")
    text = said(pd.concat([THREE, unfinished]), gains)[1]
    assert text.startswith("10 % labels: on small, the only network with a finished run, pais is best with")


def test_a_p_value_tells_on_which_side_of_the_level_it_is() -> None:
    assert [p_value(p) for p in (0.0497, 0.0503, 0.0494, 0.0506, 0.0004, 0.0005)] == [
        *("0.0497", "0.0503", "0.049", "0.051", "< 0.001", "0.001")
    ]


def test_what_is_missing_is_counted_once() -> None:
    states = [("started", True), ("started", False), ("missing", False), ("trained", False), ("missing", True)]
    missing = [MissingRun(None, state, "", (), failed) for state, failed in states]  # type: ignore[arg-type]
    assert missing_sentence(18, missing) == (
        "5 of 18 runs are missing (2 failed, 1 trained but not evaluated, 1 started, 1 not started). This command "
        "continues the grid:"
    )
    assert missing_sentence(18, missing[1:2]).startswith("1 of 18 runs is missing (1 started).")
    assert missing_sentence(18, []) == ""


def test_the_cards_count_runs_and_the_hours_of_every_device() -> None:
    runs = pd.DataFrame(
        {
            "state": ["done", "done", "started", "missing", "done"],
            "wall_seconds": [3600, 5400, NAN, NAN, 1800],
            "begun_with": ["", "burn_in", "", "", "burn_in"],
            "burn_in_seconds": [0.0, 900.0, 0.0, 0.0, 900.0],
            "devices": [2, NAN, NAN, NAN, 1],
            "device": ["H200", "cpu", None, None, "cpu"],
        }
    )
    failed = MissingRun(None, "started", "train failed", (), True)  # type: ignore[arg-type]
    shown = [(card.value, card.label, card.detail, card.alarming) for card in cards(runs, [failed], warned=1)]
    assert shown == [
        ("3 of 5", "runs done", "", False),
        ("1", "failed", "", True),
        ("3.8", "device hours of training", "on H200, cpu", False),
        ("1", "runs with warnings", "", True),
    ]
    short = cards(runs.assign(wall_seconds=60, begun_with="", devices=1), [], warned=0)
    assert [(card.value, card.label) for card in short[1:]] == [("0", "failed"), ("5", "minutes of training")]
