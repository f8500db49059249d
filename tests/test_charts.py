"""Check the interactive figures: plotly takes every trace, and they show the numbers of the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from test_figures import log_pseudo_labels, with_examples
from test_reports import expected_ap, fabricate, half, make_study

from pais_bench import plugins
from pais_bench.reports.chart import Chart, joined
from pais_bench.reports.charts.examples import svg_path
from pais_bench.reports.example_errors import count_errors, mark_correct
from pais_bench.reports.figures import convergence, examples, label_efficiency
from pais_bench.reports.results import Results
from pais_bench.reports.style import LEAST_SPAN, ap_span, beside, shrunken


def test_plotly_takes_every_panel(tmp_path: Path) -> None:
    graph_objects = pytest.importorskip("plotly.graph_objects")
    study = make_study(folds=(1, 2), networks=("small", "k_net"))
    results, panels = log_pseudo_labels(study, tmp_path), 0
    for name in (
        "convergence",
        "label_efficiency",
        "accuracy_cost",
        "pseudo_label_quality",
        "calibration",
        "score_iou",
    ):
        report = plugins.load("reports", name).Report()
        charts = report.charts(study, results, report.points(study, results))
        assert set(charts) == set(report.captions)
        for chart in charts.values():
            for _, row in chart.rows:
                for panel in row:
                    graph_objects.Figure(data=panel.traces, layout=panel.layout)
                    panels += 1
                    names = {trace["legendgroup"] for trace in panel.traces if "legendgroup" in trace}
                    assert names <= {key.name for key in chart.legend}
    assert panels > 20


def test_convergence_has_every_fold_the_mean_and_panels_without_a_number(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path, half)
    report = convergence.Report()
    chart = report.charts(study, results, report.points(study, results))["convergence"]
    ((heading, (one, ten)),) = chart.rows
    assert heading == "" and [key.name for key in chart.legend] == list(study.methods)
    folds, student, mean = [trace for trace in one.traces if trace["name"] == "pais"]
    assert folds["customdata"] == [1, 1, 1, 1, None, 2, 2, None], "each fold as far as it is"
    assert folds["x"] == [5, 10, 15, 20, None, 5, 10, None]
    assert mean["x"] == [5, 10] and mean["y"] == pytest.approx([3.25, 6.5]) and mean["customdata"] == [2, 2]
    assert student["line"]["dash"] == "dash" and student["y"] == pytest.approx([1.625, 3.25])
    assert {trace["name"] for trace in ten.traces} == {"base_line"}
    nothing = convergence.Report().charts(study, results, report.points(study, results).iloc[:0])["convergence"]
    assert all(not panel.traces for _, row in nothing.rows for panel in row)


def test_label_efficiency_has_every_fold_and_the_deviation(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path)
    report = label_efficiency.Report()
    chart = report.charts(study, results, report.points(study, results))["label_efficiency"]
    ((_, (panel,)),) = chart.rows
    folds, mean = [trace for trace in panel.traces if trace["name"] == "pais"]
    runs = [run for run in study.runs() if run.method.label == "pais"]
    assert sorted(folds["y"]) == pytest.approx(sorted(100 * expected_ap(run) for run in runs))
    assert mean["y"] == pytest.approx([13.0, 33.0]) and mean["error_y"]["array"] == pytest.approx([0.7071, 0.7071])
    assert mean["customdata"] == [(2, 1), (2, 10)] and len({trace["x"][0] for trace in panel.traces}) > 1
    for count in range(1, 13):  # no method lies beyond those of the next percent
        places = [beside(pd.Series([1.0, 2.0]), index, count) for index in range(count)]
        assert max(place[0] for place in places) < min(place[1] for place in places)


def test_an_axis_spans_its_uncertainty() -> None:
    low, high = ap_span(pd.Series([43.6, 43.7, 43.8]), pd.Series([np.nan] * 3))
    assert high - low == pytest.approx(LEAST_SPAN) and low < 43.6 < 43.8 < high
    low, high = ap_span(pd.Series([40.0, 41.0]), pd.Series([2.5, np.nan]))
    assert high - low == pytest.approx(10)
    low, high = ap_span(pd.Series([0.5, 0.6]), pd.Series([np.nan] * 2))
    assert low == 0 and high == pytest.approx(LEAST_SPAN)
    low, high = ap_span(pd.Series([10.0, 40.0]), pd.Series([1.0, 1.0]))
    assert low < 9 and high > 41
    percents = pd.Series([1.0, 1.0])
    assert shrunken([1, 10], percents) == [1.0, 0.5] and shrunken([5, 10], percents) == [1.0, 1.0]


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    frames = [pd.DataFrame({"step": range(1000)}), pd.DataFrame({"step": [7]})]
    steps = joined(frames)["step"]
    assert len(steps) == 100 + 1 + 1 + 1 and steps.iloc[0] == 0 and steps.iloc[99] == 999
    assert steps.isna().tolist() == [False] * 100 + [True, False, True]


def test_an_outline_is_that_of_the_mask() -> None:
    mask = np.zeros((24, 32), dtype=bool)
    mask[4:12, 4:14] = True
    mask[8:12, 4:6] = False
    assert svg_path(mask).count("M") == 1
    points = [tuple(map(float, pair.split(","))) for pair in svg_path(mask).strip("MZ").split("L")]
    drawn = Image.new("1", (64, 48))
    ImageDraw.Draw(drawn).polygon([(2 * x, 2 * y) for x, y in points], fill=1)
    centres = np.asarray(drawn)[1::2, 1::2]
    assert (centres != mask).sum() <= 2, "corners are cut by half a pixel"


def masks(role: str, *found: tuple[str, int, float], method: str = "pais", image: str = "a") -> list[dict[str, object]]:
    """Return rows of squares of 8 px at a column of the image, of a class and score."""
    from pais_bench.annotations import rle

    rows = []
    for category, left, score in found:
        mask = np.zeros((10, 40), dtype=bool)
        mask[1:9, left : left + 8] = True
        counts = rle.describe_mask(mask)["segmentation"]["counts"]
        row = {"image": image, "method": method, "role": role, "category": category, "counts": counts, "score": score}
        rows.append({**row, "height": 10, "width": 40})
    return rows


def test_a_detection_is_correct_once_per_object_of_its_class() -> None:
    nan = float("nan")
    rows = masks("ground truth", ("cat", 0, nan), ("dog", 10, nan), ("dog", 30, nan))
    rows += masks("teacher", ("cat", 1, 0.6), ("cat", 0, 0.9), ("cat", 10, 0.9), ("dog", 22, 0.8), ("dog", 31, 0.5))
    frame = mark_correct(pd.DataFrame(rows), "ground truth")
    assert frame["correct"].iloc[:3].isna().all()
    assert frame["correct"].iloc[3:].tolist() == [0, 1, 0, 0, 1], "a duplicate, a wrong class and a shift are errors"
    assert count_errors(frame, "ground truth", ("teacher", "student")) == 3 + 1 + 3


def test_the_examples_are_the_images_with_most_errors() -> None:
    nan = float("nan")
    rows = []
    for image, left in (("right", 0), ("shifted", 8), ("near", 1), ("also right", 0), ("none", -1)):
        rows += [{"image": image, "method": "pais", "role": "image"}]
        rows += masks("ground truth", ("cat", 0, nan), image=image)
        rows += masks("teacher", ("cat", left, 0.9), image=image) if left >= 0 else []
        rows += masks("student", ("cat", 0, 0.9), image=image)
    chosen = examples.worst_images(pd.DataFrame(rows))
    assert list(dict.fromkeys(chosen["image"])) == ["shifted", "none", "right"]


def test_a_gallery_outlines_each_mask_with_its_numbers(tmp_path: Path) -> None:
    study = make_study()
    points = examples.Report().points(study, with_examples(study, tmp_path))
    gallery = examples.Report().charts(study, Results.of(study, tmp_path), points)["examples"]
    assert not isinstance(gallery, Chart) and list(gallery.titles)[:2] == ["ground truth", "pais, teacher"]
    assert len(gallery.images) == 1 and gallery.images[0][1:] == (32, 24)
    (shape,) = gallery.rows[0][1]
    assert shape.text == "a<b>_c\nclass weight 0.75\nmask weight 1.02\nscore 0.90\npredicted IoU 0.80"
    assert not shape.dashed
