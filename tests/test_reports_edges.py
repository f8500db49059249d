"""Check the reports of results that have nothing, one value, or the same value everywhere, and of those that fail."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_figures import STUDY
from test_reports import fabricate, make_study

from pais_bench import plugins
from pais_bench.cli.main import main
from pais_bench.errors import NothingToShow
from pais_bench.reports.results import Results
from pais_bench.reports.write import write_reports
from pais_bench.study.load import load_study
from pais_bench.study.study import Study

EMPTY_BINS = [[0, 0, 0]] * 10
NONE = dict.fromkeys(("kept_per_image", "precision", "recall", "matched_iou", "class_accuracy"))
BINS = ("score_bins", "mask_iou_bins")


def one_bin(count: int, value: float | None) -> dict[str, Any]:
    return dict.fromkeys(BINS, [*EMPTY_BINS[:9], [count, value, value]])


PSEUDO_LABELS: dict[str, dict[str, Any]] = {
    "nothing was kept": {**NONE, "kept_per_image": 0.0, "recall": 0.0, "sample": [], **dict.fromkeys(BINS, EMPTY_BINS)},
    "no held-out labels": {**NONE, "sample": [], **dict.fromkeys(BINS, EMPTY_BINS)},
    "no arrays": NONE,
    "undefined": {**NONE, "sample": [[0.9, None, None, None, None]], **one_bin(1, None)},
    "one": {**dict.fromkeys(NONE, 1.0), "sample": [[1, 1, 1, 1, 1]], **one_bin(1, 1.0)},
    "all zero": {**dict.fromkeys(NONE, 0.0), "kept_per_image": 1.0, "sample": [[0, 0, 0, 0, 0]] * 4, **one_bin(4, 0.0)},
}
OMITTED = {
    "nothing was kept": "No training kept a pseudo-label",
    **dict.fromkeys(("no held-out labels", "no arrays"), "The logs have no"),
}


def log(study: Study, root: Path, pseudo: dict[str, Any], methods: tuple[str, ...]) -> Results:
    """Log the same pseudo-labels in two steps of every run of some methods."""
    fabricate(study, root)
    for run in study.runs():
        if run.method.label in methods:
            with (root / run.folder / "log.jsonl").open("a") as file:
                file.writelines(
                    json.dumps({"event": "step", "step": step, "seconds": 1.0, "pseudo": pseudo}) + "\n"
                    for step in (15, 20)
                )
    return Results.of(study, root)


@pytest.mark.parametrize("kind", PSEUDO_LABELS)
def test_figures_of_pseudo_labels_are_drawn_or_omitted_with_the_reason(kind: str, tmp_path: Path) -> None:
    results = log(make_study(), tmp_path, PSEUDO_LABELS[kind], ("pais", "worse"))
    for name in ("pseudo_label_quality", "calibration", "score_iou"):
        report = plugins.load("reports", name).Report()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if kind in OMITTED and name != "pseudo_label_quality":
                with pytest.raises(NothingToShow, match=OMITTED[kind]):
                    report.write(make_study(), results, tmp_path)
            else:
                assert {path.suffix for path in report.write(make_study(), results, tmp_path).files} > {".pdf", ".png"}


def test_a_method_that_kept_nothing_does_not_hide_one_that_did(tmp_path: Path) -> None:
    study = make_study()
    log(study, tmp_path, PSEUDO_LABELS["one"], ("pais",))
    for run in study.runs():
        if run.method.label == "worse":
            line = {"event": "step", "step": 20, "seconds": 1.0, "pseudo": PSEUDO_LABELS["nothing was kept"]}
            with (tmp_path / run.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
    points = plugins.load("reports", "calibration").Report().points(study, Results.of(study, tmp_path))
    assert set(points["method"]) == {"pais"}


@pytest.mark.parametrize("ap", [None, 0.0])
def test_an_undefined_ap_is_a_dash_everywhere_and_zero_is_zero(ap: float | None, tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    fabricate(study, tmp_path)
    numbers = {"AP": ap, "AP50": ap}
    for run in study.runs():
        path = tmp_path / run.folder / "metrics.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "segm": numbers, "bbox": numbers, "per_class": {"disc": ap}}))
        lines = [
            {**json.loads(line), **dict.fromkeys(("teacher", "student"), {"segm_AP": ap, "bbox_AP": ap})}
            for line in (tmp_path / run.folder / "log.jsonl").read_text().splitlines()
        ]
        (tmp_path / run.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = Results.of(study, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = write_reports(study, results, tmp_path / "reports")
    assert not written.failures
    table = (tmp_path / "reports" / "main_table.md").read_text()
    assert ("| small | pais | – | – |" if ap is None else "| small | pais | 0.0 ± 0.0 (+0.0) |") in table
    assert ("– although finished: AP is undefined" in table) == (ap is None)
    for path in written.paths:
        if path.suffix in (".md", ".tex", ".html"):
            assert ">nan<" not in path.read_text() and " nan " not in path.read_text(), path.name
    cost = plugins.load("reports", "accuracy_cost").Report().points(study, results)
    assert len(cost) == (0 if ap is None else 6), "a row without folds would be noted as of another codebase"


def test_a_report_that_fails_is_named_and_costs_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    study = load_study(tmp_path / "study.yaml")
    fabricate(study, tmp_path / "results")
    run = study.runs()[0]
    path = tmp_path / "results" / run.folder / "run.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "hardware": {"device": 0, "devices": 1}}))
    reports = tmp_path / "results" / "reports" / "try_out"
    reports.mkdir(parents=True)
    (reports / "cost.md").write_text("numbers of an earlier day")
    command = ["report", str(tmp_path / "study.yaml"), "--results", str(tmp_path / "results")]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pais_bench.reports.figures.score_iou", None)
        assert main(command) == 2
    out, err = capsys.readouterr()
    assert "small    pais" in out, "the main table is printed"
    assert "pais-bench report: error: score_iou could not be written: ModuleNotFoundError: import of" in err
    assert "pais-bench report: error: cost could not be written: TypeError: '<' not supported" in err
    assert "every other report is written" in err and "Traceback" not in err
    assert "| small | pais | 13.0 ± 0.7 (+2.5) |" in (reports / "main_table.md").read_text()
    assert (reports / "convergence.png").exists() and not (reports / "cost.md").exists()
    page = (reports / "report.html").read_text()
    assert "<h2>Failed reports</h2>" in page and "<b>cost</b>: TypeError" in page
    assert "Traceback (most recent call last)" in (reports / "errors.txt").read_text()
    path.write_text(whole)
    assert main(command) == 0
    assert (reports / "cost.md").exists() and not (reports / "errors.txt").exists()
    assert "Failed reports" not in (reports / "report.html").read_text()
