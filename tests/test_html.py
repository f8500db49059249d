"""Check that report.html shows a study without any other file, and is safe to open."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import escape
from test_reports import fabricate, half, make_study

from pais_bench import plugins
from pais_bench.annotations.store import MANIFEST, dataset_folder
from pais_bench.reports.chart import SYMBOLS
from pais_bench.reports.figures import label_efficiency
from pais_bench.reports.html import GLYPHS, write_page
from pais_bench.reports.missing_runs import MissingRun, grid_command, missing_runs
from pais_bench.reports.report import Section
from pais_bench.reports.results import Results
from pais_bench.reports.run_warnings import run_warnings
from pais_bench.reports.table import Bold, Table
from pais_bench.reports.write import write_reports
from pais_bench.runs import trained_data
from pais_bench.runs.files import LOCK
from pais_bench.runs.job_log import CONTINUE
from pais_bench.study.study import DatasetChoice, Study
from pais_bench.whole_file import write_text

HOSTILE = "<script>document.title='owned'</script>\"'&{{ 7 * 7 }}"


def write(study: Study, results: Results, folder: Path, *sections: Section) -> str:
    """Write a page of these sections, and return its text."""
    folder.mkdir(exist_ok=True)
    return write_page(study, results, sections, folder / "report.html", "my study.yaml").read_text()


def table(rows: list[list[str]]) -> Section:
    """Return the section of a table with a text and a number column."""
    return Section(
        "classes", "A title", (Path("classes.csv"),), Table("A caption.", ["name", "value"], rows, 1, ["A note."])
    )


def test_the_page_is_one_file_that_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, few = plugins.names, ["label_efficiency", "main_table", "per_class"]
    monkeypatch.setattr(plugins, "names", lambda group: few if group == "reports" else known(group))
    study = make_study(folds=(1, 2))
    write_reports(study, fabricate(study, tmp_path / "results", half), tmp_path / "out", "try.yaml")
    text = (tmp_path / "out" / "report.html").read_text()
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"'\s>)]+)", text)
    assert sources and all(re.match(r"data:image/png;base64,|#[\w-]+$|[\w.]+$", source) for source in sources)
    assert text.count('src="data:image/png;base64,') == (0 if find_spec("plotly") else 1)
    assert '<a href="label_efficiency.pdf">PDF</a> <a href="label_efficiency.png">PNG</a>' in text
    assert "<b>5 of 12</b> <span>runs done</span>" in text
    assert "7 of 12 runs are missing (3 started, 4 not started)" in text
    assert "At 1 % labels, pais is ahead of base_line, but this is not tested" in text
    assert "<h2>Mask AP by percent of labels</h2>" in text


def test_the_policy_allows_this_script_and_plotly_alone(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    study = make_study()
    write_reports(study, fabricate(study, tmp_path / "results"), tmp_path)
    text = (tmp_path / "report.html").read_text()
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]+)"', text)[0])
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    (packed,) = re.findall(r'<script type="text/plain" id="library">(.*?)</script>', text)
    library = gzip.decompress(base64.b64decode(packed))
    assert library.startswith(b"/**\n* plotly.js v")
    digests = [base64.b64encode(hashlib.sha256(code).digest()).decode() for code in (script.encode(), library)]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


def test_without_plotly_the_figures_are_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    study = make_study()
    section = label_efficiency.Report().write(study, fabricate(study, tmp_path / "results"), tmp_path)
    charts = label_efficiency.Report().charts(study, Results.of(study, tmp_path / "results"), section.frame)
    text = write(study, Results.of(study, tmp_path / "results"), tmp_path, replace(section, charts=charts))
    assert text.count('src="data:image/png;base64,') == 1 and "the package plotly" in text


def test_interactive_figures_that_fail_are_named_and_cost_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, few = plugins.names, ["label_efficiency", "main_table"]
    monkeypatch.setattr(plugins, "names", lambda group: few if group == "reports" else known(group))
    monkeypatch.setattr(label_efficiency.Report, "charts", lambda *arguments: 1 / 0)
    study = make_study()
    written = write_reports(study, fabricate(study, tmp_path / "results"), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert written.failures == {"label_efficiency": "interactive figures: ZeroDivisionError: division by zero"}
    assert "<b>label efficiency</b>: interactive figures: ZeroDivisionError" in text
    assert text.count('src="data:image/png;base64,') == 1 and (tmp_path / "label_efficiency.pdf").exists()
    assert "label_efficiency, interactive figures" in (tmp_path / "errors.txt").read_text()


def test_names_are_escaped(tmp_path: Path) -> None:
    study = make_study().model_copy(update={"title": HOSTILE})
    results = fabricate(study, tmp_path / "results")
    for run in study.runs():
        path = tmp_path / "results" / run.folder / "run.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "commit": HOSTILE, "hardware": {"device": HOSTILE}}))
    text = write(study, results, tmp_path, table([[HOSTILE, "1.0"], ["a|b", Bold("2.0")]]))
    assert len(re.findall(r"<script(?: type=\"application/json\" id=\"charts\")?>", text)) == 2
    assert text.count("<script") == 2 and "owned" in text
    assert "{{ 7 * 7 }}" in text
    assert text.count(str(escape(HOSTILE))) > 3
    assert "<td>a|b</td>" in text and "<b>2.0</b>" in text


def test_every_symbol_of_a_line_has_a_sign_of_its_own_in_the_legend() -> None:
    assert {*SYMBOLS.values(), *(f"{symbol}-open" for symbol in SYMBOLS.values())} == set(GLYPHS)
    assert len(set(GLYPHS.values())) == len(GLYPHS)


def test_a_table_has_bold_cells_aligned_numbers_and_broken_long_texts(tmp_path: Path) -> None:
    study, long = make_study(), "word " * 13
    results = Results.of(study, tmp_path)
    text = write(study, results, tmp_path, table([["first", Bold("+1.0")], ["second", "–"]]))
    assert '<th>name</th><th class="number">value</th>' in text
    assert '<td>first</td><td class="number"><b>+1.0</b></td>' in text
    assert '<td>second</td><td class="number">–</td>' in text
    assert "A caption." in text and "A note." in text
    text = write(study, results, tmp_path, table([["a", long], ["b", "–"]]))
    assert '<th class="long">value</th>' in text
    assert f'<td>a</td><td class="long">{long}</td>' in text and '<td class="long">–</td>' in text


def by_cell(missing: list[MissingRun]) -> dict[tuple[str, float, int], MissingRun]:
    return {(entry.run.method.label, entry.run.split.percent, entry.run.split.fold): entry for entry in missing}


STOPPED = "stopped, or still training, at step 10 of 20"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (None, STOPPED),
        ("pais-bench train: error: x: loss not finite\n", "train failed: x: loss not finite"),
        ("Traceback (most recent call last):\n  a\nMemoryError: no\n\n", "train failed: MemoryError: no"),
        ("12:00:01 all is well\n", STOPPED),
        (f"pais-bench train: error: x: loss not finite\n12:00:09 saved and stopped; {CONTINUE}\n", STOPPED),
    ],
)
def test_a_missing_run_has_its_reason_and_the_commands_that_make_it(
    tmp_path: Path, log: str | None, reason: str
) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path, half)
    if log is not None:
        run = next(run for run in study.runs() if run.method.label == "pais" and run.split.fold == 2)
        path = tmp_path / "logs" / run.folder / "train.log"
        path.parent.mkdir(parents=True)
        path.write_text(log)
    missing = by_cell(missing_runs(study, results, "my study.yaml"))
    assert len(missing) == 7 and sum(entry.failed for entry in missing.values()) == (reason != STOPPED)
    started = missing["pais", 1, 2]
    assert (started.state, started.reason) == ("started", reason)
    start = "'my study.yaml' --results"
    rest = "--percent 1 --fold 2 --network small --method pais"
    assert started.commands == tuple(
        f"pais-bench {command} {start} {tmp_path} {rest}" for command in ("train", "predict", "evaluate")
    )
    assert missing["worse", 10, 1].reason == "not started"
    assert grid_command("try.yaml", tmp_path) == f"pais-bench run try.yaml --results {tmp_path}"


def test_a_run_that_trains_again_after_an_error_has_not_failed(tmp_path: Path) -> None:
    study = make_study()
    results = fabricate(study, tmp_path, half)
    run = next(entry.run for entry in missing_runs(study, results, "s") if entry.state == "started")
    log = tmp_path / "logs" / run.folder / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("pais-bench train: error: out of memory\n12:00:09 12 of 1200 images labelled, step 10 of 20\n")
    assert [entry.run for entry in missing_runs(study, results, "s") if entry.failed] == [run]
    (tmp_path / run.folder / LOCK).touch()
    assert not any(entry.failed for entry in missing_runs(study, results, "s"))


def test_the_remaining_commands_start_at_the_first_missing_file(tmp_path: Path) -> None:
    study = make_study()
    fabricate(study, tmp_path)
    first, second = study.runs()[:2]
    for run in (first, second):
        (tmp_path / run.folder / "metrics.json").unlink()
    (tmp_path / second.folder / "predictions.json").write_text("[]")
    missing = missing_runs(study, Results.of(study, tmp_path), "s")
    assert [entry.reason for entry in missing] == ["trained, not predicted", "predicted, not evaluated"]
    commands = [[command.split()[1] for command in entry.commands] for entry in missing]
    assert commands == [["predict", "evaluate"], ["evaluate"]]


def test_a_run_on_other_data_begins_with_its_training(tmp_path: Path) -> None:
    """Check it where a training on the prepared data is kept: predict refuses until train has taken it back."""
    study = make_study()
    fabricate(study, tmp_path)
    folder, manifest = tmp_path / study.runs()[0].folder, dataset_folder(tmp_path, study.dataset.label) / MANIFEST
    kept = trained_data.kept(folder, "now")
    kept.mkdir()
    for name in ("run.json", "log.jsonl"):
        shutil.copy(folder / name, kept)
    write_text(folder / "data.json", json.dumps({"content": "before"}))
    write_text(manifest, json.dumps({"content": "now"}))
    (missing,) = missing_runs(study, Results.of(study, tmp_path), "s")
    assert (missing.state, missing.reason) == ("trained", "trained on other data than the prepared one")
    assert [command.split()[1] for command in missing.commands] == ["train", "predict", "evaluate"]


USUAL: dict[str, Any] = {
    "commit": "a" * 40,
    "digest": "11111111",
    "versions": {"torch": "2.10"},
    "hardware": {"device": "cpu"},
    "split": {"percent": 10, "fold": 1, "sha256": "s", "effective_percent": 10.05},
}
NO_LOG = pd.DataFrame(), pd.DataFrame()


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"commit": "b" * 40}, "source bbbbbbbbbbbb, most runs of the study aaaaaaaaaaaa"),
        ({"commit": "a" * 40 + "+changes"}, "trained from files that differ from their commit"),
        ({"earlier_commits": ["b" * 40]}, "begun with other sources: bbbbbbbbbbbb"),
        ({"versions": {"torch": "2.15"}}, "torch 2.15, most runs of the study 2.10"),
        ({"hardware": {"device": "H200"}}, "device H200, most runs of the study cpu"),
        ({"split": {**USUAL["split"], "effective_percent": 9.51}}, "9.51 % of the images are labelled, not 10 %"),
        ({"split": {**USUAL["split"], "note": "drawn with replacement"}}, "split: drawn with replacement"),
    ],
)
def test_a_run_that_differs_from_the_others_has_a_warning(changes: dict[str, Any], warning: str) -> None:
    first, second, third = run_warnings([USUAL, USUAL, {**USUAL, **changes}], *NO_LOG)
    assert first == second == [] and warning in third


@pytest.mark.parametrize(("labelled", "warns"), [(12, True), (13, False), (14, False), (15, True)])
def test_a_percent_that_is_no_whole_number_of_images_has_no_warning(labelled: int, warns: bool) -> None:
    split = {**USUAL["split"], "percent": 5, "pool": 275, "effective_percent": 100 * labelled / 275}
    (warnings,) = run_warnings([{**USUAL, "split": split}], *NO_LOG)
    assert bool(warnings) == warns


def test_a_run_of_two_splits_without_pseudo_labels_or_without_a_file_has_a_warning() -> None:
    other = {**USUAL, "split": {**USUAL["split"], "sha256": "t"}}
    elsewhere = {**USUAL, "split": {**USUAL["split"], "fold": 2, "sha256": "u"}}
    first, second, third = run_warnings([USUAL, other, elsewhere], *NO_LOG)
    assert first == second == ["other runs of this percent and fold were trained with another split"] and third == []
    log = pd.DataFrame({"digest": ["11111111"] * 3, "step": [10, 60, 100], "kept_per_image": [3.0, 0.0, 0.0]})
    without_pseudo_labels, unknown = run_warnings([USUAL, {}], log, pd.DataFrame())
    assert without_pseudo_labels == ["no pseudo-label was kept in the second half of the training"]
    assert unknown == ["no run.json: its options and its versions are unknown"]


@pytest.mark.parametrize(("end", "warns"), [(0.165, True), (0.166, True), (0.17, False)])
def test_a_teacher_that_ends_no_better_than_its_burn_in_has_a_warning(end: float, warns: bool) -> None:
    content = {**USUAL, "run": {"training": {"burn_in": 400, "steps": 1000}}}
    log = pd.DataFrame({"digest": ["11111111"], "step": [1000], "kept_per_image": [3.0]})
    values = {"step": [300, 400, 500, 1000], "AP": [0.3, 0.166, 0.186, end]}
    curves = pd.DataFrame({"digest": "11111111", "model": "teacher", **values})
    told = "its teacher ends at 16.[56] AP, after 16.6 at the end of its burn-in: its pseudo-labels taught nothing"
    (warnings,) = run_warnings([content], log, curves)
    assert bool(warnings) == warns and all(re.fullmatch(told, text) for text in warnings)
    assert run_warnings([content], pd.DataFrame(), curves) == [[]], "a supervised run has no teacher"


def test_a_run_has_its_options_split_versions_and_hardware(tmp_path: Path) -> None:
    study = make_study().model_copy(update={"dataset": DatasetChoice(name="shapes")})
    results = fabricate(study, tmp_path / "results")
    run = study.runs()[0]
    path = tmp_path / "results" / run.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **USUAL, "digest": run.digest}))
    text = write(study, results, tmp_path)
    for key, value in {
        "split.sha256": "s",
        "versions.torch": "2.10",
        "hardware.device": "cpu",
        "commit": "a" * 40,
        "training.steps": "20",
        "network.backend": "torchvision",
    }.items():
        assert f"<dt>{key}</dt><dd>{value}</dd>" in text
    assert f'<a href="#run-{run.digest}">' in text and f'<details id="run-{run.digest}">' in text
