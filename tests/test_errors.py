"""Check the analysis of errors against tidecv, an image made by hand and its laws, and the tables that it fills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pandas as pd
import pytest
from test_bootstrap_cache import store_of
from test_reports import fabricate, make_study, with_predictions

from pais_bench.errors import NothingToShow
from pais_bench.evaluation.coco.average_precision import summarize
from pais_bench.evaluation.coco.errors import KINDS, analyse
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.error_cache import ErrorAnalysis
from pais_bench.reports.results import Results
from pais_bench.reports.tables import confusion, error_kinds, object_sizes, per_class, worst_images
from pais_bench.study.study import Study

Record = dict[str, Any]

TIDECV = {
    0: (0.256975, 0.041745, 0.04144, 0.004002, 0.011956, 0.076639, 0.228075),
    3: (0.150006, 0.074744, 0.029641, 0.007778, 0.0161, 0.073045, 0.134228),
    7: (0.187016, 0.054989, 0.015284, 0.007693, 0.018755, 0.05245, 0.198508),
}
"""AP50 and the gains of KINDS on random data by seed, from TIDERun of tidecv 1.0.1 on masks, without its max_dets."""


def without_crowds(seed: int) -> tuple[Record, list[Record]]:
    """Return random data with different scores and more wrong classes; tidecv treats crowds otherwise than COCO."""
    ground_truth, records = coco_random.generate(seed, images=40)
    ground_truth["annotations"] = [one for one in ground_truth["annotations"] if not one["iscrowd"]]
    rng = np.random.default_rng(seed)
    for record in records:
        record["score"] = float(rng.random())
        if rng.random() < 0.35:
            record["category_id"] = int(2 * rng.integers(3) + 1)
    return ground_truth, records


@pytest.mark.parametrize("seed", TIDECV)
def test_the_gains_are_those_of_tidecv(seed: int) -> None:
    ground_truth, records = without_crowds(seed)
    analysis = analyse(GroundTruth.of(ground_truth), records)
    assert [analysis["AP50"], *analysis["dAP"].values()] == pytest.approx(list(TIDECV[seed]), abs=1e-6)


def record(box: tuple[int, int, int, int], category: int, score: float = 0, image: int = 1) -> Record:
    mask = coco_random.encode(box, 100)
    common = {"image_id": image, "category_id": category, "segmentation": mask}
    return common | ({"score": score} if score else {"iscrowd": 0, "area": box[2] * box[3], "bbox": list(box)})


OBJECTS = {"a": (0, 0), "b": (40, 0), "c": (0, 40), "d": (40, 40), "e": (70, 70), "f": (0, 70), "g": (40, 70)}
CLASSES = {"a": 1, "b": 1, "c": 2, "d": 1, "e": 2, "f": 2, "g": 1}


def one_of_each() -> tuple[Record, list[Record]]:
    """Return an image with every kind of error, and one without an object."""
    ground_truth = {
        "images": [{"id": number, "height": 100, "width": 100} for number in (1, 2)],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "bar"}],
        "annotations": [record((*corner, 20, 20), CLASSES[name]) for name, corner in OBJECTS.items()],
    }
    detections = [
        record((0, 0, 20, 20), 1, 0.9),
        record((0, 0, 20, 20), 1, 0.8),  # a again: duplicate
        record((40, 0, 20, 20), 2, 0.7),  # b: classification
        record((10, 40, 20, 20), 2, 0.6),  # c with IoU 1/3: localisation
        record((50, 40, 20, 20), 2, 0.5),  # d with IoU 1/3: both; e is missed
        record((70, 0, 20, 20), 1, 0.4),  # background
        record((0, 70, 20, 20), 2, 0.3),
        record((40, 70, 20, 20), 1, 0.2),
        record((0, 0, 20, 20), 1, 0.1, image=2),
    ]
    return ground_truth, detections


def test_an_image_with_one_error_of_each_kind() -> None:
    """The numbers are sums over the 101 recalls, of discs and of bars."""
    ground_truth, detections = one_of_each()
    analysis = analyse(GroundTruth.of(ground_truth), detections)
    before = (26 + 25 / 2 + 34 / 4) / 202
    assert analysis["AP50"] == pytest.approx(before)
    after = {
        "classification": (26 + 25 * 2 / 3 + 25 * 3 / 5) + 34 / 3,
        "localisation": (26 + 25 / 2) + 67 / 2,
        "both": (26 + 25 / 2) + 34 / 3,
        "duplicate": (26 + 25 * 2 / 3) + 34 / 4,
        "background": (26 + 25 * 2 / 3) + 34 / 4,
        "missed": (34 + 33 / 2) + 51 / 4,
    }
    assert analysis["dAP"] == pytest.approx({kind: value / 202 - before for kind, value in after.items()})
    assert (analysis["threshold"], analysis["sizes"]) == (0.2, {"all": 7, "small": 7, "medium": 0, "large": 0})
    assert analysis["by_image"] == {"id": [1, 2], "objects": [7, 0], "found": [3, 0], "false": [5, 0]}
    pairs = {(true, detected): number for true, detected, number in analysis["confusion"]}
    assert pairs == {(1, 1): 2, (1, 2): 1, (1, None): 1, (2, None): 2, (2, 2): 1}
    assert analyse(GroundTruth.of(ground_truth), detections[::-1]) == analysis, "the order of the file does not matter"


@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_coco_and_counts_are_those_of_the_objects(seed: int) -> None:
    ground_truth, records = coco_random.generate(seed, images=25, crowded=True)
    analysis, gt = analyse(GroundTruth.of(ground_truth), records), GroundTruth.of(ground_truth)
    assert analysis["AP50"] == pytest.approx(summarize(match(gt, records))["AP50"], abs=1e-12)
    objects = int((~gt.crowd).sum())
    by_image = analysis["by_image"]
    assert sum(by_image["objects"]) == sum(number for *_, number in analysis["confusion"]) == objects
    assert all(0 <= found <= total for found, total in zip(by_image["found"], by_image["objects"], strict=True))
    assert json.loads(json.dumps(analysis)) == analysis


def test_the_truth_has_no_error_and_nothing_is_missed_alone() -> None:
    ground_truth, _ = one_of_each()
    gt = GroundTruth.of(ground_truth)
    analysis = analyse(gt, [{**one, "score": 0.5} for one in ground_truth["annotations"]])
    assert analysis["AP50"] == 1 and set(analysis["dAP"].values()) == {0}
    assert analysis["by_image"]["false"] == [0, 0] and analysis["by_image"]["found"] == [7, 0]
    nothing = analyse(gt, [])
    assert (nothing["AP50"], nothing["threshold"]) == (0, None)
    assert nothing["dAP"] == dict.fromkeys(KINDS, 0) | {"missed": 1}, "an oracle that leaves no object leaves no error"
    empty = analyse(GroundTruth.of({**ground_truth, "annotations": []}), one_of_each()[1])
    assert empty["AP50"] is None and set(empty["dAP"].values()) == {None} and empty["confusion"] == []


def test_an_analysis_is_read_until_the_predictions_change_and_a_damaged_one_is_made_again(tmp_path: Path) -> None:
    ground_truth, records = coco_random.generate(3)
    cache, predictions = ErrorAnalysis(store_of(tmp_path, ground_truth)), tmp_path / "predictions-student-last.json"
    predictions.write_text(json.dumps(records))
    content, path = cache.content(predictions), tmp_path / "errors-student-last.json"
    assert json.loads(path.read_text()) == content
    path.write_text(json.dumps({**content, "AP50": 0.125}))
    assert cache.content(predictions)["AP50"] == 0.125, "read, not computed"
    for damaged in ("", "[]", json.dumps({**content, "by_image": 3}), json.dumps({**content, "dAP": None})):
        path.write_text(damaged)
        assert cache.content(predictions) == content, damaged
    predictions.write_text(json.dumps(records[::2]))
    assert cache.content(predictions)["AP50"] == analyse(cache.ground_truth, records[::2])["AP50"]


KEEP = {"base_line": 0.5, "pais": 1.0, "worse": 0.25}


@pytest.fixture
def study() -> Study:
    return make_study(folds=(1, 2)).model_copy(update={"also_evaluate": ("student-last",)})


def test_teacher_and_student_stand_side_by_side(study: Study, tmp_path: Path) -> None:
    results = with_predictions(study, tmp_path, KEEP)
    run = next(run for run in study.runs() if run.method.label == "pais")
    for stem in ("predictions", "metrics"):
        content = json.loads((tmp_path / run.folder / f"{stem}.json").read_text())
        thinned = content[::3] if stem == "predictions" else content
        (tmp_path / run.folder / f"{stem}-student-last.json").write_text(json.dumps(thinned))
    error_kinds.Report().write(study, results, tmp_path)
    frame = pd.read_csv(tmp_path / "error_kinds.csv").set_index(["percent", "method", "checkpoint"])
    student, teacher = (frame.loc[(1.0, "pais", f"{model}-last")] for model in ("student", "teacher"))
    assert (student["folds"], teacher["folds"]) == (1, 2) and student["AP50"] < teacher["AP50"]
    assert student["missed"] > teacher["missed"], "fewer detections miss more"
    folder = tmp_path / run.folder
    contents = [json.loads(path.read_text()) for path in folder.parent.parent.parent.glob("1pct*/*/pais-*/errors.json")]
    assert teacher["missed"] == pytest.approx(100 * np.mean([one["dAP"]["missed"] for one in contents]), abs=1e-3)
    text = (tmp_path / "error_kinds.md").read_text()
    assert "| small | 1 % | pais | teacher-last | 2 |" in text and "| small | 1 % | pais | student-last | 1 |" in text
    alone = study.model_copy(update={"also_evaluate": ()})
    error_kinds.Report().write(alone, results, tmp_path)
    assert "'also_evaluate: [student-last]' in the study" in (tmp_path / "error_kinds.md").read_text()


def test_confusion_worst_images_and_counts(study: Study, tmp_path: Path) -> None:
    results = with_predictions(study, tmp_path, KEEP)
    store = results.validation(study)
    assert store is not None
    frame = confusion.Report().frame(study, results)
    totals = frame.groupby(["percent", "method", "class"])["percent_of_class"].sum()
    assert np.allclose(totals, 100)
    confusion.Report().write(study, results, tmp_path)
    lines = (tmp_path / "confusion.md").read_text().splitlines()
    undetected = next(line for line in lines if line.startswith("| small | 1 % | all | nothing |"))
    base, pais, worse = map(float, undetected.strip("| ").split(" | ")[4:])
    assert pais < base < worse
    worst_images.Report().write(study, results, tmp_path)
    images = pd.read_csv(tmp_path / "worst_images.csv")
    errors = (images["missed"] + images["false"]).groupby(images["image_id"], sort=False).mean()
    assert len(errors) == 80 and errors.is_monotonic_decreasing
    assert np.allclose(images["found"] + images["missed"], images["objects"])
    counts = pd.Series(store.objects().image_id[~store.objects().crowd]).value_counts()
    assert (images["objects"] == images["image_id"].map(counts).fillna(0)).all()
    assert (tmp_path / "worst_images.md").read_text().count(".png |") == worst_images.IMAGES


def test_ap_by_size_and_class_has_the_number_of_objects(study: Study, tmp_path: Path) -> None:
    for path in (with_predictions(study, tmp_path, KEEP).root / "runs").rglob("metrics.json"):
        metrics = json.loads(path.read_text())
        metrics["segm"] |= {"APs": 0.25, "APm": 0.5, "APl": None}
        metrics["per_class"] = {"class 0": 0.125, "class 3": None}
        path.write_text(json.dumps(metrics))
    results = Results.of(study, tmp_path)
    gt = GroundTruth.of(json.loads(json.dumps(coco_random.generate(11, images=80)[0])))
    areas = gt.area[~gt.crowd]
    small, large = (areas <= 32**2).sum(), (areas >= 96**2).sum()
    object_sizes.Report().write(study, results, tmp_path)
    text = (tmp_path / "object_sizes.md").read_text()
    assert f"| small ({small}) |" in text and f"| large ({large}) |" in text
    assert "| small | 1 % | pais | 25.0 ± 0.0 | 50.0 ± 0.0 | – |" in text
    per_class.Report().write(study, results, tmp_path)
    objects = ((gt.group // len(gt.images) == 0) & ~gt.crowd).sum()
    text = (tmp_path / "per_class.md").read_text()
    assert f"| small | 1 % | class 0 | {objects} | 12.5 |" in text and "| small | 1 % | class 3 | 0 | – |" in text


def test_without_predictions_or_data_there_is_nothing_to_show(study: Study, tmp_path: Path) -> None:
    results = fabricate(study, tmp_path)
    for report in (error_kinds, confusion, worst_images):
        with pytest.raises(NothingToShow, match="the dataset 'my_shapes' is not prepared here"):
            report.Report().frame(study, results)
    ground_truth, _ = coco_random.generate(1)
    store_of(tmp_path / "datasets" / "my_shapes", ground_truth)
    for report in (error_kinds, confusion, worst_images):
        with pytest.raises(NothingToShow, match="no evaluated predictions are here"):
            report.Report().frame(study, results)
