"""Check the ledger of published numbers, and that the report shows how well each number is verified."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from test_reports import GAIN, fabricate, half, make_study

from pais_bench.errors import BenchError
from pais_bench.reports import published
from pais_bench.reports.tables import paper_ledger
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
    assert len(published.read()) == 26


def test_a_wrong_ledger_is_named(tmp_path: Path) -> None:
    text = published.LEDGER.read_text().replace("tag: verified", "tag: sure", 1)
    (tmp_path / "ledger.yaml").write_text(text)
    with pytest.raises(BenchError, match=r"ledger.yaml: 'rows.5.cells.0.tag'"):
        published.read(tmp_path / "ledger.yaml")


def test_measured_numbers_are_compared_with_the_papers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(folds=(1, 2)).model_copy(
        update={
            "dataset": DatasetChoice(name="coco", label="coco"),
            "networks": {"mask_rcnn": StudyNetwork(backend="torchvision")},
            "methods": {"supervised": StudyMethod(), "pais": StudyMethod(), "worse": StudyMethod(name="mean_teacher")},
        }
    )
    monkeypatch.setitem(GAIN, "supervised", 0.0)
    paper_ledger.Report().write(study, fabricate(study, tmp_path, half_of), tmp_path)
    text = (tmp_path / "paper_ledger.md").read_text()
    assert "| PAIS | Mask R-CNN R-50 | coco | 1 % | mask_rcnn | 21.2 | 12.5 | −8.7 | – |" in text
    assert "| 31* | – | – | – |" in text
    assert "3.5? | 10.5 | – | split family soft_teacher for unknown |" in text
    assert "detector mask_rcnn for K-Net" in text
    assert "3.5? &" in (tmp_path / "paper_ledger.tex").read_text()
    frame = pd.read_csv(tmp_path / "paper_ledger.csv")
    assert set(frame["tag"]) == {"verified", "secondary", "unverified"}
    assert (frame["not_comparable"] == "not in the study").sum() > 50


def half_of(run: Run) -> float:
    return 0.5 if run.method.label == "pais" and run.split.fold == 2 or run.split.percent == 10 else 1


def test_another_dataset_is_never_compared(tmp_path: Path) -> None:
    study = make_study()
    paper_ledger.Report().write(study, fabricate(study, tmp_path, half), tmp_path)
    frame = pd.read_csv(tmp_path / "paper_ledger.csv")
    assert frame["difference"].isna().all()
    assert frame["not_comparable"].str.contains("dataset own data for coco").any()
