"""Check what the figures plot, when they are omitted, and that they are drawn again from their CSVs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_reports import BASE, fabricate, half, make_study

from pais_bench import plugins
from pais_bench.annotations import rle
from pais_bench.annotations.store import Subset, write_store
from pais_bench.cli.main import main
from pais_bench.errors import NothingToShow
from pais_bench.reports import style
from pais_bench.reports.figures import (
    accuracy_cost,
    calibration,
    convergence,
    examples,
    label_efficiency,
    pseudo_label_quality,
    score_iou,
)
from pais_bench.reports.results import Results
from pais_bench.reports.write import write_reports
from pais_bench.study.run import Run
from pais_bench.study.split import SplitGrid
from pais_bench.study.study import DatasetChoice, Reported, Study


def log_pseudo_labels(study: Study, root: Path) -> Results:
    """Log pseudo-labels in every semi-supervised run of a fabricated grid; scores are 0.2 above the true IoU."""
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
    pseudo = {"kept_per_image": 2.0, "precision": step / 20, "recall": None, "matched_iou": 0.7, "class_accuracy": 1.0}
    pseudo |= {"sample": rows.tolist(), "score_bins": bins, "mask_iou_bins": [[0, 0, 0]] * 9 + [[1, 0.9, 0.9]]}
    return json.dumps({"event": "step", "step": step, "seconds": step / 2, "pseudo": pseudo}) + "\n"


def test_a_bounded_sample_of_the_second_half_of_the_training_is_plotted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(folds=(1, 2))
    results = log_pseudo_labels(study, tmp_path)
    points = score_iou.Report().points(study, results)
    assert set(points["method"]) == {"pais", "worse"} and set(points["step"]) == {15, 20}
    assert len(points) == 2 * 2 * 2 * 2 * 8, "methods, percents, folds, steps, rows"
    assert np.allclose(points["iou"], points["score"] - 0.2, atol=2e-4)
    monkeypatch.setattr(score_iou, "MAX_POINTS", 10)
    points = score_iou.Report().points(study, results)
    assert len(points) == 2 * 10
    assert set(points["percent"]) == {1, 10} and set(points["fold"]) == {1, 2}


def test_calibration_sums_the_bins_and_weights_their_errors(tmp_path: Path) -> None:
    study = make_study()
    points = calibration.Report().points(study, log_pseudo_labels(study, tmp_path))
    score = points[(points["method"] == "pais") & (points["of"] == "score")]
    assert score[["bin", "count", "predicted", "true"]].values.tolist() == [
        pytest.approx([8, 2 * (15 + 20), 0.85, 0.65])
    ]
    assert calibration.error(score) == pytest.approx(0.2)
    assert calibration.error(points[points["of"] == "mask_iou"]) == pytest.approx(0)
    bins = pd.DataFrame({"count": [1, 3], "predicted": [0.2, 0.9], "true": [0.6, 0.8]})
    assert calibration.error(bins) == pytest.approx((1 * 0.4 + 3 * 0.1) / 4)


def with_methods(count: int) -> Study:
    """Return a study of methods m0, m1, ..., none of them supervised."""
    study = make_study()
    return study.model_copy(update={"methods": {f"m{index}": study.methods["pais"] for index in range(count)}})


def test_ten_methods_have_colours_of_their_own_and_seventy_marks() -> None:
    assert len({mark.colour for mark in style.marks(with_methods(10)).values()}) == 10
    assert len(set(style.marks(with_methods(70)).values())) == 70


def test_markers_that_cover_less_are_larger() -> None:
    sizes = {marker: style.Mark("black", marker).look(10)["markersize"] for marker in ("o", "s", "P", "X", "*")}
    assert sizes["*"] > sizes["P"] == sizes["X"] > sizes["o"] == sizes["s"] == 10


def test_panels_of_many_methods_are_higher() -> None:
    heights = [
        style.height(2.0, pd.DataFrame({"method": [f"m{index}" for index in range(count)]})) for count in (1, 6, 12)
    ]
    assert heights == pytest.approx([2.0, 2.0, 2.6])


@pytest.mark.parametrize(("count", "drawn"), [(6, True), (7, False)])
def test_students_of_many_methods_are_in_the_csv_alone(count: int, drawn: bool, tmp_path: Path) -> None:
    study = with_methods(count)
    results = Results.of(study, tmp_path)
    rows = [
        {"network": "small", "method": name, "percent": 1.0, "model": model, "step": 5, "AP": 0.1, "digest": name}
        for name in study.methods
        for model in ("teacher", "student")
    ]
    columns = {"images_seen": 10, "seconds": 2.0, "fold": 1}
    points = convergence.Report().points(study, replace(results, curves=pd.DataFrame(rows).assign(**columns)))
    assert len(points) == 2 * count
    figure = Figure()
    convergence._paint(figure, study, points, "step")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("student" in labels) == drawn
    assert len(figure.axes[0].lines) == count * (1 + drawn)


def test_pseudo_labels_of_many_methods_are_in_rows_of_five_panels(tmp_path: Path) -> None:
    study = with_methods(7)
    numbers = {"percent": 1.0, "fold": 1, "step": 5, "score": 0.5, "mask_iou": 0.5, "class_weight": 0.5}
    rows = [{"network": "small", "method": name, **numbers, "mask_weight": 0.5, "iou": 0.5} for name in study.methods]
    score_iou.Report().draw(study, pd.DataFrame(rows), tmp_path)
    with Image.open(tmp_path / "score_iou.png") as figure:
        assert figure.size == pytest.approx((300 * (1.1 + 1.75 * 4), 300 * (0.5 + 3.7 * 2)), abs=1)
    figure = Figure()
    score_iou._paint(figure, ["small"], [["m0", "m1"], ["m2"]], pd.DataFrame(rows))
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert [axes.get_title() for axes in panels] == ["m0", "m1", "", "", "m2", "", "", ""]
    assert [axes.axison for axes in panels] == [True] * 5 + [False, True, False]


def test_every_calibration_error_stands_beside_the_marker_of_its_method() -> None:
    study = with_methods(8)
    methods = study.methods
    rows = [{"method": name, "bin": 1, "count": 3, "predicted": 0.2, "true": 0.1} for name in methods]
    axes = Figure().subplots()
    calibration._panel(axes, study, pd.DataFrame(rows))
    beside = {line.get_ydata()[0]: line for line in axes.lines if line.get_transform() == axes.transAxes}
    looks = [(beside[text.get_position()[1]].get_marker(), text.get_color()) for text in axes.texts]
    assert looks == [(mark.marker, mark.colour) for mark in style.marks(study).values()] and len(set(looks)) == 8
    assert all(text.get_position()[0] > 1 and 0 < text.get_position()[1] < 1 for text in axes.texts)


def test_quality_over_the_training(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    points = pseudo_label_quality.Report().points(study, log_pseudo_labels(study, tmp_path))
    pais = points[(points["method"] == "pais") & (points["percent"] == 10)]
    assert list(pais["step"]) == [5, 15, 20] and list(pais["precision"]) == [0.25, 0.75, 1.0]
    assert pais["recall"].isna().all() and (pais["logged_steps"] == 2).all()


def test_percents_of_many_decimals_are_found_in_the_csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check it with 1/512, the least share of COCO that coco_fractions draws."""
    monkeypatch.setitem(BASE, 100 / 512, BASE[1])
    monkeypatch.setattr(convergence, "empty", lambda axes: pytest.fail("a panel is empty"))
    study = make_study().model_copy(update={"split": SplitGrid(percents=(100 / 512, 10))})
    path, *_ = convergence.Report().write(study, fabricate(study, tmp_path), tmp_path).files
    assert set(pd.read_csv(path)["percent"]) == {100 / 512, 10}


def test_accuracy_against_cost_has_finished_runs_only(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    points = accuracy_cost.Report().points(study, fabricate(study, tmp_path, half)).set_index(["method", "percent"])
    assert set(points.index) == {("base_line", 1), ("pais", 1), ("worse", 1)}
    assert tuple(points.loc[("base_line", 1), ["folds", "seconds", "AP"]]) == pytest.approx((2, 1800, 10.5))
    assert points.loc[("pais", 1), "folds"] == 1


def test_a_figure_without_points_is_omitted_and_its_old_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study()
    results = fabricate(study, tmp_path / "results")
    for report in (score_iou, calibration, pseudo_label_quality):
        with pytest.raises(NothingToShow, match="No run of study 'try_out' has logged pseudo-labels yet"):
            report.Report().points(study, results)
    (tmp_path / "score_iou.png").touch()
    known = plugins.names
    monkeypatch.setattr(plugins, "names", lambda group: ["score_iou"] if group == "reports" else known(group))
    names = {path.name for path in write_reports(study, results, tmp_path).paths}
    assert names == {"report.html"} and not (tmp_path / "score_iou.png").exists()
    assert "has logged pseudo-labels yet" in (tmp_path / "report.html").read_text()


def test_published_curves_are_plotted_for_the_same_dataset_and_detector(tmp_path: Path) -> None:
    study = make_study(networks=("mask_rcnn", "knet"))
    knet = study.networks["knet"].model_copy(update={"name": "knet"})
    networks = {**study.networks, "knet": knet}
    study = study.model_copy(update={"dataset": DatasetChoice(name="coco"), "networks": networks})
    papers = label_efficiency.Report().points(study, Results.of(study, tmp_path))
    (caption,) = label_efficiency.Report().captions_of(papers).values()
    assert "Dashed: published" in caption and "another codebase" not in caption
    assert set(papers.loc[papers["network"] == "knet", "paper"]) == {"PAIS, R-50"}
    rcnn = papers[papers["network"] == "mask_rcnn"]
    assert "supervised, R-50?" in set(rcnn["paper"]) and not rcnn["paper"].str.contains("Mask2Former").any()
    assert rcnn.loc[rcnn["paper"] == "PAIS, R-50*", ["percent", "AP", "method"]].values.tolist() == [
        [1, 21.2, "pais"],
        [10, 31.0, "pais"],
    ]
    one = study.model_copy(update={"split": SplitGrid(percents=(1,))})
    rcnn = label_efficiency.Report().points(one, Results.of(one, tmp_path)).query("network == 'mask_rcnn'")
    assert "PAIS, R-50" in set(rcnn["paper"]), "the number that is drawn is verified, those of other percents are not"
    own = study.model_copy(update={"dataset": DatasetChoice(name="coco", label="leaves")})
    assert label_efficiency.Report().points(own, Results.of(own, tmp_path)).empty


def test_labels_of_lines_are_spread_apart() -> None:
    assert style.spread_apart([1.0, 5.0], gap=1) == [1.0, 5.0]
    assert style.spread_apart([2.0, 2.0, 2.0], gap=1) == pytest.approx([1.0, 2.0, 3.0])
    placed = style.spread_apart([3.0, 0.0, 0.5, 3.2], gap=1)
    assert placed == pytest.approx([2.6, -0.25, 0.75, 3.6])
    assert style.spread_apart([], gap=1) == []


def test_times_are_in_the_unit_of_the_longest() -> None:
    for seconds, expected in ((90, (90, "s")), (600, (10, "min")), (36000, (10, "h"))):
        values, unit = style.in_unit(pd.Series([1.0, seconds]))
        assert (values.iloc[1], unit) == expected


def with_examples(study: Study, root: Path) -> Results:
    """Write examples of one image with a square into every run."""
    image = root / "images" / "one.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (32, 24), "white").save(image)
    mask = np.zeros((24, 32), dtype=bool)
    mask[4:12, 4:12] = True
    shape = rle.describe_mask(mask)
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, **shape}
    record = {"id": 1, "file_name": "one.png", "height": 24, "width": 32}
    subset = Subset("square", image.parent, [record], [annotation], [{"id": 3, "name": "a<b>_c"}])
    write_store(root / "datasets" / study.dataset.label, study.dataset.label, {"train": subset, "val": subset})
    fabricate(study, root)
    detection = {"category_id": 3, "score": 0.9, "mask_iou": 0.8, "segmentation": shape["segmentation"]}
    weighted = {**detection, "class_weight": 0.75, "mask_weight": 1.02}
    content = [{"image_id": 1, "teacher": [weighted], "student": [detection]}]
    for run in study.runs():
        (root / run.folder / "examples.json").write_text(json.dumps(content))
    return Results.of(study, root)


def test_examples_show_ground_truth_teacher_and_student_of_images_on_this_machine(tmp_path: Path) -> None:
    study = make_study()
    results = with_examples(study, tmp_path)
    examples.Report().write(study, results, tmp_path)
    points = pd.read_csv(tmp_path / "examples.csv")
    assert list(points.loc[points["method"] == "pais", "role"]) == ["image", "ground truth", "teacher", "student"]
    assert set(points["method"]) == {"pais", "worse"} and set(points["percent"]) == {1}
    teacher = points[points["role"] == "teacher"].iloc[0]
    assert (teacher["class_weight"], teacher["mask_weight"], teacher["category"]) == (0.75, 1.02, "a<b>_c")
    with Image.open(tmp_path / "examples.png") as figure:
        assert figure.width > 2000
    (tmp_path / "images" / "one.png").unlink()
    with pytest.raises(NothingToShow, match="one.png: the image is not on this machine"):
        examples.Report().points(study, results)


def test_the_title_of_a_panel_names_the_best_checkpoint(tmp_path: Path) -> None:
    study = make_study().model_copy(update={"report": Reported(checkpoint="best")})
    with_examples(study, tmp_path)
    with pytest.raises(NothingToShow, match="No run has examples-teacher-best.json"):
        examples.Report().points(study, Results.of(study, tmp_path))
    for path in (tmp_path / "runs").rglob("examples.json"):
        content = [{**example, "best": ["teacher"]} for example in json.loads(path.read_text())]
        path.with_name("examples-teacher-best.json").write_text(json.dumps(content))
    points = examples.Report().points(study, Results.of(study, tmp_path))
    titles = [examples._title(points, "pais", role) for role in examples.ROLES]
    assert titles == ["ground truth", "pais\nteacher, best", "pais\nstudent"]


def test_labels_of_overlapping_masks_are_below_each_other() -> None:
    mask = np.zeros((100, 100), dtype=bool)
    mask[40:61, 40:61] = True
    assert examples._position(mask, []) == (50, 50)
    assert examples._position(mask, [(50, 50)]) == (50, 59)
    assert examples._position(mask, [(50, 50), (60, 59), (10, 50)]) == (50, 68)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write every report of a grid that has points for all but the examples."""
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
    assert main(words) == 0
    for stem in plugins.load("reports", name).Report.captions:
        for kind in ("pdf", "png"):
            drawn = (tmp_path / f"{stem}.{kind}").read_bytes()
            assert drawn == (reported / "reports" / f"{stem}.{kind}").read_bytes()
        pdf = (tmp_path / f"{stem}.pdf").read_bytes()
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("main_table", "a\n1\n", "no figure has a CSV of this name; the figures are accuracy_cost, calibration"),
        ("calibration", None, "no such file; `pais-bench report` writes it"),
        ("calibration", "network,method,of\na,b,c\n", "has no column 'bin'; take the calibration.csv of a report"),
        ("calibration", "", "not a CSV (No columns to parse from file); `pais-bench report` writes it again"),
        ("calibration", "network,method,of,bin,count,predicted,true\n", "no row has a network of the study; take"),
        ("examples", None, "no such file"),
    ],
)
def test_another_csv_is_refused(
    name: str, content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    path = tmp_path / f"{name}.csv"
    if content is not None:
        path.write_text(content)
    assert main(["draw", str(tmp_path / "study.yaml"), str(path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "column", "cell", "message"),
    [
        ("calibration", "count", "x", "has 'x' in column 'count'; give a finite number, or remove the line"),
        ("calibration", "true", "", "is empty in column 'true'; give a finite number, or remove the line"),
        ("convergence", "AP", "inf", "has 'inf' in column 'AP'; give a finite number"),
        ("convergence", "percent", "", "is empty in column 'percent'"),
        ("label_efficiency", "AP", "-inf", "has '-inf' in column 'AP'"),
        ("label_efficiency", "AP_std", "-1", "has '-1' in column 'AP_std'; give a number from 0 on"),
        ("accuracy_cost", "seconds", "1e999", "has '1e999' in column 'seconds'"),
        ("score_iou", "iou", "nan", "has 'nan' in column 'iou'"),
    ],
)
def test_a_cell_that_is_no_number_is_named_by_its_line_and_column(
    name: str,
    column: str,
    cell: str,
    message: str,
    reported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    lines = (reported / "reports" / f"{name}.csv").read_text().splitlines()
    cells = lines[2].split(",")
    cells[lines[0].split(",").index(column)] = cell
    path = tmp_path / f"{name}.csv"
    path.write_text("\n".join([*lines[:2], "", ",".join(cells), *lines[3:], ""]))
    assert main(["draw", str(tmp_path / "study.yaml"), str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"pais-bench draw: error: {path}: line 4 {message}")


def assert_nothing_is_cut_off(paint: Callable[[Figure], None], size: tuple[float, float], folder: Path) -> None:
    drawn: list[Figure] = []

    def keep(figure: Figure) -> None:
        paint(figure)
        drawn.append(figure)

    style.draw(keep, size, folder, "figure")
    with matplotlib.rc_context(style.STYLE):
        left, low, right, high = drawn[0].get_tightbbox().extents
    assert left >= 0 and low >= 0 and right <= drawn[0].get_figwidth() and high <= drawn[0].get_figheight()


@pytest.mark.parametrize(
    "labels",
    [
        ["pais"],
        ["mean_teacher"] * 5,
        ["noisy_boundaries_with_warm_up"] * 3,
        ["noisy_boundaries_of_old", *["pais"] * 4],
        ["method_number_10"] * 11,
    ],
    ids=len,
)
def test_a_legend_fits_its_narrow_figure(labels: list[str], tmp_path: Path) -> None:
    def paint(figure: Figure) -> None:
        figure.subplots(1, 1).set_title("1 % labels")
        style.legend(figure, [style.Mark("black", "o").handle(label) for label in labels])

    assert_nothing_is_cut_off(paint, (3.5, 2.6), tmp_path)


def test_many_panels_of_a_fixed_aspect_ratio_fit_with_a_colour_bar(tmp_path: Path) -> None:
    def paint(figure: Figure) -> None:
        panels = figure.subplots(2, 10)
        for axes in panels.flat:
            axes.set(aspect="equal", xlim=(0, 1), ylim=(0, 1), xlabel="class score", title="method")
            axes.tick_params(labelleft=False)
        for row in panels:
            row[0].set_ylabel("true mask IoU")
            figure.colorbar(row[0].scatter([0, 1], [0, 1], c=[0, 1]), ax=list(row), aspect=18, pad=0.02)

    assert_nothing_is_cut_off(paint, (18.6, 4.0), tmp_path)
