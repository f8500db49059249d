"""Check the tables of finished and unfinished grids."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from pais_bench import plugins
from pais_bench.annotations.store import Subset, write_store
from pais_bench.errors import NothingToShow
from pais_bench.reports import style
from pais_bench.reports.answer import in_terminal
from pais_bench.reports.cells import cells
from pais_bench.reports.figures import convergence, panoptic_efficiency
from pais_bench.reports.results import Results
from pais_bench.reports.table import Bold, Table
from pais_bench.reports.tables import (
    ablation,
    checkpoints,
    convergence_numbers,
    cost,
    method_pairs,
    panoptic_quality,
    per_class,
    protocols,
    significance,
)
from pais_bench.reports.tables.main_table import Report
from pais_bench.reports.write import write_reports
from pais_bench.study.run import Run, Training
from pais_bench.study.study import DatasetChoice, Reported, SplitGrid, Study, StudyMethod, StudyNetwork

# AP of the fabricated runs in percent: a number per percent of labels, plus a gain per method, plus 1 per fold after 1
BASE = {1.0: 10.0, 10.0: 30.0}
GAIN = {"base_line": 0.0, "pais": 2.5, "worse": -0.5}


def make_study(folds: tuple[int, ...] = (1,), networks: tuple[str, ...] = ("small",)) -> Study:
    return Study(
        name="try_out",
        dataset=DatasetChoice(name="shapes", label="my_shapes"),
        split=SplitGrid(percents=(1, 10), folds=folds),
        training=Training(steps=20),
        networks={name: StudyNetwork(backend="torchvision", name="mask_rcnn") for name in networks},
        methods={"base_line": StudyMethod(name="supervised"), "pais": StudyMethod(), "worse": StudyMethod(name="pais")},
    )


def expected_ap(run: Run) -> float:
    return (BASE[run.split.percent] + GAIN[run.method.label] + run.split.fold - 1) / 100


def fabricate(study: Study, root: Path, progress: Callable[[Run], float] = lambda run: 1.0) -> Results:
    """Write the folders of the study's runs, each trained to a fraction 0..1 of its steps, and read them."""
    for run in study.runs():
        if progress(run) == 0:
            continue
        folder = root / run.folder
        folder.mkdir(parents=True)
        steps = range(5, int(20 * progress(run)) + 1, 5)
        (folder / "log.jsonl").write_text("".join(evaluation(step, expected_ap(run) * step / 20) for step in steps))
        if progress(run) < 1:
            continue
        ap = expected_ap(run)
        numbers = {"segm": {"AP": ap, "AP50": ap * 2}, "bbox": {"AP": ap * 1.5}}
        content = {"run": run.model_dump(mode="json"), "digest": run.digest, "commit": "c0ffee", "steps": 20}
        content |= {"wall_seconds": 1800.0, "hardware": {"device": "cpu", "devices": 1, "peak_memory_mib": 512}}
        (folder / "run.json").write_text(json.dumps(content))
        classes = {"disc": ap - 0.01, "bar": None, "a_b": ap + 0.01}
        metrics = {"digest": run.digest, "images": 240, **numbers, "per_class": classes}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return Results.of(study, root)


def evaluation(step: int, ap: float) -> str:
    teacher = {"segm_AP": ap, "segm_AP50": ap, "bbox_AP": ap}
    student = {**teacher, "segm_AP": ap / 2}
    line = {"event": "evaluation", "step": step, "seconds": step / 2, "images_seen": 12 * step}
    return json.dumps({**line, "student": student, "teacher": teacher}) + "\n"


def half(run: Run) -> float:
    """Return 1 at 1 % but for one fold of pais, and 0 at 10 % but for half of the baseline."""
    if run.split.percent == 1:
        return 0.5 if run.method.label == "pais" and run.split.fold == 2 else 1
    return 0.5 if run.method.label == "base_line" else 0


MD = """\
Mask AP (%) of the teacher on my_shapes (240 images), by percent of labelled images. Splits: family soft_teacher, \
2 folds. Evaluator: pycocotools, COCO AP at IoU 0.50:0.95, at most 100 detections per image. \
Mean ± sample standard deviation over the folds. \
In parentheses: gain over the supervised run of the same network, percent and fold.

| network | method | 1 % | 10 % |
| :-- | :-- | --: | --: |
| small | base_line | 10.5 ± 0.7 | – |
| small | pais | 12.5 (+2.5)† | – |
| small | worse | 10.0 ± 0.7 (−0.5) | – |

7 of 12 runs are missing: – no fold is finished, † some folds are not.
"""

TEX = r"""% Needs \usepackage{booktabs,graphicx}
\begin{table}[t]
\centering
\caption{Mask AP (\%) of the teacher on my\_shapes (240 images), by percent of labelled images. Splits: family soft\_teacher, 1 fold. Evaluator: pycocotools, COCO AP at IoU 0.50:0.95, at most 100 detections per image. In parentheses: gain over the supervised run of the same network, percent and fold.}
\label{tab:try_out:main_table}
\par\smallskip
\sbox0{%
\begin{tabular}{llr@{ }lr@{ }l}
\toprule
network & method & \multicolumn{2}{c}{1 \%} & \multicolumn{2}{c}{10 \%} \\
\midrule
small & base\_line & 10.0 &  & 30.0 &  \\
 & pais & 12.5 & (+2.5) & 32.5 & (+2.5) \\
 & worse & 9.5 & ($-$0.5) & 29.5 & ($-$0.5) \\
\bottomrule
\end{tabular}
}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi
\end{table}
"""  # noqa: E501

TERMINAL = """\
Mask AP (%) of the teacher on my_shapes

network  method     1 %                 10 %
────────────────────────────────────────────
small    base_line  10.5 ± 0.7          –
small    pais             12.5 (+2.5)†  –
small    worse      10.0 ± 0.7 (−0.5)   –

7 of 12 runs are missing: – no fold is finished, † some folds are not.

At 1 % labels, pais is ahead of base_line, but this is not tested, as the predictions are not here.
1 % labels: pais is best so far with a mask AP of 12.5, +2.5 over base_line; not tested, as the predictions are not here.
10 % labels: no run is finished."""  # noqa: E501


def test_an_unfinished_grid_as_markdown_csv_and_text(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path, half)
    Report().write(study, results, tmp_path)
    assert (tmp_path / "main_table.md").read_text() == MD
    assert in_terminal(study, results) == TERMINAL
    lines = (tmp_path / "main_table.csv").read_text().splitlines()
    assert lines[0] == (
        "dataset,family,model,backend,network,method,percent,folds,folds_expected,AP,AP_std,gain,AP50,box_AP"
    )
    start = "my_shapes,soft_teacher,teacher,torchvision,small"
    assert lines[1] == f"{start},base_line,1.0,2,2,10.5,0.7071,,21.0,15.75"
    assert lines[3] == f"{start},pais,1.0,1,2,12.5,,2.5,25.0,18.75"
    assert lines[4] == f"{start},pais,10.0,0,2,,,,,"
    assert len(lines) == 1 + 3 * 2


def test_markdown_shows_every_text_as_it_is() -> None:
    texts = [
        "base_line",
        "_x_ __y__ ü_ a*b* **c**",
        "`d` e|f \\| \\*",
        "<b>bold</b> <!-- x &amp; &#35;",
        "p < 0.001, x <- y",
    ]
    texts += ["[−0.1, +2.3] [a](b) [c][d] [e]: f", "~~g~~ $h$ c:\\d", "* star", "http://x.y/_z_", "1. [i]"]
    table = Table("* a _caption_", [texts[1], "n"], [[text, Bold(text)] for text in texts], 1, ["`note` <i>"])
    tokens = MarkdownIt().enable(["table", "strikethrough"]).parse(table.markdown())
    lines = [one for one in tokens if one.type == "inline"]
    shown = ["".join(child.content for child in line.children or ()) for line in lines]
    cells = [text for text in texts for _ in ("text", "number")]
    assert shown == ["* a _caption_", texts[1], "n", *cells, "`note` <i>"]
    assert {child.type for line in lines for child in line.children or ()} <= {"text", "strong_open", "strong_close"}


def test_latex_of_a_finished_grid_of_one_fold(tmp_path: Path) -> None:
    study = make_study()
    Report().write(study, fabricate(study, tmp_path), tmp_path)
    assert (tmp_path / "main_table.tex").read_text() == TEX


def test_latex_marks_and_groups(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2), networks=("small", "k_net"))
    Report().write(study, fabricate(study, tmp_path, half), tmp_path)
    tex = (tmp_path / "main_table.tex").read_text()
    assert tex.count(r"\midrule") == 2
    assert r"k\_net & base\_line & 10.5 $\pm$ 0.7 &  & -- &  \\" in tex
    assert r" & pais & 12.5 & (+2.5)$^{\dagger}$ & -- &  \\" in tex
    assert r"\par\smallskip\footnotesize 14 of 24 runs are missing: -- no fold" in tex


def test_a_gain_is_paired_by_fold(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    only_second = fabricate(study, tmp_path, lambda run: float(run.method.label == "base_line" or run.split.fold == 2))
    table = cells(study, only_second)
    pais = table[(table["method"] == "pais") & (table["percent"] == 1)].iloc[0]
    assert (pais["AP"], pais["gain"], pais["folds"]) == pytest.approx((13.5, 2.5, 1))


def test_one_fold_without_a_supervised_method_has_neither_deviation_nor_gain(tmp_path: Path) -> None:
    study = make_study()
    study = study.model_copy(update={"methods": {"pais": study.methods["pais"]}})
    text = in_terminal(study, fabricate(study, tmp_path))
    assert "12.5" in text and "±" not in text and "(+" not in text


def test_convergence_has_the_mean_and_range_of_steps_that_all_folds_reached(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    results = fabricate(study, tmp_path, half)
    convergence.Report().write(study, results, tmp_path)
    points = pd.read_csv(tmp_path / "convergence.csv")
    assert list(points.columns) == [
        *("network", "method", "model", "percent", "step", "images_seen", "seconds"),
        *("AP", "AP_min", "AP_max", "folds"),
    ]
    pais = points[(points["method"] == "pais") & (points["model"] == "teacher")]
    assert list(pais["step"]) == [5, 10]
    assert tuple(pais.iloc[1][["AP", "AP_min", "AP_max", "folds"]]) == pytest.approx((6.5, 6.25, 6.75, 2))
    assert tuple(pais.iloc[1][["images_seen", "seconds"]]) == (120, 5)
    student = points[(points["method"] == "pais") & (points["model"] == "student")]
    assert student["AP"].iloc[1] == pytest.approx(3.25)
    five = make_study(folds=(1, 2, 3, 4, 5))
    labels = [str(entry.get_label()) for entry in convergence.legend_entries(five, pais)]
    assert labels == ["pais", "teacher", "student", "range of 2 folds"]


@pytest.mark.parametrize(
    ("folds", "progress"),
    [((1,), lambda run: 0), ((1, 2), half), ((1,), lambda run: 1)],
    ids=["empty", "half", "finished"],
)
def test_every_report_is_written_for_any_grid(
    folds: tuple[int, ...], progress: Callable[[Run], float], tmp_path: Path
) -> None:
    study = make_study(folds, networks=("small", "k_net"))
    written = write_reports(study, fabricate(study, tmp_path / "results", progress), tmp_path / "new" / "reports")
    paths = written.paths
    assert not written.failures
    assert {"convergence.pdf", "convergence.png", "label_efficiency.csv", "main_table.tex"} <= {p.name for p in paths}
    assert sorted(p.name for p in (tmp_path / "new" / "reports").iterdir()) == sorted(p.name for p in paths)
    assert all(path.stat().st_size for path in paths)


def test_mask_ap_per_class_and_method(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    per_class.Report().write(study, fabricate(study, tmp_path, half), tmp_path)
    text = (tmp_path / "per_class.md").read_text()
    assert "| network | labels | class | base_line | pais | worse |" in text
    assert "| small | 1 % | disc | 9.5 | 11.5 | 9.0 |" in text
    assert "| small | 1 % | bar | – | – | – |" in text
    assert r"small & 1 \% & a\_b & 11.5 & 13.5 & 11.0 \\" in (tmp_path / "per_class.tex").read_text()
    assert "per_class" not in text and "10 %" not in text


def test_panoptic_quality_of_means_and_classes(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    with pytest.raises(NothingToShow, match="add 'panoptic' to its metrics"):
        panoptic_quality.Report().frame(study, fabricate(study, tmp_path, half))
    for path in tmp_path.rglob("metrics.json"):
        metrics = json.loads(path.read_text())
        numbers = {"PQ": 0.4, "SQ": 0.8, "RQ": 0.5, "PQth": 0.3 + metrics["segm"]["AP"], "PQst": None}
        metrics |= {"panoptic": numbers, "panoptic_per_class": {"disc": 0.25, "sky": None}}
        path.write_text(json.dumps(metrics))
    results = Results.of(study, tmp_path)
    panoptic_quality.Report().write(study, results, tmp_path)
    text = (tmp_path / "panoptic_quality.md").read_text()
    for row in (
        "| small | 1 % | all classes | 40.0 ± 0.0 | 40.0 | 40.0 ± 0.0 |",
        "| small | 1 % | things | 40.5 ± 0.7 | 42.5 | 40.0 ± 0.7 |",
        "| small | 1 % | stuff | – | – | – |",
        "| small | 1 % | disc | 25.0 ± 0.0 | 25.0 | 25.0 ± 0.0 |",
        "| small | 1 % | sky | – | – | – |",
    ):
        assert row in text, text
    assert "10 %" not in text
    points = panoptic_efficiency.Report().points(study, results).set_index(["method", "classes"])
    assert points.loc[("base_line", "things"), "PQ"] == pytest.approx(40.5)
    assert set(points.index.get_level_values("classes")) == {"all classes", "things"}
    section = panoptic_efficiency.Report().write(study, results, tmp_path)
    assert {path.suffix for path in section.files} == {".csv", ".pdf", ".png"}
    report = panoptic_efficiency.Report()
    ((heading, panels),) = report.charts(study, results, report.points(study, results))["panoptic_efficiency"].rows
    assert heading == "" and [panel.title for panel in panels] == ["all classes", "things"]
    (trace,) = (trace for trace in panels[1].traces if trace["name"] == "base_line")
    assert trace["y"] == pytest.approx([40.5]) and trace["customdata"] == [(2, 1)]
    frame = protocols.Report().frame(study, results)
    quality = frame[frame["protocol"] == "cityscapesScripts PQ"]
    assert set(quality["number"]) == {"PQ", "SQ", "RQ", "PQth"} and set(
        quality[quality["number"] == "SQ"]["value"]
    ) == {80}


def test_cost_of_trained_runs(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    cost.Report().write(study, fabricate(study, tmp_path, half), tmp_path)
    text = (tmp_path / "cost.md").read_text()
    assert "| network | method | labels | device | hours | images/s | memory (GiB) |\n" in text
    assert "| small | base_line | 1 % | cpu | 0.50 | 0.1 | 0.5 |" in text
    assert "| small | pais | 10 % | – | – | – | – |" in text
    assert "4 of 6 cells lack folds." in text and "pretrained teacher" not in text


def test_a_network_with_methods_of_its_own_lacks_no_others_and_a_teacher_is_noted(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2), networks=("small", "other"))
    networks = {**study.networks, "other": study.networks["other"].model_copy(update={"methods": ("base_line",)})}
    methods = {**study.methods, "pais": StudyMethod(name="data_distillation", teacher="base_line")}
    study = study.model_copy(update={"networks": networks, "methods": methods})
    results = fabricate(study, tmp_path)
    for report in (cost, convergence_numbers, protocols, significance, method_pairs):
        report.Report().write(study, results, tmp_path)
        text = (tmp_path / f"{report.__name__.rpartition('.')[2]}.md").read_text()
        assert "lack folds" not in text and "| other | worse |" not in text, report
        if report in (cost, convergence_numbers):
            assert "Without the training of a pretrained teacher: pais (teacher: base_line)." in text
    Report().write(study, results, tmp_path)
    assert "| other | pais |" not in (tmp_path / "main_table.md").read_text()
    significance_rows = pd.read_csv(tmp_path / "significance.csv")
    assert set(significance_rows["network"]) == {"small"}


def with_predictions(study: Study, root: Path, keep: dict[str, float]) -> Results:
    """Fabricate a grid whose methods keep a fraction of the predictions on one random dataset."""
    gt, records = coco_random.generate(11, images=80)
    images = [{**image, "file_name": f"{image['id']}.png"} for image in gt["images"]]
    subset = Subset("random", root, images, gt["annotations"], gt["categories"])
    write_store(root / "datasets" / study.dataset.label, study.dataset.label, {"val": subset})
    fabricate(study, root)
    for run in study.runs():
        rng = np.random.default_rng(run.split.fold)
        kept = [record for record in records if rng.random() < keep[run.method.label]]
        (root / run.folder / "predictions.json").write_text(json.dumps(kept))
    return Results.of(study, root)


def test_variants_are_compared_with_their_reference_by_the_options_that_differ(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    worse = StudyMethod(name="pais", options={"beta": 0, "mask_scale": 1.0}, training={"ema_decay": 0.5})
    study = study.model_copy(update={"methods": {**study.methods, "worse": worse}})
    results = fabricate(study, tmp_path, half)
    csv, markdown, latex = ablation.Report().write(study, results, tmp_path).files
    rows = pd.read_csv(csv).set_index(["method", "percent"])
    assert set(rows.index.get_level_values("method")) == {"pais", "worse"}, "supervised has no variant"
    assert rows.loc[("worse", 1), "changed"] == "beta 0, mask_scale 1, ema_decay 0.5"
    assert rows.loc[("worse", 1), "folds"] == 2
    assert rows.loc[("worse", 1), "difference"] == pytest.approx(-3), "pais has fold 1 alone"
    assert rows.loc[("worse", 10), "folds"] == 0
    assert math.isnan(rows.loc[("worse", 10), "difference"]) and math.isnan(rows.loc[("pais", 1), "difference"])
    assert "| small | pais | (reference) |" in markdown.read_text()
    assert "mask\\_scale 1" in latex.read_text()
    long = StudyMethod(name="pais", training={"steps": 1_800_000, "filter_empty_gt": True, "seed": 20260112})
    changed = ablation.changes(study.model_copy(update={"methods": {**study.methods, "long": long}}), "long", "pais")
    assert changed == "steps 1800000, filter_empty_gt True, seed 20260112", "two seeds of one beginning are told apart"
    alone = study.model_copy(update={"methods": {name: study.methods[name] for name in ("base_line", "pais")}})
    with pytest.raises(NothingToShow, match="no method more than once"):
        ablation.Report().write(alone, results, tmp_path)


def test_a_significant_gain_is_bold_and_needs_predictions_of_both_methods(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2, 3))
    results = with_predictions(study, tmp_path, {"base_line": 0.3, "pais": 1.0, "worse": 0.32})
    significance.Report().write(study, results, tmp_path)
    frame = pd.read_csv(tmp_path / "significance.csv").set_index(["percent", "method"])
    pais, worse = frame.loc[(1, "pais")], frame.loc[(1, "worse")]
    assert pais["significant"] and pais["low"] > 0 and pais["folds"] == 3
    assert not worse["significant"] and worse["low"] < 0 < worse["high"]
    assert pais["p_holm"] == pytest.approx(2 * pais["p"], abs=1e-4)
    assert pais["p_images_holm"] == pytest.approx(2 * pais["p_images"], abs=1e-4)
    text = (tmp_path / "significance.md").read_text()
    images, both = (f"[+{pais[f'low{kind}']:.1f}, +{pais[f'high{kind}']:.1f}]" for kind in ("_images", ""))
    row = f"| **+{pais['gain']:.1f}** | {images} | {pais['p_images_holm']:.3f} | {both} | {pais['p_holm']:.3f} |"
    assert row in text and "Over folds and images: two-level bootstrap" in text and "rules bold: p < 0.05" in text
    assert r"\textbf{+" in (tmp_path / "significance.tex").read_text()
    Report().write(study, results, tmp_path)
    main = (tmp_path / "main_table.md").read_text()
    assert (
        "Bold: better than supervised, p < 0.05, from 3 folds on (two-level bootstrap of folds and images with a t "
        "interval, p corrected by Holm" in main
    )
    assert "| small | pais | **13.5 ± 1.0 (+2.5)** | **33.5 ± 1.0 (+2.5)** |" in main
    assert "| small | worse | 10.5 ± 1.0 (−0.5) | 30.5 ± 1.0 (−0.5) |" in main and "Nothing is bold" not in main
    assert r"\textbf{13.5 $\pm$ 1.0} & \textbf{(+2.5)} & " in (tmp_path / "main_table.tex").read_text()
    assert "**" not in in_terminal(study, results)

    for run in study.runs():
        few = {"base_line": (1, 2, 3), "pais": (1,), "worse": (1, 2)}[run.method.label]
        if run.split.fold not in few or run.split.percent == 10:
            (tmp_path / run.folder / "predictions.json").unlink()
    significance.Report().write(study, results, tmp_path)
    frame = pd.read_csv(tmp_path / "significance.csv").set_index(["percent", "method"])
    assert list(frame["folds"]) == [1, 2, 0, 0]
    pais = frame.loc[(1, "pais")]
    assert pais["p_images_holm"] < 0.05 and not pais["significant"], "one training is never bold"
    assert pais[["low", "high", "p", "p_holm", "detectable"]].isna().all()
    assert frame.loc[(1, "worse"), "low":"p_holm"].notna().all() and not frame.loc[(1, "worse"), "significant"]
    text = (tmp_path / "significance.md").read_text()
    assert "| small | 10 % | pais | 0 | – | – | – | – | – | – |" in text and "**" not in text
    assert "2 of 4 rows have fewer than 3 folds: none of them is bold." in text
    Report().write(study, results, tmp_path)
    main = (tmp_path / "main_table.md").read_text()
    assert "Nothing is bold: fewer than 3 folds" in main and "**" not in main and "Bold: " not in main


def metrics_files(study: Study, root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the path and the content of every metrics.json of an unfinished grid."""
    fabricate(study, root, half)
    for path in sorted(root.rglob("metrics.json")):
        yield path, json.loads(path.read_text())


def test_the_tables_print_one_checkpoint_and_compare_it_with_the_others(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2))
    for path, metrics in metrics_files(study, tmp_path):
        metrics["segm"]["AP"] += 0.05
        path.with_name("metrics-student-best.json").write_text(json.dumps({**metrics, "model": "student"}))
    reported = {"report": Reported(model="student", checkpoint="best"), "also_evaluate": ("teacher-last",)}
    student_study = study.model_copy(update=reported)
    results = Results.of(student_study, tmp_path)
    checkpoints.Report().write(student_study, results, tmp_path)
    text = (tmp_path / "checkpoints.md").read_text()
    assert "The other tables print student-best." in text and "optimistically biased" in text
    assert "| network | method | labels | student-best | teacher-last |" in text
    assert "| small | base_line | 1 % | 15.5 ± 0.7 | 10.5 ± 0.7 |" in text
    assert "| small | pais | 10 % | – | – |" in text
    Report().write(student_study, results, tmp_path)
    main = (tmp_path / "main_table.md").read_text()
    assert main.startswith("Mask AP (%) of the student at its best evaluation on my_shapes")
    assert "| small | base_line | 15.5 ± 0.7 | – |" in main
    before, after = ([run.digest for run in changed.runs()] for changed in (study, student_study))
    assert before == after, "printing another checkpoint trains nothing again"


def test_every_number_has_its_protocol(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2)).model_copy(update={"metrics": ("coco", "cityscapes", "boundary")})
    for path, metrics in metrics_files(study, tmp_path):
        metrics |= {"cityscapes": {"AP": 0.05, "AP50": None}, "boundary": {"APs": 0.01}}
        path.write_text(json.dumps(metrics))
    protocols.Report().write(study, Results.of(study, tmp_path), tmp_path)
    rows = [line for line in (tmp_path / "protocols.md").read_text().splitlines() if "| small | pais |" in line]
    assert rows == [
        "| small | pais | 1 % | COCO mask AP | 12.5 | 25.0 | – |",
        "| small | pais | 1 % | COCO box AP | 18.8 | – | – |",
        "| small | pais | 1 % | COCO boundary AP | – | – | 1.0 |",
        "| small | pais | 1 % | cityscapesScripts AP | 5.0 | – | – |",
    ]
    assert "cityscapesScripts AP,AP,1,5.0" in (tmp_path / "protocols.csv").read_text()
    measured = study.model_copy(update={"metrics": ("coco", "boundary")})
    fewer = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in fewer.items() if key != "boundary"}))
    protocols.Report().write(measured, Results.of(measured, tmp_path), tmp_path)
    note = "1 of 5 finished runs were evaluated without boundary; remove their metrics.json, and"
    assert note in (tmp_path / "protocols.md").read_text()


def test_an_oracle_is_shown_and_compared_with_none(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2, 3))
    study = study.model_copy(update={"methods": {**study.methods, "worse": StudyMethod(name="oracle")}})
    results = with_predictions(study, tmp_path, {"base_line": 0.3, "pais": 1.0, "worse": 1.0})
    assert set(significance.Report().frame(study, results)["method"]) == {"pais"}
    pairs = method_pairs.Report().frame(study, results)
    assert set(zip(pairs["first"], pairs["second"], strict=True)) == {("base_line", "pais")}
    text = in_terminal(study, results)
    assert "10.5 ± 1.0 (−0.5)" in text
    assert "worse learns the held-out labels" in Report().table(study, results, Report().frame(study, results)).caption
    marks = style.marks(study)
    assert (marks["base_line"].colour, marks["worse"].colour) == (style.GREY, style.LIGHT_GREY)


def test_many_pairs_are_a_matrix_of_differences_and_those_not_told_apart_are_in_parentheses(tmp_path: Path) -> None:
    study = make_study(folds=(1, 2, 3))
    gains = {"base_line": 0.0, "a": 2.0, "b": 2.0, "c": 3.0, "d": 4.0, "e": 5.0}
    methods = {name: study.methods["pais"] for name in gains} | {"base_line": study.methods["base_line"]}
    study = study.model_copy(update={"methods": methods})
    for run in study.runs():
        (tmp_path / run.folder).mkdir(parents=True)
        # The folds of b differ from those of the others.
        ap = (20 + gains[run.method.label] + (run.split.fold**2 if run.method.label == "b" else run.split.fold)) / 100
        metrics = {"digest": run.digest, "segm": {"AP": ap, "AP50": ap}, "bbox": {"AP": ap}}
        (tmp_path / run.folder / "metrics.json").write_text(json.dumps(metrics))
    method_pairs.Report().write(study, Results.of(study, tmp_path), tmp_path)
    text = (tmp_path / "method_pairs.md").read_text()
    assert "| network | labels | method | 1 | 2 | 3 | 4 | 5 |" in text
    assert "| small | 1 % | 2 a | +2.0 |  |  |  |  |" in text
    assert "| small | 1 % | 3 b | (+4.7) | (+2.7) |  |  |  |" in text
    assert "| small | 10 % | 6 e | +5.0 | +3.0 | (+0.3) | +2.0 | +1.0 |" in text
    assert "1 is base_line." in text and len(pd.read_csv(tmp_path / "method_pairs.csv")) == 2 * 15


def test_every_method_has_its_own_mark_and_the_supervised_is_grey() -> None:
    marks = style.marks(make_study())
    assert marks["base_line"].colour == style.GREY
    assert len({mark.colour for mark in marks.values()}) == len({mark.marker for mark in marks.values()}) == 3


def test_every_report_has_a_title_and_its_own_name() -> None:
    reports = {name: plugins.load("reports", name).Report() for name in plugins.names("reports")}
    assert all(report.title and report.name == name for name, report in reports.items())
    assert {"main_table", "convergence", "label_efficiency"} <= set(reports)
