"""Does report.html show a study to somebody who has nothing but the file, and is it safe to open?"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import escape
from test_reports import fabricate, half, make_study

from pais_bench import page, plugins
from pais_bench.caveats import caveats
from pais_bench.config import DatasetChoice, Study
from pais_bench.gaps import Gap, gaps, whole_grid
from pais_bench.reporting import write_reports
from pais_bench.reports import _table
from pais_bench.results import Results

HOSTILE = "<script>document.title='owned'</script>\"'&{{ 7 * 7 }}"


def write(study: Study, results: Results, folder: Path, *sections: page.Section) -> str:
    """Write a page of these sections, and give its text."""
    folder.mkdir(exist_ok=True)
    return page.write(study, results, sections, folder / "report.html", "my study.yaml").read_text()


def table(folder: Path, name: str, rows: list[list[str]]) -> page.Section:
    """Give the section of a table with a text and a number column."""
    folder.mkdir(exist_ok=True)
    paths = _table.Table("A caption.", ["name", "value"], rows, 1, ["A note."]).write(folder, name, name)
    return page.Section(name, "Which?", tuple(paths), {})


def test_a_half_finished_grid_is_one_file_that_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, few = plugins.names, ["label_efficiency", "main_table", "per_class"]
    monkeypatch.setattr(plugins, "names", lambda shelf: few if shelf == "reports" else known(shelf))
    study = make_study(folds=(1, 2))
    write_reports(study, fabricate(study, tmp_path / "results", half), tmp_path / "out", "try.yaml")
    text = (tmp_path / "out" / "report.html").read_text()
    sources = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"'\s>)]+)", text)
    assert sources and not [one for one in sources if not re.match(r"data:image/png;base64,|#[\w-]+$|[\w.]+$", one)]
    assert text.count('src="data:image/png;base64,') == 1
    assert "5 of 12 runs are done, 3 started, 4 missing." in " ".join(text.split())
    assert "Which method is better, and by how much, at each percent of labels?" in text


def test_the_browser_is_told_to_run_this_script_alone(tmp_path: Path) -> None:
    text = write(make_study(), fabricate(make_study(), tmp_path / "results"), tmp_path)
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]+)"', text)[0])
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_whatever_a_name_holds_is_text(tmp_path: Path) -> None:
    study = make_study().model_copy(update={"title": HOSTILE})
    results = fabricate(study, tmp_path / "results")
    for run in study.runs():
        path = tmp_path / "results" / run.folder / "run.json"
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "commit": HOSTILE, "hardware": {"device": HOSTILE}}))
    text = write(study, results, tmp_path, table(tmp_path, "classes", [[HOSTILE, "1.0"], ["a|b", "**2.0**"]]))
    assert text.count("<script") == 1 and "owned" in text
    assert "{{ 7 * 7 }}" in text
    assert text.count(str(escape(HOSTILE))) > 3
    assert "<td>a|b</td>" in text and "<b>2.0</b>" in text


def test_a_table_of_a_report_is_taken_over_cell_by_cell(tmp_path: Path) -> None:
    rows = [["first", "**+1.0**"], ["second", "–"]]
    text = write(make_study(), Results.of(make_study(), tmp_path), tmp_path, table(tmp_path, "some", rows))
    assert '<th>name</th><th class="number">value</th>' in text
    assert '<td>first</td><td class="number"><b>+1.0</b></td>' in text
    assert '<td>second</td><td class="number">–</td>' in text
    assert "A caption." in text and "A note." in text


def test_a_column_of_long_texts_is_broken_into_lines(tmp_path: Path) -> None:
    long = "word " * 13
    text = write(
        make_study(), Results.of(make_study(), tmp_path), tmp_path, table(tmp_path, "some", [["a", long], ["b", "–"]])
    )
    assert '<th class="long">value</th>' in text
    assert f'<td>a</td><td class="long">{long.strip()}</td>' in text and '<td class="long">–</td>' in text


def by_cell(found: list[Gap]) -> dict[tuple[str, float, int], Gap]:
    return {(gap.run.method.label, gap.run.split.percent, gap.run.split.fold): gap for gap in found}


def test_a_missing_run_has_its_reason_and_the_commands_that_make_it(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path, half)
    found = by_cell(gaps(study, results, "my study.yaml"))
    assert len(found) == 7
    begun = found["pais", 1, 2]
    assert (begun.state, begun.reason) == ("started", "stopped, or still training, at step 10 of 20")
    start = "'my study.yaml' --results"
    rest = "--percent 1 --fold 2 --network small --method pais"
    assert begun.commands == tuple(
        f"pais-bench {verb} {start} {tmp_path} {rest}" for verb in ("train", "predict", "evaluate")
    )
    assert found["worse", 10, 1].reason == "not begun"
    assert whole_grid("try.yaml", tmp_path).endswith(f"--config study=try.yaml results={tmp_path}")


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("pais-bench train: error: x: loss not finite\n", "train failed: x: loss not finite"),
        ("Traceback (most recent call last):\n  a\nMemoryError: no\n\n", "train failed: MemoryError: no"),
        ("12:00:01 all is well\n", "stopped, or still training, at step 10 of 20"),
    ],
)
def test_a_failed_run_is_told_in_the_words_of_its_log(tmp_path: Path, log: str, reason: str) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path, half)
    run = next(run for run in study.runs() if run.method.label == "pais" and run.split.fold == 2)
    path = tmp_path / "logs" / run.folder / "train.log"
    path.parent.mkdir(parents=True)
    path.write_text(log)
    assert by_cell(gaps(study, results, "s"))["pais", 1, 2].reason == reason


def test_what_is_left_begins_with_the_first_file_that_is_missing(tmp_path: Path) -> None:
    study = make_study()
    fabricate(study, tmp_path)
    first, second = study.runs()[:2]
    for run in (first, second):
        (tmp_path / run.folder / "metrics.json").unlink()
    (tmp_path / second.folder / "predictions.json").write_text("[]")
    found = gaps(study, Results.of(study, tmp_path), "s")
    assert [gap.reason for gap in found] == ["trained, not predicted", "predicted, not evaluated"]
    assert [[command.split()[1] for command in gap.commands] for gap in found] == [
        ["predict", "evaluate"],
        ["evaluate"],
    ]


LIKE: dict[str, Any] = {
    "commit": "a" * 40,
    "digest": "11111111",
    "versions": {"torch": "2.10"},
    "hardware": {"device": "cpu"},
    "split": {"percent": 10, "fold": 1, "sha256": "s", "effective_percent": 10.05},
}


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"commit": "b" * 40}, "source bbbbbbbbbbbb, most runs of the study aaaaaaaaaaaa"),
        ({"commit": "a" * 40 + "+changes"}, "trained from files that differ from their commit"),
        ({"versions": {"torch": "2.15"}}, "torch 2.15, most runs of the study 2.10"),
        ({"hardware": {"device": "H200"}}, "device H200, most runs of the study cpu"),
        ({"split": {**LIKE["split"], "effective_percent": 9.51}}, "9.51 % of the images are labelled, not 10 %"),
        ({"split": {**LIKE["split"], "note": "drawn with replacement"}}, "split: drawn with replacement"),
    ],
)
def test_a_run_that_is_not_like_the_others_is_warned_of(changes: dict[str, Any], warning: str) -> None:
    told = caveats([LIKE, LIKE, {**LIKE, **changes}], pd.DataFrame())
    assert told[:2] == [[], []] and warning in told[2]


def test_two_splits_in_one_cell_are_warned_of_in_both() -> None:
    other = {**LIKE, "split": {**LIKE["split"], "sha256": "t"}}
    elsewhere = {**LIKE, "split": {**LIKE["split"], "fold": 2, "sha256": "u"}}
    first, second, third = caveats([LIKE, other, elsewhere], pd.DataFrame())
    assert first == second == ["other runs of this percent and fold were trained with another split"] and third == []


def test_a_run_without_a_file_or_without_pseudo_labels_is_warned_of() -> None:
    looks = pd.DataFrame({"digest": ["11111111"] * 3, "step": [10, 60, 100], "kept_per_image": [3.0, 0.0, 0.0]})
    silent, unknown = caveats([LIKE, {}], looks)
    assert silent == ["no pseudo-label was kept in the second half of the training"]
    assert unknown == ["no run.json: neither its options nor its versions are known"]


def test_a_run_tells_its_options_split_versions_and_hardware(tmp_path: Path) -> None:
    study = make_study().model_copy(update={"dataset": DatasetChoice(name="shapes")})
    results = fabricate(study, tmp_path / "results")
    run = study.runs()[0]
    path = tmp_path / "results" / run.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **LIKE, "digest": run.digest}))
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
