"""Check that predictions of another codebase become rows of the tables, with their splits and sources."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import coco_random
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from test_bootstrap_cache import store_of
from tiny import study as tiny

from pais_bench.cli.main import main
from pais_bench.reports.figures import accuracy_cost, convergence, label_efficiency
from pais_bench.reports.results import Results
from pais_bench.study.load import load_study

DESCRIPTION: dict[str, Any] = {
    "name": "gd_10",
    "network": "mask2former",
    "method": "guided_distillation",
    "percent": 10,
    "fold": 1,
    "split_family": "unknown",
    "source": "release of 2024, checkpoint 368k",
    "predictions": "all.json",
}


def write(folder: Path, *changes: dict[str, Any] | str, **more: Any) -> list[str]:
    """Write a study that lists descriptions, each DESCRIPTION with changes or a text; return a command's arguments."""
    folder.mkdir(exist_ok=True)
    gt, records = coco_random.generate(11, images=80)
    store_of(folder / "results" / "datasets" / "shapes", gt)
    (folder / "all.json").write_text(json.dumps(records))
    (folder / "half.json").write_text(json.dumps(records[::2]))
    for number, change in enumerate(changes):
        text = change if isinstance(change, str) else yaml.safe_dump({**DESCRIPTION, **change})
        (folder / f"description_{number}.yaml").write_text(text)
    values = tiny(external=[f"description_{number}.yaml" for number in range(len(changes))], **more)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return [str(folder / "tiny.yaml"), "--results", str(folder / "results")]


def test_predictions_become_rows_and_mixed_families_are_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {"name": "base", "method": "supervised", "split_family": "mmdet", "predictions": "half.json"}
    better = {"name": "better", "method": "ours", "split_family": "mmdet"}
    words = write(tmp_path, {}, base, better)
    assert main(["import-predictions", *words]) == 0
    assert "external/shapes/gd_10: mask AP" in capsys.readouterr().out
    assert main(["report", *words]) == 0
    metrics = json.loads((tmp_path / "results/external/shapes/gd_10/metrics.json").read_text())
    half = json.loads((tmp_path / "results/external/shapes/base/metrics.json").read_text())
    reports = tmp_path / "results" / "reports" / "tiny"
    text = (reports / "main_table.md").read_text()
    ap, old = 100 * metrics["segm"]["AP"], 100 * half["segm"]["AP"]
    assert f"| mask2former | guided_distillation ‡ | {ap:.1f} |" in text, "unknown splits have no baseline"
    assert f"| mask2former | ours ‡ | {ap:.1f} (+{ap - old:.1f}) |" in text
    assert f"| mask2former | supervised ‡ | {old:.1f} |" in text
    assert "mask2former guided_distillation: splits unknown, release of 2024, checkpoint 368k" in text
    assert "Split families are mixed: soft_teacher without ‡, mmdet, unknown among ‡." in text
    assert r"guided\_distillation $^{\ddagger}$ & " in (reports / "main_table.tex").read_text()
    row = pd.read_csv(reports / "main_table.csv").set_index("method").loc["ours"]
    assert (row["family"], row["folds"], row["gain"]) == ("mmdet", 1, pytest.approx(ap - old, abs=1e-3))
    assert json.loads((tmp_path / "results/external/shapes/gd_10/bootstrap.json").read_text())["samples"] == 1000
    errors = json.loads((tmp_path / "results/external/shapes/gd_10/errors.json").read_text())
    assert errors["AP50"] == pytest.approx(metrics["segm"]["AP50"])
    row = pd.read_csv(reports / "error_kinds.csv").set_index("method").loc["ours ‡"]
    assert (row["folds"], row["missed"]) == (1, pytest.approx(100 * errors["dAP"]["missed"], abs=1e-3))


def test_with_the_same_family_they_are_compared_with_the_supervised_run_of_the_study(tmp_path: Path) -> None:
    comparable = {"network": "mask_rcnn", "split_family": "soft_teacher"}
    words = write(tmp_path, comparable, {**comparable, "name": "base", "method": "supervised"})
    (own,) = (run for run in load_study(words[0]).runs() if run.method.label == "supervised")
    folder = tmp_path / "results" / own.folder
    folder.mkdir(parents=True)
    (folder / "predictions.json").write_text((tmp_path / "half.json").read_text())
    run = ["--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised"]
    assert main(["evaluate", *words, *run]) == 0
    assert main(["import-predictions", *words]) == 0
    assert main(["report", *words]) == 0
    gains = pd.read_csv(tmp_path / "results/reports/tiny/significance.csv").set_index("method")
    other = gains.loc["guided_distillation ‡"]
    assert other["gain"] > 0 and other["p_images_holm"] < 0.05 and not other["significant"], "it is one fold"
    assert "supervised ‡" not in gains.index, "a reference is no tested method"
    text = (tmp_path / "results/reports/tiny/main_table.md").read_text()
    assert f"(+{other['gain']:.1f}) |" in text and "Split families" not in text and "Nothing is bold" in text


def test_a_description_without_its_evaluation_is_a_dash_and_an_edited_or_absent_one_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write(tmp_path, {})
    assert main(["report", *words]) == 0
    assert (
        "| mask2former | guided_distillation ‡ | – |" in (tmp_path / "results/reports/tiny/main_table.md").read_text()
    )
    assert main(["import-predictions", *words]) == 0
    write(tmp_path, {"split_family": "mmdet"})
    capsys.readouterr()
    assert main(["report", *words]) == 2
    assert "metrics.json: of another description; run `pais-bench import-predictions`" in capsys.readouterr().err
    (tmp_path / "description_0.yaml").unlink()
    assert main(["report", *words]) == 2
    assert f"error: {tmp_path / 'description_0.yaml'}: cannot be read" in capsys.readouterr().err


def test_reports_of_predictions_have_them_and_reports_of_logs_note_the_missing_log(
    tmp_path: Path,
) -> None:
    again = {"name": "again", "method": "supervised", "network": "mask_rcnn", "predictions": "half.json"}
    words = write(tmp_path, {}, again, {"name": "absent", "method": "absent"}, metrics=["coco", "boundary"])
    assert main(["import-predictions", *words, "--name", "gd_10", "--name", "again"]) == 0
    assert main(["report", *words]) == 0
    metrics = json.loads((tmp_path / "results/external/shapes/gd_10/metrics.json").read_text())
    reports = tmp_path / "results" / "reports" / "tiny"
    segm, boundary, class_0 = metrics["segm"], metrics["boundary"], metrics["per_class"]["class 0"]
    source = "mask2former guided_distillation: splits unknown, release of 2024, checkpoint 368k"

    text = (reports / "per_class.md").read_text()
    assert " | guided_distillation ‡ | supervised ‡ | absent ‡ |" not in text, "what is not evaluated has no classes"
    assert " | guided_distillation ‡ | supervised ‡ |\n" in text and source in text
    annotations = coco_random.generate(11, images=80)[0]["annotations"]
    objects = sum(one["category_id"] == 1 and not one["iscrowd"] for one in annotations)
    assert f"| mask2former | 10 % | class 0 | {objects} | – | – | – | {100 * class_0:.1f} | – |" in text
    classes = pd.read_csv(reports / "per_class.csv").set_index(["method", "class"])
    assert classes.loc[("guided_distillation ‡", "class 0"), "AP"] == pytest.approx(100 * class_0, abs=1e-4)

    text = (reports / "protocols.md").read_text()
    numbers = (f"{100 * segm[name]:.1f}" for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"))
    assert f"| mask2former | guided_distillation ‡ | 10 % | COCO mask AP | {' | '.join(numbers)} |" in text
    assert f"| COCO boundary AP | {100 * boundary['AP']:.1f} | " in text and source in text

    points = pd.read_csv(reports / "label_efficiency.csv").set_index("external")
    assert points.loc["guided_distillation ‡", "AP"] == pytest.approx(100 * segm["AP"], abs=1e-4)
    assert points.loc["supervised ‡", "method"] == "supervised", "it has the colour of the study's method"

    text = (reports / "cost.md").read_text()
    assert "| mask2former | guided_distillation ‡ | 10 % | – | – | – |\n" in text
    assert text.count("their training log is not available") == 1
    for report in (convergence, accuracy_cost):
        points = pd.read_csv(reports / f"{report.Report().name}.csv").set_index("method")
        assert (points.loc["guided_distillation ‡", ["network", "percent", "folds"]] == ["mask2former", 10, 0]).all()
        assert points["AP"].isna().all()
    figure, study = Figure(figsize=(3.5, 3)), load_study(words[0])
    results = Results.of(study, tmp_path / "results")
    convergence._paint(figure, study, convergence.Report().points(study, results), "step")
    other = Figure(figsize=(3.5, 3))
    accuracy_cost._paint(other, study, accuracy_cost.Report().points(study, results))
    assert other.get_supxlabel() == figure.get_supxlabel()
    assert "(mask2former guided_distillation ‡, mask_rcnn supervised ‡" in " ".join(figure.get_supxlabel().split())


def test_the_same_method_on_splits_of_two_families_is_two_rows(tmp_path: Path) -> None:
    others = {"name": "half", "predictions": "half.json"}, {"name": "ours", "method": "ours"}
    words = write(tmp_path, {"split_family": "mmdet"}, *others)
    assert main(["import-predictions", *words]) == 0
    assert main(["report", *words]) == 0
    reports = tmp_path / "results" / "reports" / "tiny"
    for name in ("main_table", "per_class", "protocols", "cost"):
        text = (reports / f"{name}.md").read_text()
        assert "guided_distillation ‡ (mmdet) |" in text and "guided_distillation ‡ (unknown) |" in text, name
    study, report = load_study(words[0]), label_efficiency.Report()
    results = Results.of(study, tmp_path / "results")
    points = report.points(study, results)
    (caption,) = report.captions_of(points).values()
    assert "‡: predictions of another codebase" in caption and "published" not in caption
    legend = report.charts(study, results, points)["label_efficiency"].legend
    assert len({(key.colour, key.symbol, key.dash) for key in legend}) == len(legend) == 3, "they can be told apart"


@pytest.mark.parametrize("command", ["evaluate", "import-predictions"])
def test_a_faulty_record_is_named_with_its_file(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write(tmp_path, {})
    run = ["--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised"]
    (own,) = (run for run in load_study(words[0]).runs() if run.method.label == "supervised")
    path = tmp_path / "results" / own.folder / "predictions.json" if command == "evaluate" else tmp_path / "all.json"
    records = json.loads((tmp_path / "all.json").read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    for content, message in (
        ([*records[:5], {**records[5], "score": math.nan}], "prediction record 5: its score is nan (image_id "),
        (
            [{**records[0], "segmentation": {"size": [3, 4], "counts": "0"}}],
            "prediction record 0: its mask is [3, 4] [",
        ),
        ([{"score": 1}, *records], "prediction record 0: missing key 'category_id'"),
        ([*records[:2], 7], "record 2 is a int; a result is a mapping of keys"),
        ({"annotations": records}, "holds a dict; a COCO results file is a list of records"),
    ):
        path.write_text(json.dumps(content))
        assert main([command, *words, *(run if command == "evaluate" else [])]) == 2
        assert f"error: {path}: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            [{"split_family": "stac"}],
            "description_0.yaml: 'split_family': there is no 'stac'; choose one of ade20k_fractions, coco_fractions",
        ),
        ([{"percent": 7}], "description_0.yaml: 'percent': 7 is not in study 'tiny'; it has 10"),
        ([{"fold": "one"}], "description_0.yaml: 'fold'"),
        ([{"source": ""}], "description_0.yaml: 'source'"),
        ([{"weights": 3}], "description_0.yaml: unknown key 'weights'"),
        (["- 1"], "description_0.yaml: holds no mapping"),
        (["name: ["], "description_0.yaml: not valid YAML"),
        ([{}, {}], "description_0.yaml: 'name': study 'tiny' names 'gd_10' twice"),
        ([{}, {"name": "again"}], "description_1.yaml: 'fold': 'gd_10' is fold 1 of the same network, method, split"),
        ([{"predictions": "nowhere.json"}], "nowhere.json: cannot be read"),
        ([{"name": "other"}], "no external predictions 'gd_10'; it has other"),
        ([], "no external predictions; list the YAML that describes them in 'external'"),
    ],
)
def test_faults_are_named(
    changes: list[dict[str, Any] | str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = write(tmp_path, *changes)
    assert main(["import-predictions", *words, "--name", "gd_10"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
