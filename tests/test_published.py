"""Check the ledger of published numbers, and that the report shows how well each number is verified."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_reports import GAIN, fabricate, half, make_study

from pais_bench import plugins
from pais_bench.errors import BenchError, NothingToShow
from pais_bench.reports import published
from pais_bench.reports.figures import label_efficiency
from pais_bench.reports.tables import paper_ledger, records
from pais_bench.study.run import Run
from pais_bench.study.study import DatasetChoice, StudyMethod, StudyNetwork


def cell(method: str, detector: str, dataset: str, percent: float, backbone: str = "R-50") -> published.Cell:
    rows = [
        row
        for row in published.read()
        if (row.method, row.detector, row.dataset, row.backbone) == (method, detector, dataset, backbone)
    ]
    return next(entry for row in rows for entry in row.cells if entry.percent == percent)


def test_cells_of_the_paper() -> None:
    assert cell("PAIS", "Mask R-CNN", "coco", 1) == published.Cell(
        percent=1, ap=21.2, tag="verified", source="abstract; the S4M project page has 21.1"
    )
    assert cell("PAIS", "K-Net", "coco", 1).ap == 19.9
    assert cell("PAIS", "Mask R-CNN", "cityscapes", 30).tag == "secondary"
    assert cell("supervised", "Mask R-CNN", "coco", 10).tag == "unverified"
    assert cell("PL-DC", "Mask2Former", "coco", 100).ap == 48.8
    assert cell("PL-DC", "Mask2Former", "cityscapes", 30).tag == "verified"
    assert cell("supervised", "Mask2Former", "coco", 100).tag == "secondary"
    assert len(published.read()) == 36
    here = {published.normalized(name) for name in plugins.names("methods")}
    unknown = {row.method for row in published.read() if published.normalized(row.plugin or row.method) not in here}
    elsewhere = {"STAC", "CSD", "CCT", "Dual-branch", "Depth-Guided", "CAST"}
    assert unknown == {*elsewhere, "CAST teacher, zero-shot", "CAST teacher, adapted"}, "no method of this project"


def test_a_wrong_ledger_is_named(tmp_path: Path) -> None:
    text = published.LEDGER.read_text().replace("tag: verified", "tag: sure", 1)
    (tmp_path / "ledger.yaml").write_text(text)
    with pytest.raises(BenchError, match=r"ledger.yaml: 'rows.5.cells.0.tag'"):
        published.read(tmp_path / "ledger.yaml")


def test_measured_numbers_are_compared_with_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(folds=(1, 2)).model_copy(
        update={
            "dataset": DatasetChoice(name="coco", label="coco"),
            "networks": {"mask_rcnn": StudyNetwork(backend="torchvision", name="mask_rcnn")},
            "methods": {
                label: StudyMethod(name=name)
                for label, name in {"supervised": "supervised", "pais": "pais", "worse": "mean_teacher"}.items()
            },
        }
    )
    monkeypatch.setitem(GAIN, "supervised", 0.0)
    paper_ledger.Report().write(study, fabricate(study, tmp_path, half_of), tmp_path)
    text = (tmp_path / "paper_ledger.md").read_text()
    assert "| PAIS | Mask R-CNN R-50 | coco | 1 % | mask_rcnn | 21.2 | 12.5 | −8.7 | – |" in text
    assert r"| 31\* | – | – | – |" in text
    assert "3.5? | 10.5 | – | split family soft_teacher for unknown |" in text
    assert "detector mask_rcnn for K-Net" in text
    assert "3.5? &" in (tmp_path / "paper_ledger.tex").read_text()
    frame = pd.read_csv(tmp_path / "paper_ledger.csv")
    assert set(frame["tag"]) == {"verified", "secondary", "unverified"}
    assert (frame["not_comparable"] == "not in the study").sum() > 50


def half_of(run: Run) -> float:
    return 0.5 if run.method.label == "pais" and run.split.fold == 2 or run.split.percent == 10 else 1


def test_data_that_no_paper_has_stand_beside_no_published_number(tmp_path: Path) -> None:
    for number, (name, label) in enumerate([("shapes", "shapes"), ("coco", "my_photos")]):
        study = make_study().model_copy(update={"dataset": DatasetChoice(name=name, label=label)})
        results = fabricate(study, tmp_path / str(number), half)
        for report in (paper_ledger.Report(), records.Report()):
            with pytest.raises(NothingToShow, match=f"no paper of the ledger has numbers of {label}"):
                report.frame(study, results)
        assert (label_efficiency.Report().points(study, results)["paper"] == "").all()


def test_the_records_stand_beside_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with the records of the papers as a person read them out of the sources."""
    study = make_study(folds=(1, 2)).model_copy(update={"dataset": DatasetChoice(name="coco", label="coco")})
    results = fabricate(study, tmp_path)
    records.Report().write(study, results, tmp_path)
    frame = pd.read_csv(tmp_path / "records.csv").set_index(["dataset", "backbones", "percent"])
    found = {key: f"{row['method']} {row['paper']:g}" for key, row in frame.dropna(subset=["paper"]).iterrows()}
    coco, city = zip((1, 2, 5, 10), (25.2, 29.2, 34.0, 36.8), strict=True), ((5, "S4M 30.1"), (10, "S4M 33.3"))
    assert all(found["coco", "R-50", percent] == f"PL-DC {ap:g}" for percent, ap in coco)
    assert all(found["cityscapes", "R-50", percent] == text for percent, text in city)
    assert found["cityscapes", "R-50", 30] == "PL-DC 37.9" and found["cityscapes", "any", 30] == "CAST 40.4"
    assert [found["cityscapes", "any", percent] for percent in (5, 10)] == ["CAST 30.7", "CAST 33.9"]
    assert [found["coco", "any", p].split()[-1] for p in (1, 2, 5, 10)] == ["34.1", "38.2", "41.6", "43.1"]
    text = (tmp_path / "records.md").read_text()
    assert r"| coco | 1 % | PL-DC, R-50: 25.2 | Guided Distillation, DINOv2-L: 34.1\* | pais, small: 13.0 |" in text
    assert r"| coco | 2 % | PL-DC, R-50: 29.2 | Guided Distillation, DINOv2-L: 38.2\* | – |" in text
    assert r"| ade20k | 10 % | – | CAST, DINOv2-S: 16.7\* | – |" in text
    methods = {**study.methods, "pais": StudyMethod(name="oracle")}
    records.Report().write(study.model_copy(update={"methods": methods}), results, tmp_path)
    assert "base_line, small: 10.5 |" in (tmp_path / "records.md").read_text(), "oracle is no method"


def test_an_ap50_is_compared_with_an_ap50(tmp_path: Path) -> None:
    study = make_study(folds=(1,)).model_copy(
        update={
            "dataset": DatasetChoice(name="cityscapes", label="cityscapes"),
            "networks": {"mask_rcnn": StudyNetwork(backend="torchvision", name="mask_rcnn")},
        }
    )
    paper_ledger.Report().write(study, fabricate(study, tmp_path), tmp_path)
    text = (tmp_path / "paper_ledger.md").read_text()
    assert r"| PAIS | Mask R-CNN R-50 | cityscapes | 10 % | mask_rcnn | 22.9\* | 32.5 | – |" in text
    assert r"| PAIS | Mask R-CNN R-50 | cityscapes | 10 %, AP50 | mask_rcnn | 44.9\* | 65.0 | – |" in text
