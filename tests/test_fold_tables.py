"""Check the tables method_pairs and convergence_numbers on results whose numbers are known."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from test_reports import evaluation, fabricate, make_study

from pais_bench.errors import NothingToShow
from pais_bench.reports.results import Results
from pais_bench.reports.tables import convergence_numbers, method_pairs
from pais_bench.reports.tables.convergence_numbers import AT_FIRST, EXACT, NEVER, mean_ap, steps_to
from pais_bench.study.run import Run
from pais_bench.study.study import Study

FINAL = {
    "base_line": (10.0, 12.0, 11.0, 10.5, 11.5, 12.5),
    "pais": (12.0, 13.5, 13.0, 11.0, 13.5, 14.0),
    "worse": (10.0, 11.0, 11.5, 9.0, 11.5, 12.0),
}
"""AP in percent of folds 1 to 6 at 1 % of labels."""


def with_final_ap(study: Study, root: Path, missing: Sequence[tuple[str, int]] = ()) -> Results:
    """Fabricate a grid of 1 % of labels with the AP of FINAL; runs of missing and those of 10 % are not trained."""
    fabricate(study, root, lambda run: float(run.split.percent == 1 and _key(run) not in missing))
    for path in root.rglob("metrics.json"):
        content, run = json.loads(path.read_text()), Run(**json.loads((path.parent / "run.json").read_text())["run"])
        content["segm"]["AP"] = FINAL[run.method.label][run.split.fold - 1] / 100
        path.write_text(json.dumps(content))
    return Results.of(study, root)


def _key(run: Run) -> tuple[str, int]:
    return run.method.label, run.split.fold


def pairs(study: Study, results: Results, folder: Path) -> pd.DataFrame:
    csv = method_pairs.Report().write(study, results, folder).files[0]
    return pd.read_csv(csv).set_index(["percent", "first", "second"])


def test_every_pair_of_methods_is_tested_over_the_folds_that_both_have(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2, 3, 4, 5, 6))
    frame = pairs(study, with_final_ap(study, tmp_path, [("worse", 2)]), tmp_path)
    assert list(frame.loc[1.0].index) == [("base_line", "pais"), ("base_line", "worse"), ("pais", "worse")]
    old, new = FINAL["base_line"], FINAL["pais"]
    row, expected = frame.loc[(1, "base_line", "pais")], stats.ttest_rel(new, old)
    interval = expected.confidence_interval(0.95)
    assert (row["folds"], row["difference"]) == (6, pytest.approx(np.mean(new) - np.mean(old), abs=1e-4))
    assert (row["low"], row["high"], row["p"]) == pytest.approx(
        (interval.low, interval.high, expected.pvalue), abs=1e-4
    )
    assert row["p_sign_flip"] == pytest.approx(2 / 64, abs=1e-4), "all six differences are positive"
    pais, worse = (np.delete(FINAL[name], 1) for name in ("pais", "worse"))
    row = frame.loc[(1, "pais", "worse")]
    assert (row["folds"], row["p"]) == (5, pytest.approx(stats.ttest_rel(worse, pais).pvalue, abs=1e-4))
    assert np.isnan(row["p_sign_flip"]), "five folds are too few"
    p = frame.loc[1.0]["p"]
    assert frame.loc[1.0]["p_holm"].tolist() == pytest.approx([2 * p.iloc[0], p.iloc[1], 3 * p.iloc[2]], abs=2e-4)
    assert frame.loc[10.0]["folds"].eq(0).all()
    text = (tmp_path / "method_pairs.md").read_text()
    assert "| small | 1 % | base_line | pais | 6 | +1.6 | [" in text and "] | 0.002 | 0.031 |" in text
    assert "| small | 10 % | pais | worse | 0 | – | – | – | – |" in text
    assert "3 of 6 pairs have fewer than 3 folds in common, which are too few to tell them apart." in text


def test_two_folds_are_tested_and_one_is_nothing_to_show(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    frame = pairs(study, with_final_ap(study, tmp_path / "two"), tmp_path)
    row = frame.loc[(1, "base_line", "pais")]
    assert row["p"] == pytest.approx(stats.ttest_rel([12, 13.5], [10, 12]).pvalue, abs=1e-4)
    text = (tmp_path / "method_pairs.md").read_text()
    assert "6 of 6 pairs have fewer than 3 folds" in text and "sign flip" not in text
    study = make_study(folds=(1,))
    with pytest.raises(NothingToShow, match="no two methods have two finished folds in common"):
        method_pairs.Report().write(study, with_final_ap(study, tmp_path / "one"), tmp_path)


def test_predictions_of_another_codebase_are_a_method_where_the_split_family_is_the_same(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2, 3))
    results = with_final_ap(study, tmp_path)
    row = {"network": "small", "percent": 1.0, "method": "theirs", "state": "done", "source": "a release"}
    rows = [{**row, "family": "soft_teacher", "fold": fold, "segm_AP": 0.1 + 0.01 * fold} for fold in (1, 2, 3)]
    rows += [{**row, "family": "mmdet", "fold": fold, "segm_AP": 0.9} for fold in (1, 2, 3)]
    external = pd.DataFrame(rows, columns=results.external.columns)
    frame = pairs(study, dataclasses.replace(results, external=external), tmp_path)
    others = frame[frame.index.get_level_values("second").str.contains("theirs")].loc[1.0]
    assert list(others.index) == [(own, "theirs ‡ (soft_teacher)") for own in ("base_line", "pais", "worse")]
    assert others["difference"].iloc[0] == pytest.approx(np.mean([11, 12, 13]) - np.mean([10, 12, 11]), abs=1e-4)
    assert "‡ predictions of another codebase" in (tmp_path / "method_pairs.md").read_text()


def test_swapped_methods_change_the_sign_alone(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2, 3))
    results = with_final_ap(study, tmp_path)
    backwards = study.model_copy(update={"methods": dict(reversed(study.methods.items()))})
    row = pairs(study, results, tmp_path).loc[(1, "base_line", "pais")]
    swapped = pairs(backwards, results, tmp_path).loc[(1, "pais", "base_line")]
    assert (row["difference"], row["low"], row["p"]) == (-swapped["difference"], -swapped["high"], swapped["p"])


def test_steps_to_a_target_are_interpolated_or_a_bound() -> None:
    curve = (np.array([100.0, 200, 300, 400]), np.array([10.0, 20, 16, 40]))
    assert steps_to(curve, 15) == (150, EXACT)
    assert steps_to(curve, 20) == (200, EXACT), "the first time counts, though it falls below again"
    assert steps_to(curve, 30) == (pytest.approx(300 + 100 * 14 / 24), EXACT)
    assert steps_to(curve, 41) == (400, NEVER)
    assert steps_to(curve, 10) == (100, AT_FIRST)
    assert mean_ap(curve) == pytest.approx((15 + 18 + 28) / 3)


LOGS = {
    # method: AP in percent at steps 5, 10, 15, 20, of folds 1 and 2
    "base_line": ((10.0, 14.0, 16.0, 20.0), (10.0, 20.0, 30.0, 40.0)),
    "pais": ((10.0, 18.0, 20.0, 22.0), (20.0, 36.0, 38.0, 40.0)),
    "worse": ((18.5, 18.0, 19.0, 20.0), (10.0, 20.0, 30.0, 35.0)),
}


def with_logs(study: Study, root: Path, logs: Mapping[str, Sequence[Sequence[float]]], untrained: str = "") -> Results:
    """Fabricate runs at 1 % of labels with these evaluations in their logs."""
    fabricate(study, root, lambda run: (0.5 if _key(run) == (untrained, 2) else 1) * (run.split.percent == 1))
    for run in study.runs():
        path = root / run.folder / "log.jsonl"
        if path.exists() and _key(run) != (untrained, 2):
            ap = logs[run.method.label][run.split.fold - 1]
            path.write_text("".join(evaluation(5 * step, value / 100) for step, value in enumerate(ap, start=1)))
    return Results.of(study, root)


def convergence(study: Study, results: Results, folder: Path) -> tuple[pd.DataFrame, str]:
    csv, markdown, _ = convergence_numbers.Report().write(study, results, folder).files
    return pd.read_csv(csv).set_index(["percent", "method"]), markdown.read_text()


def test_convergence_in_numbers_with_bounds_that_are_not_averaged(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    frame, text = convergence(study, with_logs(study, tmp_path, LOGS), tmp_path)
    # Targets 18 and 36. base_line: 17.5 and 18; pais: 10 and 10; worse: 5 or before, and not in 20.
    base_line, pais, worse = (frame.loc[(1, name)] for name in LOGS)
    assert (base_line["steps"], pais["steps"], pais["steps_difference"]) == (17.75, 10, -7.75)
    half = stats.t.ppf(0.975, 1) * np.std([-7.5, -8], ddof=1) / np.sqrt(2)
    assert (pais["steps_low"], pais["steps_high"]) == pytest.approx((-7.75 - half, -7.75 + half), abs=1e-4)
    assert worse["bound"] == NEVER and (worse["bound_folds"], worse["bound_step"]) == (1, 20)
    assert worse[["steps", "steps_difference", "steps_low"]].isna().all(), "a bound is not averaged"
    areas = [[(10 / 2 + 14 + 16 + 20 / 2) / 3, 25], [(5 + 18 + 20 + 11) / 3, (10 + 36 + 38 + 20) / 3]]
    assert base_line["mean_AP"] == pytest.approx(np.mean(areas[0]), abs=1e-4)
    assert pais["mean_AP_difference"] == pytest.approx(np.mean(areas[1]) - np.mean(areas[0]), abs=1e-4)
    assert base_line[["steps_difference", "mean_AP_difference"]].isna().all()
    assert "| small | 1 % | pais | 2 | 10 | −8 [−11, −5] | 26.3 | +6.3 [" in text
    assert "| small | 1 % | worse | 2 | > 20 in 1 of 2 folds | – |" in text and "Bounds are not averaged" in text
    assert "| small | 10 % | pais | 0 | – | – | – | – |" in text and "3 of 6 cells lack folds." in text
    assert r"$>$ 20 in 1 of 2 folds" in (tmp_path / "convergence_numbers.tex").read_text()


def test_one_fold_an_unfinished_run_and_a_start_above_the_target(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    frame, text = convergence(study, with_logs(study, tmp_path, LOGS, untrained="base_line"), tmp_path)
    assert frame.loc[1.0]["folds"].tolist() == [1, 2, 2] and frame.loc[1.0]["folds_with_target"].tolist() == [1, 1, 1]
    pais, worse = frame.loc[(1, "pais")], frame.loc[(1, "worse")]
    assert (pais["steps_difference"], np.isnan(pais["steps_low"])) == (-7.5, True), "fold 1 alone has a target"
    assert (worse["bound"], worse["bound_step"]) == (AT_FIRST, 5)
    assert "| small | 1 % | worse | 2 | ≤ 5 | – |" in text and "| −8 |" in text
    assert r"$\le$ 5" in (tmp_path / "convergence_numbers.tex").read_text()


def test_without_supervised_there_is_an_area_alone_and_without_evaluations_nothing(tmp_path: Path) -> None:
    study = make_study()
    results = with_logs(study, tmp_path / "one", LOGS)
    alone = study.model_copy(update={"methods": {"pais": study.methods["pais"]}})
    frame, text = convergence(alone, Results.of(alone, tmp_path / "one"), tmp_path)
    assert frame.loc[(1, "pais"), "mean_AP"] == pytest.approx(18, abs=1e-4) and "no supervised method" in text
    assert frame.loc[(1, "pais"), ["steps", "steps_difference", "mean_AP_difference"]].isna().all()
    worse = study.methods["worse"].model_copy(update={"training": {"evaluate_images": 8}})
    fewer = study.model_copy(update={"methods": {**study.methods, "worse": worse}})
    row = convergence(fewer, results, tmp_path)[0].loc[(1, "worse")]
    assert row["folds_with_target"] == 0 and np.isnan(row["mean_AP_difference"]), "other images have another AP"
    nothing = [[0.0] * 4, [0.0] * 4]
    zero = with_logs(study, tmp_path / "zero", {**LOGS, "base_line": nothing})
    frame, _ = convergence(study, zero, tmp_path)
    assert frame.loc[(1, "pais"), "folds_with_target"] == 0, "90 % of nothing is no target"
    single = with_logs(study, tmp_path / "single", {name: [ap[:1] for ap in folds] for name, folds in LOGS.items()})
    with pytest.raises(NothingToShow, match="no trained run has two evaluations"):
        convergence_numbers.Report().frame(study, single)
