"""Check bundles and the leaderboard: what fits is ranked by numbers of its own, what was tampered with is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from tiny import study as tiny_study
from tiny import write_study

from pais_bench.annotations.sources import read_content
from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.evaluation import significance
from pais_bench.evaluation.bootstrap_cache import BootstrapAP
from pais_bench.evaluation.evaluate import evaluate
from pais_bench.leaderboard.bundle import Manifest
from pais_bench.leaderboard.entries import Entry, read_entries
from pais_bench.leaderboard.page import write_leaderboard
from pais_bench.leaderboard.ranking import rank
from pais_bench.leaderboard.submission import Submission
from pais_bench.leaderboard.truth import Truth
from pais_bench.splits.draw import draw_split
from pais_bench.study.load import load_study
from pais_bench.study.run import Run
from pais_bench.study.split import LabelNoise
from pais_bench.study.study import Study

if TYPE_CHECKING:
    from forked import Training

Members = dict[str, bytes]
FOLDS = (1, 2, 3)
QUALITY = {"pais": 1.6, "mean_teacher": 1.7, "supervised": 5.0}
"""Pixels by which the masks of a method are wrong: the first two are alike, the last is far behind."""


def detections(store: Store, method: str, fold: int) -> list[dict[str, Any]]:
    """Return the objects of a subset, each moved at random, as the results of a method."""
    rng = np.random.default_rng([fold, *method.encode()])
    records = []
    for image_id in store.image_ids:
        height, width = store.size(image_id)
        for annotation in store.annotations(image_id):
            x, y, w, h = annotation["bbox"]
            x0, y0, x1, y1 = np.array([x, y, x + w, y + h]) + rng.normal(0, QUALITY[method], 4).round()
            x0, y0 = max(0, min(x0, width - 2)), max(0, min(y0, height - 2))
            x1, y1 = min(width, max(x1, x0 + 2)), min(height, max(y1, y0 + 2))
            record = {"image_id": image_id, "category_id": annotation["category_id"], "score": float(rng.random())}
            records.append({**record, "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]})
    return records


def finish(run: Run, study: str, results: Path) -> Path:
    """Write what a training and a prediction leave of a run, evaluate it with the command, and return its folder."""
    dataset = results / "datasets" / run.dataset
    split = draw_split(Store.open(dataset, "train"), run.dataset, run.split)
    record = {
        "run": run.model_dump(mode="json"),
        "digest": run.digest,
        "commit": "0" * 40,
        "split": split.summary(),
        "data": read_content(dataset),
        "steps": run.training.steps,
    }
    folder = results / run.folder
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    records = detections(Store.open(dataset, "val"), run.method.label, run.split.fold)
    (folder / "predictions.json").write_text(json.dumps(records))
    words = ["--percent", f"{run.split.percent:g}", "--fold", str(run.split.fold), "--network", run.network.label]
    assert main(["evaluate", study, "--results", str(results), *words, "--method", run.method.label]) == 0
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Return the folders of nine finished runs of the tiny study, by method and fold."""
    folder = tmp_path_factory.mktemp("leaderboard")
    dataset = {"name": "shapes", "options": {"train": 40, "val": 30, "size": 64}}
    study = str(write_study(folder, dataset=dataset, split={"percents": [10], "folds": list(FOLDS)}))
    results = folder / "results"
    assert main(["prepare", study, "--results", str(results)]) == 0
    return {(run.method.label, run.split.fold): finish(run, study, results) for run in load_study(study).runs()}


@pytest.fixture(scope="module")
def truth(runs: dict[tuple[str, int], Path]) -> Path:
    return runs["pais", 1].parents[4] / "datasets" / "shapes"


@pytest.fixture(scope="module")
def bundles(runs: dict[tuple[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the nine bundles, and the numbers that a leaderboard of them evaluated."""
    folder = tmp_path_factory.mktemp("bundles")
    assert main(["submit", *map(str, runs.values()), "--out", str(folder / "in")]) == 0
    return folder


def board(folder: Path, out: Path, truth: object, *more: str) -> tuple[int, pd.DataFrame, str]:
    """Run the command; return its exit code, the CSV and the page."""
    code = main(["leaderboard", str(folder), "--truth", f"shapes={truth}", "--out", str(out), *more])
    return code, pd.read_csv(out / "leaderboard.csv"), (out / "leaderboard.html").read_text()


def test_rows_are_ranked_by_evaluated_numbers_and_neighbours_that_are_alike_share_a_rank(
    runs: dict[tuple[str, int], Path], bundles: Path, truth: Path
) -> None:
    code, rows, page = board(bundles / "in", bundles / "out", truth)
    assert code == 0 and list(rows["rank_first"]) == [1, 1, 3] and list(rows["rank_last"]) == [2, 2, 3]
    assert set(rows["method"][:2]) == {"pais", "mean_teacher"} and rows["method"][2] == "supervised"
    assert list(rows["folds"]) == ["1 2 3"] * 3 and rows["gain"].isna().tolist() == [False, False, True]
    bootstrap = BootstrapAP(Store.open(truth, "val"))
    samples = {
        method: [100 * bootstrap.of(runs[method, fold] / "predictions.json") for fold in FOLDS] for method in QUALITY
    }
    ap = {method: np.mean([fold[0] for fold in folds]) for method, folds in samples.items()}
    for _, row in rows.iterrows():
        claims = [json.loads((runs[row["method"], fold] / "metrics.json").read_text())["segm"] for fold in FOLDS]
        assert row["AP"] == pytest.approx(ap[row["method"]], abs=1e-3)
        assert row["AP50"] == pytest.approx(100 * np.mean([claim["AP50"] for claim in claims]), abs=1e-3)
    for place in (0, 1):
        low, high = rows["method"][place + 1], rows["method"][place]
        expected = significance.two_level(samples[low], samples[high])
        assert rows["gain"][place] == pytest.approx(ap[high] - ap[low], abs=1e-3)
        assert (rows["low"][place], rows["high"][place]) == pytest.approx((expected.low, expected.high), abs=1e-3)
        assert rows["common_folds"][place] == 3
    assert "<td>1–2</td>" in page and "<td>3</td>" in page and 'id="refused"' not in page
    assert "are those of the split, which was drawn again here" in page
    assert "://" not in page and "<script" not in page and "src=" not in page


def test_the_same_run_gives_the_same_bytes_and_names_who_submits(
    runs: dict[tuple[str, int], Path], bundles: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pais", 1], run)
    for path in run.iterdir():
        os.utime(path, (2e9, 2e9))
    assert main(["submit", str(run), "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.zip")
    assert path.read_bytes() == (bundles / "in" / path.name).read_bytes()
    assert path.name.startswith("shapes-10pct-fold1-torchvision-mask_rcnn-pais-")
    assert main(["submit", str(run), "--out", str(tmp_path), "--by", "A. Müller <b>"]) == 0
    assert (tmp_path / f"{path.stem}-A-Müller-b.zip").exists()


def unpack(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, members: Members, sealed: bool = True) -> None:
    """Write a bundle by hand; sealed gives it a manifest that fits, as a forger would."""
    if sealed:
        manifest = json.loads(members["manifest.json"])
        manifest["members"] = {
            name: hashlib.sha256(members[name]).hexdigest() for name in manifest["members"] if name in members
        }
        members = {**members, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def edited(name: str, edit: Callable[[Any], Any], sealed: bool = True) -> Callable[[Path], None]:
    """Return a forgery that edits the content of a JSON member."""

    def forge(path: Path) -> None:
        members = unpack(path)
        content = json.loads(members[name])
        content = edit(content) or content
        pack(path, {**members, name: json.dumps(content).encode()}, sealed)

    return forge


def set_key(*keys: Any, value: Any) -> Callable[[Any], None]:
    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


def changed(change: Callable[[Members], Members], sealed: bool = False) -> Callable[[Path], None]:
    return lambda path: pack(path, change(unpack(path)), sealed)


def huge(path: Path) -> None:
    """Declare 3 GiB for the predictions in the central directory and in the header of the member."""
    content = path.read_bytes()
    size = struct.pack("<I", len(unpack(path)["predictions.json"]))
    assert content.count(size) >= 2
    path.write_bytes(content.replace(size, struct.pack("<I", 3 << 30)))


def link(path: Path) -> None:
    members = unpack(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if name == "predictions.json" else 0o100644) << 16
            archive.writestr(entry, b"/etc/hostname" if name == "predictions.json" else text)


def bzipped(path: Path) -> None:
    members = unpack(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def twice(path: Path) -> None:
    content = unpack(path)["run.json"]
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("run.json", content)


def other_split(record: dict[str, Any]) -> None:
    record["split"]["sha256"] = "f" * 64


def other_percent(record: dict[str, Any]) -> None:
    record["run"]["split"]["percent"] = record["split"]["percent"] = 5.0


def resigned(path: Path) -> None:
    """Rename the method, and give every file the digest of the renamed run: a run of somebody else under a new name."""
    members = unpack(path)
    record, metrics = json.loads(members["run.json"]), json.loads(members["metrics.json"])
    record["run"]["method"]["label"] = "ours"
    record["digest"] = metrics["digest"] = Run(**record["run"]).digest
    pack(path, {**members, "run.json": json.dumps(record).encode(), "metrics.json": json.dumps(metrics).encode()})


NAN = float("nan")
FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "predictions without a new manifest": (
        edited("predictions.json", lambda records: records[1:], sealed=False),
        "predictions.json: has the sha256 ",
    ),
    "better predictions with a new manifest": (
        edited("predictions.json", lambda records: records[len(records) // 2 :]),
        "metrics.json: claims segm AP ",
    ),
    "metrics without a new manifest": (
        edited("metrics.json", set_key("segm", "AP", value=0.99), sealed=False),
        "metrics.json: has the sha256 ",
    ),
    "metrics": (edited("metrics.json", set_key("segm", "AP", value=0.99)), "claims segm AP 99.0000, and the"),
    "metrics of boxes": (edited("metrics.json", set_key("bbox", "AP75", value=0.5)), "claims bbox AP75 50.0000, and"),
    "metrics that are NaN": (edited("metrics.json", set_key("segm", "AP", value=NAN)), "claims segm AP nan, and"),
    "metrics that are a text": (edited("metrics.json", set_key("segm", "AP", value="1")), "claims segm AP '1', and"),
    "metrics that are absent": (edited("metrics.json", set_key("segm", value=[])), "claims segm AP None, and"),
    "metrics of another run": (edited("metrics.json", set_key("digest", value="0" * 8)), "of run 00000000, not of"),
    "manifest": (edited("manifest.json", set_key("members", "run.json", value="0" * 64), False), "lists 00000000;"),
    "key of the manifest": (edited("manifest.json", set_key("rank", value=1)), "manifest.json: unknown key 'rank'"),
    "member that is not listed": (
        edited("manifest.json", lambda content: content["members"].pop("run.json") and content, False),
        "manifest.json: lists ",
    ),
    "name with a line break": (edited("manifest.json", set_key("by", value="a\nb")), "manifest.json: 'by'"),
    "checkpoint": (
        edited("manifest.json", set_key("checkpoint", value="student-last")),
        "metrics.json: not of the checkpoint student-last",
    ),
    "manifest that is a list": (changed(lambda members: {**members, "manifest.json": b"[]"}), "holds no mapping"),
    "options of the run": (
        edited("run.json", set_key("run", "training", "steps", value=2)),
        "run.json: records the digest ",
    ),
    "oracle": (
        edited("run.json", set_key("run", "method", "name", value="oracle")),
        "run.json: oracle learns the labels",
    ),
    "unfinished training": (edited("run.json", set_key("steps", value=2)), "run.json: trained for 2 of 4 steps"),
    "split": (edited("run.json", other_split), "its labelled images (ffffffff) are not those of split soft_teacher"),
    "percent": (edited("run.json", other_percent), "run.json: records the digest "),
    "split of the summary": (edited("run.json", set_key("split", "fold", value=2)), "its split is another one than"),
    "data": (edited("run.json", set_key("data", value="0" * 64)), "trained on the data 00000000, and that of 'shapes'"),
    "other images": (
        edited("manifest.json", set_key("validation", value="0" * 64)),
        "evaluated on the validation records 00000000, and those of 'shapes'",
    ),
    "image that the truth lacks": (
        edited("predictions.json", set_key(0, "image_id", value=9999)),
        "predictions.json: prediction record 0: the ground truth has no image_id 9999",
    ),
    "score that is NaN": (edited("predictions.json", set_key(0, "score", value=NAN)), "its score is nan"),
    "predictions that are a mapping": (edited("predictions.json", lambda content: {"a": content}), "holds a dict"),
    "boxes alone": (
        edited(
            "predictions.json",
            lambda records: [
                {**{k: v for k, v in one.items() if k != "segmentation"}, "bbox": [0, 0, 9, 9]} for one in records
            ],
        ),
        "boxes alone",
    ),
    "deep nesting": (
        changed(lambda members: {**members, "predictions.json": b"[" * 100000}, sealed=True),
        "predictions.json: not valid JSON",
    ),
    "missing member": (
        changed(lambda members: {name: text for name, text in members.items() if name != "metrics.json"}),
        "lacks metrics.json",
    ),
    "extra member": (changed(lambda members: {**members, "x.pkl": b"cos\n"}), 'has a member "x.pkl"'),
    "path traversal": (changed(lambda members: {**members, "../../out.json": b""}), 'a member "../../out.json"'),
    "member that is there twice": (twice, "has run.json twice"),
    "link": (link, "predictions.json: is a link"),
    "another packing": (bzipped, "manifest.json: is encrypted, or packed in another way than deflate"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not a zip archive"),
    "no zip": (lambda path: path.write_bytes(b"\x80\x04K\x01."), "not a zip archive"),
    "empty file": (lambda path: path.write_bytes(b""), "not a zip archive"),
    "huge declared size": (huge, "predictions.json: has 3221225472 bytes, and 1073741824 are allowed"),
    "zip bomb": (
        changed(lambda members: {**members, "predictions.json": b" " * (64 << 20)}, sealed=True),
        "predictions.json: unpacks to 67108864 bytes from ",
    ),
    "changed byte": (
        lambda path: path.write_bytes(
            bytes(b ^ (i == path.stat().st_size // 2) for i, b in enumerate(path.read_bytes()))
        ),
        "a damaged archive (",
    ),
    "dataset": (
        edited("run.json", lambda record: set_key("run", "dataset", value="cells")(record)),
        "run.json: records the digest ",
    ),
    "same run under another name": (resigned, "the same predictions as "),
}


@pytest.fixture(scope="module")
def refused(bundles: Path, truth: Path) -> tuple[int, pd.DataFrame, str, dict[str, str]]:
    """Return what a leaderboard of five honest bundles makes of every forgery of one of them."""
    folder = bundles / "tampered"
    folder.mkdir()
    honest = sorted(path for path in (bundles / "in").iterdir() if "supervised" not in path.name)
    (victim,) = (bundles / "in").glob("*fold1*supervised*")
    for path in honest:
        (folder / "team").mkdir(exist_ok=True)
        shutil.copy(path, folder / "team" / f"a-{path.name}")
    for number, (forge, _) in enumerate(FORGERIES.values()):
        path = folder / f"z{number:02}.zip"
        shutil.copy(victim, path)
        forge(path)
    shutil.copy(victim, folder / "b-victim.zip")
    (folder / ".hidden").write_text("")
    code, rows, page = board(folder, bundles / "out", truth)
    truths = {"shapes": Truth.open("shapes", truth, {}, bundles / "truth")}
    entries = read_entries(folder, truths, bundles / "out" / "evaluated", lambda line: None)
    return code, rows, page, entries.refused


@pytest.mark.parametrize("name", FORGERIES)
def test_a_bundle_that_was_tampered_with_is_refused_in_one_sentence(
    name: str, refused: tuple[int, pd.DataFrame, str, dict[str, str]]
) -> None:
    reason = refused[3][f"z{list(FORGERIES).index(name):02}.zip"]
    assert FORGERIES[name][1] in reason and "\n" not in reason and "Error" not in reason and "/tmp" not in reason
    assert f"<b>z{list(FORGERIES).index(name):02}.zip</b>: " in refused[2], "the page names it"


def test_the_others_still_rank(refused: tuple[int, pd.DataFrame, str, dict[str, str]], bundles: Path) -> None:
    code, rows, page, reasons = refused
    assert code == 2 and len(reasons) == len(FORGERIES)
    assert list(rows["folds"]) == ["1 2 3", "1 2 3", "1"] and rows["method"][2] == "supervised"
    assert not (bundles.parent / "out.json").exists() and not (bundles / "out.json").exists()
    assert "†" in page and rows["common_folds"][1] == 1, "one fold alone: the test is over images"


def test_a_second_try_at_a_run_is_refused_and_evaluated_numbers_are_kept_for_a_version(
    bundles: Path, truth: Path, tmp_path: Path
) -> None:
    (first,) = (bundles / "in").glob("*fold1*pais*")
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(first, folder / "a.zip")
    shutil.copy(first, folder / "b.zip")
    members = unpack(folder / "b.zip")
    records, metrics = json.loads(members["predictions.json"])[::2], json.loads(members["metrics.json"])
    metrics |= evaluate(["coco"], Store.open(truth, "val").coco_dict(), records)
    written = {"predictions.json": records, "metrics.json": metrics}
    pack(folder / "b.zip", members | {name: json.dumps(content).encode() for name, content in written.items()})
    code, rows, page = board(folder, tmp_path / "out", truth)
    assert code == 2 and list(rows["files"]) == ["a.zip"]
    assert "<b>b.zip</b>: the same run as a.zip, with other predictions; submit a run once" in page

    digest = hashlib.sha256(members["predictions.json"]).hexdigest()
    kept = tmp_path / "out" / "evaluated" / f"{digest}.json"
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "AP": [0.125, *content["AP"][1:]]}))
    assert board(folder, tmp_path / "out", truth)[1]["AP"][0] == 12.5, "read, not computed"
    kept.write_text(json.dumps({**content, "AP": [0.125, *content["AP"][1:]], "version": "0.0"}))
    assert board(folder, tmp_path / "out", truth)[1]["AP"][0] == rows["AP"][0]


def test_a_coco_file_as_truth_does_not_check_the_labelled_images(
    bundles: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "val.json"
    path.write_text(json.dumps(Store.open(truth, "val").coco_dict()))
    code, rows, page = board(bundles / "in", tmp_path / "out", path)
    assert code == 0 and len(rows) == 3
    assert "Which images were labelled was not checked: the truth has no training set" in page
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": content["annotations"][1:]}))
    capsys.readouterr()
    code, rows, _ = board(bundles / "in", tmp_path / "other", path)
    assert code == 2 and rows.empty
    error = capsys.readouterr().err
    assert (
        main(["leaderboard", str(bundles / "in"), "--truth", f"cells={truth}", "--out", str(tmp_path / "cells")]) == 2
    )
    reason = "refused: is of the dataset 'shapes', whose truth was not given; add --truth shapes=PATH"
    assert capsys.readouterr().err.count(reason) == 9
    assert error.count("refused: evaluated on the validation records ") == 9 and "9 of 9 bundles were refused" in error


def entry(run: Run, ap: float, noise: float = 0.0, by: str = "", labels: str = "") -> Entry:
    """Return an entry of a run with this AP on the images, and around it on three samples of them."""
    samples = np.array([ap, ap - noise, ap, ap + noise])
    submission = Submission(run, None, labels or f"labels of fold {run.split.fold}", {})
    return Entry(
        f"{ap}.zip", Manifest(by=by, checkpoint="teacher-last", validation="", members={}), submission, ap, samples
    )


def runs_of(method: str, **changes: Any) -> list[Run]:
    """Return the runs of a method on three folds, with changes of the run."""
    study = Study(**{**tiny_study(split={"percents": [10], "folds": list(FOLDS)})})
    return [run.model_copy(update=changes) for run in study.runs() if run.method.label == method]


def test_a_section_has_one_network_with_its_options_one_percent_and_one_family() -> None:
    (run, *_) = runs_of("pais")
    others = [
        run.model_copy(update={"dataset": "cells"}),
        run.model_copy(update={"network": run.network.model_copy(update={"options": {"backbone": "r101"}})}),
        run.model_copy(update={"network": run.network.model_copy(update={"backend": "mmdet"})}),
        *(
            run.model_copy(update={"split": run.split.model_copy(update=change)})
            for change in ({"percent": 5.0}, {"family": "mmdet"}, {"label_noise": LabelNoise(missing=10)})
        ),
    ]
    sections = rank([entry(one, 0.5) for one in [run, *others]])
    assert len(sections) == 7 and all(len(section.rows) == 1 for section in sections)
    apart = rank([entry(run, 0.5), entry(run, 0.5, by="lab"), entry(runs_of("supervised")[1], 0.4)])
    assert [len(section.rows) for section in apart] == [3], "submitters are rows"
    second_head = run.network.model_copy(update={"options": {**run.network.options, "mask_head": "noise_tolerant"}})
    choice = run.method.model_copy(update={"name": "noisy_boundary", "label": "noisy_boundary", "options": {}})
    beside = run.model_copy(update={"network": second_head, "method": choice})
    assert [len(section.rows) for section in rank([entry(run, 0.5), entry(beside, 0.4)])] == [2], "a method's own head"
    for_all = run.model_copy(update={"network": second_head})
    assert [len(section.rows) for section in rank([entry(for_all, 0.5), entry(beside, 0.4)])] == [2], "one of all"
    longer = run.model_copy(update={"training": run.training.model_copy(update={"lr": 0.1})})
    (section,) = rank([entry(one, 0.5) for one in runs_of("pais")])
    assert [row.folds for row in section.rows] == [[1, 2, 3]], "folds are no rows"
    assert len(rank([entry(run, 0.5), entry(longer, 0.4)])[0].rows) == 2, "other options are another row"


def test_only_neighbours_that_a_test_tells_apart_have_ranks_of_their_own() -> None:
    entries = [
        entry(run, ap + 0.001 * run.split.fold, noise)
        for method, ap, noise in (("pais", 0.5, 0.0), ("mean_teacher", 0.4, 0.05), ("supervised", 0.399, 0.0))
        for run in runs_of(method)
    ]
    (section,) = rank(entries[::-1])
    assert [(row.run.method.label, row.first, row.last) for row in section.rows] == [
        ("pais", 1, 3),
        ("mean_teacher", 1, 3),
        ("supervised", 1, 3),
    ]
    pairs = zip(section.rows, section.rows[1:], strict=False)
    alone = [significance.two_level([*low.samples.values()], [*high.samples.values()]).p for high, low in pairs]
    assert [row.gain.p for row in section.rows[:2]] == pytest.approx(significance.holm(alone).tolist())
    assert alone[0] < 0.05 < section.rows[0].gain.p, "Holm's correction rules the ranks"
    (section,) = rank([one for one in entries if one.submission.run.method.label != "mean_teacher"])
    assert [(row.first, row.last) for row in section.rows] == [(1, 1), (2, 2)]
    assert section.rows[0].gain.value == pytest.approx(10.1) and section.rows[0].gain.p < 0.05
    runs = runs_of("pais")
    hard = runs[0].model_copy(update={"split": runs[0].split.model_copy(update={"fold": 4})})
    all_folds = [entry(run, ap) for run, ap in zip([*runs, hard], (0.5, 0.6, 0.551, 0.1), strict=True)]
    easy_folds = [entry(run, ap) for run, ap in zip(runs_of("supervised"), (0.45, 0.549, 0.5), strict=True)]
    (section,) = rank([*all_folds, *easy_folds])
    (first, second) = section.rows
    assert first.run.method.label == "supervised" and first.gain.value < 0 and first.gain.p < 0.05
    assert (first.first, first.last, second.first, second.last) == (1, 2, 1, 2), "easy folds alone win no rank"


def test_folds_whose_labelled_images_differ_are_not_compared() -> None:
    first, second = runs_of("pais"), runs_of("supervised")
    labels = ["labels of fold 1", "others", "others"]
    (section,) = rank(
        [entry(run, 0.5) for run in first]
        + [entry(run, 0.4, labels=text) for run, text in zip(second, labels, strict=True)]
    )
    assert section.rows[0].common == 1 and section.disagreeing == [2, 3]


def test_another_submitter_is_a_row_of_its_own_and_hostile_names_are_text(
    runs: dict[tuple[str, int], Path], truth: Path, bundles: Path, tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script>"
    for by, method in (("a", "pais"), (hostile, "supervised"), ("thief", "pais")):
        assert main(["submit", str(runs[method, 1]), "--out", str(tmp_path / "in"), "--by", by]) == 0
    code, rows, page = board(tmp_path / "in", bundles / "out", truth)
    assert code == 2 and "the same predictions as shapes-10pct" in page, "a copy under another name"
    assert list(rows["by"]) == ["a", hostile] and "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_another_checkpoint_and_other_options_are_told_apart(
    runs: dict[tuple[str, int], Path], truth: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pais", 1], run)
    metrics = {**json.loads((run / "metrics.json").read_text()), "model": "student", "checkpoint": "best"}
    for stem in ("predictions", "errors"):
        shutil.copy2(run / f"{stem}.json", run / f"{stem}-student-best.json")
    (run / "metrics-student-best.json").write_text(json.dumps(metrics))
    assert main(["submit", str(run), "--out", str(tmp_path / "in"), "--checkpoint", "student-best"]) == 0
    _, rows, page = board(tmp_path / "in", tmp_path / "out", truth)
    assert list(rows["checkpoint"]) == ["student-best"] and "<td>pais (student-best)</td>" in page

    (first, *_) = runs_of("pais")
    other = first.model_copy(update={"training": first.training.model_copy(update={"lr": 0.1})})
    sections, opened = rank([entry(first, 0.5), entry(other, 0.4)]), Truth.open("shapes", truth, {}, tmp_path)
    page = write_leaderboard(tmp_path / "out", sections, {}, {"shapes": opened})[0].read_text()
    digests = [row.entries[0].submission.configuration for row in sections[0].rows]
    assert digests[0] != digests[1] and all(f"<td>pais [{digest}]</td>" in page for digest in digests)


def test_splits_that_cannot_be_drawn_here_are_said_to_be_unchecked(truth: Path, tmp_path: Path) -> None:
    opened = Truth.open("shapes", truth, {"unbiased_teacher": tmp_path}, tmp_path)
    assert opened.undrawable("soft_teacher") == opened.undrawable("unbiased_teacher") == ""
    assert opened.undrawable("imported") == "splits of the family 'imported' are lists of the submitters"
    assert opened.undrawable("coco_fractions").endswith("reads a published file, which --source names")
    (run, *_) = runs_of("pais")
    imported = run.model_copy(update={"split": run.split.model_copy(update={"family": "imported"})})
    assert opened.split_sha256(imported.split) is None
    page = write_leaderboard(tmp_path, rank([entry(imported, 0.5)]), {}, {"shapes": opened})[0].read_text()
    assert "Which images were labelled was not checked: splits of the family" in page


def predict_again(run: Path) -> None:
    """Replace the predictions, and leave metrics.json as if it were newer."""
    (run / "predictions.json").write_text("[]")
    (run / "metrics.json").touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda run: (run / "run.json").unlink(), "run.json: missing; name a run, a folder below results/runs/"),
        (
            lambda run: ((run / "run.json").unlink(), (run / "log.jsonl").write_text("")),
            "run.json: missing; the training is not complete; run `pais-bench train` again",
        ),
        (lambda run: (run / "predictions.json").unlink(), "predictions.json: missing; run `pais-bench predict`"),
        (lambda run: (run / "metrics.json").unlink(), "metrics.json: missing; run `pais-bench evaluate`"),
        (lambda run: os.utime(run / "predictions.json", (1, 1)), "predictions.json: older than run.json; run"),
        (lambda run: os.utime(run / "metrics.json", (1, 1)), "metrics.json: older than predictions.json; run"),
        (
            predict_again,
            "metrics.json: of other predictions than these; run `pais-bench evaluate` again",
        ),
        (
            lambda run: (run / "errors.json").write_text("[]"),
            "metrics.json: of other predictions than these; run `pais-bench evaluate` again",
        ),
    ],
)
def test_a_run_that_is_not_complete_is_not_packed(
    spoil: Callable[[Path], object],
    message: str,
    runs: dict[tuple[str, int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["pais", 1], run)
    spoil(run)
    assert main(["submit", str(run), str(runs["pais", 2]), "--out", str(tmp_path / "in")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"error: 1 of 2 runs were not packed, the first: {run / message.split(':')[0]}" in error and message in error
    assert len(list((tmp_path / "in").iterdir())) == 1, "the other is packed"
    assert main(["submit", str(run), "--out", str(tmp_path / "in")]) == 2
    (alone,) = capsys.readouterr().err.splitlines()
    assert message in alone


def test_faults_of_the_organiser_are_named(
    bundles: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, known = str(bundles / "in"), f"shapes={truth}"
    (tmp_path / "empty").mkdir()
    for words, message in (
        ([str(tmp_path / "none"), "--truth", known], "none: no such folder"),
        ([str(tmp_path / "empty"), "--truth", known], "holds no bundle; put there what `pais-bench submit` writes"),
        ([folder, "--truth", str(truth)], "not a name and a path; give NAME=PATH"),
        ([folder, "--truth", known, "--truth", known], "'shapes' is given twice"),
        ([folder, "--truth", f"shapes={tmp_path}/absent"], "absent: neither a prepared dataset nor an annotation file"),
        ([folder, "--truth", f"shapes={tmp_path}"], "not a prepared dataset; name results/datasets/LABEL"),
        ([folder, "--truth", known, "--source", "stac=x"], "--source stac: no such family; choose one of"),
        ([folder, "--truth", known, "--out", folder], "lies among the bundles; name another folder"),
    ):
        out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
        assert main(["leaderboard", *words, *out]) == 2, words
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_trained_run_is_submitted_and_ranked(whole: Training, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(whole.results, results)
    words = [str(whole.path), "--results", str(results), "--percent", "10", "--fold", "1"]
    words += ["--network", "mask_rcnn", "--method", "supervised"]
    for command in ("predict", "evaluate"):
        assert main([command, *words]) == 0
    assert main(["submit", str(results / whole.folder.relative_to(whole.results)), "--out", str(tmp_path / "in")]) == 0
    code, rows, _ = board(tmp_path / "in", tmp_path / "out", results / "datasets" / "shapes")
    metrics = json.loads((results / whole.folder.relative_to(whole.results) / "metrics.json").read_text())
    assert code == 0 and rows["AP"].tolist() == pytest.approx([100 * metrics["segm"]["AP"]], abs=1e-4)
