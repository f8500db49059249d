"""Do the figures draw what was logged, say why they are left out, and come again from their CSVs?"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_reports import fabricate, half, make_study

from pais_bench import cli, pixels, plugins
from pais_bench.config import DatasetChoice, Run, Study
from pais_bench.reporting import write_reports
from pais_bench.reports import (
    _style,
    accuracy_cost,
    calibration,
    label_efficiency,
    panels,
    pseudo_label_quality,
    score_iou,
)
from pais_bench.results import Results
from pais_bench.store import Part, write_store
from pais_bench.types import LeftOut


def log_pseudo_labels(study: Study, root: Path) -> Results:
    """Give every semi-supervised run of a fabricated grid pseudo-labels whose scores lie 0.2 above the truth."""
    fabricate(study, root)
    for run in study.runs():
        if run.method.name == "supervised":
            continue
        with (root / run.folder / "log.jsonl").open("a") as file:
            file.writelines(_step(run, step) for step in (5, 15, 20))
    return Results.of(study, root)


def _step(run: Run, step: int) -> str:
    rng = np.random.default_rng(step)
    score = rng.uniform(0.3, 1, 8)
    rows = np.stack([score, score - 0.1, score**2, score, score - 0.2], axis=1).round(4)
    bins = [[0, 0, 0]] * 8 + [[step, 0.85, 0.65], [0, 0, 0]]
    pseudo = {"kept_per_image": 2.0, "precision": step / 20, "recall": None, "right_iou": 0.7, "class_accuracy": 1.0}
    pseudo |= {"sample": rows.tolist(), "score_bins": bins, "quality_bins": [[0, 0, 0]] * 9 + [[1, 0.9, 0.9]]}
    return json.dumps({"event": "step", "step": step, "seconds": step / 2, "pseudo": pseudo}) + "\n"


def test_the_pseudo_labels_of_the_second_half_are_drawn_one_by_one(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    drawn = score_iou.Report().points(study, log_pseudo_labels(study, tmp_path))
    assert set(drawn["method"]) == {"pais", "worse"} and set(drawn["step"]) == {15, 20}
    assert len(drawn) == 2 * 2 * 2 * 2 * 8, "methods, percents, folds, steps, rows"
    assert np.allclose(drawn["iou"], drawn["score"] - 0.2, atol=2e-4)


def test_a_sample_is_bounded_and_covers_all_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_iou, "DRAWN", 10)
    study = make_study(folds=(1, 2))
    drawn = score_iou.Report().points(study, log_pseudo_labels(study, tmp_path))
    assert len(drawn) == 2 * 10
    assert set(drawn["percent"]) == {1, 10} and set(drawn["fold"]) == {1, 2}


def test_calibration_adds_up_the_bins_and_their_error(tmp_path: Path) -> None:
    study = make_study()
    drawn = calibration.Report().points(study, log_pseudo_labels(study, tmp_path))
    score = drawn[(drawn["method"] == "pais") & (drawn["of"] == "score")]
    assert score[["bin", "count", "predicted", "true"]].values.tolist() == [
        pytest.approx([8, 2 * (15 + 20), 0.85, 0.65])
    ]
    assert calibration.error(score) == pytest.approx(0.2)
    assert calibration.error(drawn[drawn["of"] == "quality"]) == pytest.approx(0)


def test_the_expected_calibration_error_of_a_known_case() -> None:
    bins = pd.DataFrame({"count": [1, 3], "predicted": [0.2, 0.9], "true": [0.6, 0.8]})
    assert calibration.error(bins) == pytest.approx((1 * 0.4 + 3 * 0.1) / 4)


def test_quality_over_the_training(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    drawn = pseudo_label_quality.Report().points(study, log_pseudo_labels(study, tmp_path))
    pais = drawn[(drawn["method"] == "pais") & (drawn["percent"] == 10)]
    assert list(pais["step"]) == [5, 15, 20] and list(pais["precision"]) == [0.25, 0.75, 1.0]
    assert pais["recall"].isna().all() and (pais["looks"] == 2).all()


def test_accuracy_against_cost_knows_finished_runs_alone(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    drawn = accuracy_cost.Report().points(study, fabricate(study, tmp_path, half)).set_index(["method", "percent"])
    assert set(drawn.index) == {("base_line", 1), ("pais", 1), ("worse", 1)}
    assert tuple(drawn.loc[("base_line", 1), ["folds", "seconds", "AP"]]) == pytest.approx((2, 1800, 10.5))
    assert drawn.loc[("pais", 1), "folds"] == 1


def test_a_figure_without_anything_to_draw_is_left_out_with_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    results = fabricate(study, tmp_path / "results")
    for report in (score_iou, calibration, pseudo_label_quality):
        with pytest.raises(LeftOut, match="No run of study 'try_out' has logged pseudo-labels yet"):
            report.Report().points(study, results)
    (tmp_path / "score_iou.png").touch()
    known = plugins.names
    monkeypatch.setattr(plugins, "names", lambda shelf: ["score_iou"] if shelf == "reports" else known(shelf))
    names = {path.name for path in write_reports(study, results, tmp_path)}
    assert names == {"report.html"} and not (tmp_path / "score_iou.png").exists()
    assert "has logged pseudo-labels yet" in (tmp_path / "report.html").read_text()


def test_published_curves_are_drawn_for_the_same_data_and_detector(tmp_path: Path) -> None:
    study = make_study(networks=("mask_rcnn", "knet"))
    knet = study.networks["knet"].model_copy(update={"name": "knet"})
    networks = {**study.networks, "knet": knet}
    study = study.model_copy(update={"dataset": DatasetChoice(name="coco"), "networks": networks})
    papers = label_efficiency.Report().points(study, Results.of(study, tmp_path))
    assert set(papers.loc[papers["network"] == "knet", "paper"]) == {"PAIS, R-50"}
    rcnn = papers[papers["network"] == "mask_rcnn"]
    assert "supervised, R-50?" in set(rcnn["paper"]) and not rcnn["paper"].str.contains("Mask2Former").any()
    assert rcnn.loc[rcnn["paper"] == "PAIS, R-50*", ["percent", "AP", "method"]].values.tolist() == [
        [1, 21.2, "pais"],
        [10, 31.0, "pais"],
    ]
    own = study.model_copy(update={"dataset": DatasetChoice(name="coco", label="leaves")})
    assert label_efficiency.Report().points(own, Results.of(own, tmp_path)).empty


def test_names_beside_lines_keep_apart_and_near() -> None:
    assert _style.spread([1.0, 5.0], gap=1) == [1.0, 5.0]
    assert _style.spread([2.0, 2.0, 2.0], gap=1) == pytest.approx([1.0, 2.0, 3.0])
    placed = _style.spread([3.0, 0.0, 0.5, 3.2], gap=1)
    assert placed == pytest.approx([2.6, -0.25, 0.75, 3.6])
    assert _style.spread([], gap=1) == []


def test_times_are_told_in_the_unit_of_the_longest() -> None:
    for seconds, told in ((90, (90, "s")), (600, (10, "min")), (36000, (10, "h"))):
        values, unit = _style.in_unit(pd.Series([1.0, seconds]))
        assert (values.iloc[1], unit) == told


def with_panels(study: Study, root: Path) -> Results:
    """Give the runs of fold 1 panels of one image with a square."""
    image = root / "images" / "one.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (32, 24), "white").save(image)
    mask = np.zeros((24, 32), dtype=bool)
    mask[4:12, 4:12] = True
    shape = pixels.shape(mask)
    note = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, **shape}
    described = {"id": 1, "file_name": "one.png", "height": 24, "width": 32}
    part = Part("drawn", image.parent, [described], [note], [{"id": 3, "name": "a<b>_c"}])
    write_store(root / "datasets" / study.dataset.label, study.dataset.label, {"train": part, "val": part})
    fabricate(study, root)
    found = {"category_id": 3, "score": 0.9, "quality": 0.8, "segmentation": shape["segmentation"]}
    told = [{"image_id": 1, "teacher": [{**found, "class_weight": 0.75, "mask_weight": 1.02}], "student": [found]}]
    for run in study.runs():
        (root / run.folder / "panels.json").write_text(json.dumps(told))
    return Results.of(study, root)


def test_panels_show_truth_teacher_and_student(tmp_path: Path) -> None:
    study = make_study()
    panels.Report().write(study, with_panels(study, tmp_path), tmp_path)
    drawn = pd.read_csv(tmp_path / "panels.csv")
    assert list(drawn.loc[drawn["method"] == "pais", "role"]) == ["image", "truth", "teacher", "student"]
    assert set(drawn["method"]) == {"pais", "worse"} and set(drawn["percent"]) == {1}
    teacher = drawn[drawn["role"] == "teacher"].iloc[0]
    assert (teacher["class_weight"], teacher["mask_weight"], teacher["category"]) == (0.75, 1.02, "a<b>_c")
    with Image.open(tmp_path / "panels.png") as figure:
        assert figure.width > 2000


def test_the_head_of_a_panel_says_where_weights_are_the_best_ones(tmp_path: Path) -> None:
    study = make_study().model_copy(update={"checkpoint": "best"})
    with_panels(study, tmp_path)
    with pytest.raises(LeftOut, match="No run has panels-teacher-best.json"):
        panels.Report().points(study, Results.of(study, tmp_path))
    for path in (tmp_path / "runs").rglob("panels.json"):
        told = [{**one, "best": ["teacher"]} for one in json.loads(path.read_text())]
        path.with_name("panels-teacher-best.json").write_text(json.dumps(told))
    drawn = panels.Report().points(study, Results.of(study, tmp_path))
    assert [panels._called(drawn, "pais", role) for role in ("teacher", "student")] == ["teacher, best", "student"]


def test_names_of_masks_in_one_place_stand_below_each_other() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[40:61, 40:61] = True
    assert panels._place(mask, []) == (50, 50)
    assert panels._place(mask, [(50, 50)]) == (50, 59)
    assert panels._place(mask, [(50, 50), (60, 59), (10, 50)]) == (50, 68)


def test_panels_are_left_out_without_their_images(tmp_path: Path) -> None:
    study = make_study()
    results = with_panels(study, tmp_path)
    (tmp_path / "images" / "one.png").unlink()
    with pytest.raises(LeftOut, match="one.png: the image is not on this machine"):
        panels.Report().points(study, results)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every report of a grid that has everything to draw."""
    root = tmp_path_factory.mktemp("reported")
    study = make_study(folds=(1, 2))
    write_reports(study, log_pseudo_labels(study, root), root / "reports")
    return root


STUDY = """
name: try_out
dataset: {name: shapes, label: my_shapes}
split: {percents: [1, 10], folds: [1, 2]}
training: {steps: 20}
networks: {small: {backend: torchvision, name: mask_rcnn}}
methods: {base_line: {name: supervised}, pais: {}, worse: {name: pais}}
"""


@pytest.mark.parametrize("name", ["accuracy_cost", "calibration", "convergence", "label_efficiency", "score_iou"])
def test_a_figure_is_drawn_again_from_its_csv_to_the_byte(name: str, reported: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    words = ["draw", str(tmp_path / "study.yaml"), str(reported / "reports" / f"{name}.csv"), "--out", str(tmp_path)]
    assert cli.main(words) == 0
    for stem in plugins.load("reports", name).Report.figures:
        for kind in ("pdf", "png"):
            drawn = (tmp_path / f"{stem}.{kind}").read_bytes()
            assert drawn == (reported / "reports" / f"{stem}.{kind}").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("main_table", "a\n1\n", "its name is none of a figure's CSV; the figures are accuracy_cost, calibration"),
        ("calibration", None, "no such file; `pais-bench report` writes it"),
        ("calibration", "network,method,of\na,b,c\n", "has no column 'bin'; take the calibration.csv of a report"),
        ("calibration", "network,method,of,bin,count,predicted,true\na,b,c,x,1,1,1\n", "not a CSV of numbers"),
        ("calibration", "", "not a CSV of numbers"),
    ],
)
def test_a_csv_that_is_none_of_a_figure_is_refused(
    name: str, content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    path = tmp_path / f"{name}.csv"
    if content is not None:
        path.write_text(content)
    assert cli.main(["draw", str(tmp_path / "study.yaml"), str(path)]) == 2
    assert message in capsys.readouterr().err


def test_nothing_of_a_figure_is_cut_off(tmp_path: Path) -> None:
    """A legend of long names above a narrow figure, and many panels of a fixed shape with a bar of colours beside."""
    drawn: list[Figure] = []

    def legend(figure: Figure) -> None:
        figure.subplots(1, 1).set_title("1 % labels")
        names = [f"method_number_{number}" for number in range(11)]
        _style.legend(figure, [_style.Mark("black", "o").handle(name) for name in names])
        drawn.append(figure)

    def squares(figure: Figure) -> None:
        panels = figure.subplots(2, 10)
        for axes in panels.flat:
            axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xlabel="class score", title="method")
            axes.tick_params(labelleft=False)
        for row in panels:
            row[0].set_ylabel("true mask IoU")
            figure.colorbar(row[0].scatter([0, 1], [0, 1], c=[0, 1]), ax=list(row), aspect=18, pad=0.02)
        drawn.append(figure)

    for name, paint, size in (("legend", legend, (3.5, 2.6)), ("squares", squares, (18.6, 4.0))):
        _style.draw(paint, size, tmp_path, name)
        with matplotlib.rc_context(_style.LOOK):
            left, low, right, high = drawn[-1].get_tightbbox().extents
        assert left >= 0 and low >= 0 and right <= drawn[-1].get_figwidth() and high <= drawn[-1].get_figheight(), name
