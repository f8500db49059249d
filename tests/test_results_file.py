"""Check that results files of any codebase can be evaluated and compared, and that each fault is named in one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pais_bench.cli.main import main
from pais_bench.evaluation import significance
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.coco.pycocotools import NAMES
from pais_bench.evaluation.metrics import coco

Record = dict[str, Any]


@pytest.fixture(scope="module")
def generated() -> tuple[Record, list[Record]]:
    """Return the content of a valid annotation file, and of a results file."""
    gt, records = coco_random.generate(11, images=40)
    gt["images"] = [{**image, "file_name": f"{image['id']}.png"} for image in gt["images"]]
    return gt, records


@pytest.fixture
def files(generated: tuple[Record, list[Record]], tmp_path: Path) -> list[str]:
    """Return the paths of the ground truth, of all results, and of every second result."""
    gt, records = generated
    contents = {"gt": gt, "all": records, "half": records[::2]}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / f"{name}.json") for name in contents]


def test_the_example_of_cocoapi_on_the_command_line(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "cocoapi_eval"
    files = [folder / "instances_val2014_100.json", folder / "instances_val2014_fakesegm100_results.json"]
    command = [sys.executable, "-m", "pais_bench", "evaluate-file", *files, "--out", tmp_path / "new" / "numbers.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "100 images, 839 annotations, 734 results\nCOCO mask AP (%)\n  AP 31.95  AP50 56.23  AP75 29.89" in done.stdout
    )
    numbers = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert numbers["segm"]["AP"] == pytest.approx(0.319545, abs=1e-6) and numbers["images"] == 100
    assert tuple(numbers["segm"]) == tuple(numbers["bbox"]) == NAMES and len(numbers["per_class"]) == 80


def test_every_protocol_is_printed_under_its_name(
    generated: tuple[Record, list[Record]], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate-file", *files[:2], "--metrics", "boundary", "coco"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1::2] == ["COCO mask AP (%)", "COCO box AP (%)", "COCO boundary AP (%)"]
    expected = coco.Metric().evaluate(*generated)["segm"]
    assert lines[2].split() == [word for name in NAMES for word in (name, f"{100 * expected[name]:.2f}")]  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_compare_prints_the_statistics(
    kind: str, generated: tuple[Record, list[Record]], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    gt, records = generated
    counts = significance.bootstrap_counts(40, 200, 3)
    whole, half = (100 * bootstrap_ap(match(gt, results, kind=kind), counts) for results in (records, records[::2]))
    expected = significance.difference([half], [whole])
    options = ["--samples", "200", "--seed", "3", "--kind", kind]
    assert main(["compare", files[0], files[2], files[1], *options]) == 0
    first, second, difference, detectable, summary = capsys.readouterr().out.splitlines()
    assert f"{half[0]:.2f} %" in first and first.endswith("half.json") and f"{whole[0]:.2f} %" in second
    assert f"{expected.value:+.2f} points, 95 % interval [{expected.low:+.2f}, {expected.high:+.2f}]" in difference
    assert difference.endswith(f"p = {expected.p:.3f}")
    spread = (whole - half)[1:].std(ddof=1)
    assert f"detectable {2.8016 * spread:.2f} points" in detectable
    assert "40 images, 200 samples, seed 3" in summary


def test_a_file_does_not_differ_from_itself_and_needs_100_samples(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", files[0], files[1], files[1], "--samples", "100"]) == 0
    assert "difference +0.00 points, 95 % interval [+0.00, +0.00], p = 1.000" in capsys.readouterr().out
    assert main(["compare", *files, "--samples", "20"]) == 2
    assert "at least 100 samples" in capsys.readouterr().err


def changed(**changes: Any) -> Callable[[list[Record]], object]:
    """Return a function that changes the third record."""
    return lambda records: [*records[:2], {**records[2], **changes}, *records[3:]]


def every(key: str, change: Callable[[Any], object]) -> Callable[[list[Record]], object]:
    """Return a function that changes a key of all records."""
    return lambda records: [{**record, key: change(record[key])} for record in records]


def corners(records: list[Record]) -> list[Record]:
    """Write the boxes as two corners."""
    return [{**r, "bbox": [*r["bbox"][:2], r["bbox"][0] + r["bbox"][2], r["bbox"][1] + r["bbox"][3]]} for r in records]


def rle_of(text: str) -> dict[str, Any]:
    return {"size": [150, 150], "counts": text}


# test_metrics_coco.py has more faults of a record; every one of them goes through the same check.
FAULTS: list[tuple[Callable[[list[Record]], object], str]] = [
    (lambda records: {"annotations": records}, "holds a dict; {list}: write the list 'annotations' alone"),
    (lambda records: {"info": {}, "images": [], "annotations": records}, "holds a dict; {list}: write the list 'annot"),
    (
        lambda records: {"3": records, "17": records},
        "holds a dict; {list}: join the lists of all images",
    ),
    (lambda records: 3, "holds a int; {list}"),
    (lambda records: [*records, 3], "record {n} is a int; a result is a mapping"),
    (
        changed(image_id=4),
        "{r2}the ground truth has no image_id 4, nor those of 1 of {n} records; predict on",
    ),
    (changed(image_id=[3]), "{r2}the ground truth has no image_id [3]"),
    (changed(image_id=True), "{r2}the ground truth has no image_id True"),
    (changed(image_id="10.png"), "{r2}the ground truth has no image_id '10.png', which is the name of image 10; write"),
    (changed(image_id="10"), "{r2}the ground truth has no image_id '10', which is the name of image 10; write the ids"),
    (changed(image_id="a"), "{r2}the ground truth has no image_id 'a'; write the ids of the images as numbers"),
    (every("image_id", lambda number: (number - 3) // 7), "{r0}* as the records count the images; write the ids"),
    (every("image_id", lambda number: number + 10**6), "{r0}* nor any other of the records; give the annotation file"),
    (
        every("category_id", lambda number: number // 2),
        "{r0}* the records count the classes from 0; write 1 for 0,",
    ),
    (
        every("category_id", lambda number: number // 2 + 1),
        "* the records count the classes without gaps; write",
    ),
    (
        changed(category_id=9),
        "{r2}the ground truth has no category_id 9 (image_id {i2}); write one of its ids",
    ),
    (changed(category_id="class 1"), "{r2}* no category_id 'class 1' (image_id {i2}); write 3, the id of this class"),
    (changed(score="0.9"), "{r2}its score is 0.9 (image_id {i2}); give a number, without quotes"),
    (changed(score=float("inf")), "{r2}its score is inf (image_id {i2}); the network has diverged"),
    (changed(score=float("nan")), "{r2}its score is nan (image_id {i2}); the network has diverged"),
    (changed(bbox=[1, 2, 3]), "{r2}its bbox is [1, 2, 3] (image_id {i2}); give x, y, width, height in pixels"),
    (changed(bbox=[1, 2, 3, -4]), "{r2}its bbox is [1, 2, 3, -4] (image_id {i2}); give x, y, width, height, none"),
    (corners, "* leaves its image, as do * give x, y, width, height instead of two corners"),
    (changed(segmentation=None), "{r2}it has no segmentation, which others have; give every record one, or none"),
    (changed(segmentation="mask.png"), "{r2}its segmentation is 'mask.png' (image_id {i2}); give an RLE"),
    (changed(segmentation=[]), "{r2}its segmentation is empty; leave the record out"),
    (changed(segmentation=[[1, 2, 3, 4]]), "{r2}it has a polygon with fewer than 3 points"),
    (changed(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), "{r2}it has a polygon far outside of its image"),
    (
        changed(segmentation={"counts": "0"}),
        "{r2}its mask is None [height, width], image_id {i2} is [150, 150]; res",
    ),
    (changed(segmentation={"size": [150, 150], "counts": "b'abc'"}), "* are Python's print of bytes; write counts.dec"),
    (changed(segmentation={"size": [150, 150], "counts": [7]}), "{r2}RLE counts [7] do not sum to height x width"),
    (changed(segmentation=rle_of("")), "prediction record 2: RLE counts '' do not sum to height x width; encode the"),
    (changed(segmentation=rle_of("PPP1")), "prediction record 2: RLE counts 'PPP1' do not sum"),
    (changed(segmentation=rle_of("oooooooooo")), "prediction record 2: RLE counts 'oooooooooo' do not sum"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
@pytest.mark.parametrize("command", ["evaluate-file", "compare"])
def test_a_faulty_results_file_is_named(
    command: str,
    change: Callable[[list[Record]], object],
    message: str,
    generated: tuple[Record, list[Record]],
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(change(generated[1])))
    arguments = [files[0], str(path)] if command == "evaluate-file" else [files[0], files[1], str(path)]
    assert main([command, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    values = {
        "n": len(generated[1]),
        "i2": generated[1][2]["image_id"],
        "list": "a COCO results file is a list of records",
    }
    values |= {f"r{index}": f"prediction record {index}: " for index in (0, 2)}
    parts = [f"pais-bench {command}: error: {path}: ", *message.format(**values).split("*")]
    assert re.search(".*".join(map(re.escape, parts)), line), line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty; a COCO results file without detections is []"),
        ('{"image_id": 3}\n{"image_id": 3}\n', "holds a record per line; write them as one list"),
        ("[{},]", "not valid JSON"),
        ('[{"score": 0.1, "score": 0.9}]', "a mapping has the key 'score' twice"),
        ("version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
    ],
)
def test_a_text_that_is_no_list_is_named(
    content: str, message: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.json").write_text(content)
    assert main(["evaluate-file", files[0], str(tmp_path / "text.json")]) == 2
    assert f"text.json: {message}" in capsys.readouterr().err


def uncompressed(mask: Record) -> Record:
    """Return the counts of an RLE as a list."""
    pixels = np.concatenate([[0], rle.decode(mask).ravel(order="F"), [2]])
    ends = np.flatnonzero(np.diff(pixels))
    return {"size": mask["size"], "counts": np.diff(np.concatenate([[0], ends])).tolist()}


def as_polygon(box: list[int]) -> list[list[int]]:
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


FORMS: dict[str, Callable[[Record], Record]] = {
    "uncompressed RLE": lambda record: {**record, "segmentation": uncompressed(record["segmentation"])},
    "polygons": lambda record: {**record, "segmentation": as_polygon(record["bbox"])},
    "ids that are floats": lambda record: {
        **record,
        "image_id": float(record["image_id"]),
        "category_id": float(record["category_id"]),
    },
    "scores of any range": lambda record: {**record, "score": 100 * record["score"] - 30},
    "no boxes": lambda record: {key: value for key, value in record.items() if key != "bbox"},
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_results_have_the_numbers_of_compressed_masks(
    form: str,
    generated: tuple[Record, list[Record]],
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "form.json").write_text(json.dumps([FORMS[form](record) for record in generated[1]]))
    for name, out in ((files[1], "expected"), (str(tmp_path / "form.json"), "actual")):
        words = [files[0], name, "--metrics", "coco", "boundary", "--out", str(tmp_path / f"{out}.out")]
        assert main(["evaluate-file", *words]) == 0
    expected, actual = (json.loads((tmp_path / f"{out}.out").read_text()) for out in ("expected", "actual"))
    assert actual == expected
    assert main(["compare", files[0], files[1], str(tmp_path / "form.json")]) == 0
    assert "difference +0.00 points, 95 % interval [+0.00, +0.00]" in capsys.readouterr().out


def test_boxes_alone_have_the_box_ap_of_pycocotools(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shared_data / "cocoapi_eval"
    files = [str(folder / f"instances_val2014_{name}.json") for name in ("100", "fakebbox100_results")]
    assert main(["evaluate-file", *files, "--out", str(tmp_path / "numbers.json")]) == 0
    out = capsys.readouterr().out
    assert "734 results of boxes alone: mask AP is not measured" in out and "COCO mask AP" not in out
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(files[0])
        evaluation = COCOeval(gt, gt.loadRes(files[1]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert set(numbers) == {"images", "bbox"}
    assert list(numbers["bbox"].values()) == pytest.approx(evaluation.stats.tolist(), abs=1e-12)


def test_what_needs_masks_refuses_boxes_alone(
    generated: tuple[Record, list[Record]], files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxes = [{key: value for key, value in record.items() if key != "segmentation"} for record in generated[1]]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(boxes))
    assert main(["compare", files[0], files[1], str(path), "--kind", "bbox"]) == 0
    assert "difference +0.00 points" in capsys.readouterr().out
    for words in (["compare", *files[:2], str(path)], ["evaluate-file", files[0], str(path), "--metrics", "boundary"]):
        assert main(words) == 2
        assert f"{path}: " in (err := capsys.readouterr().err) and "boxes alone" in err
    path.write_text(json.dumps([{**box, "bbox": None} for box in boxes]))
    assert main(["evaluate-file", files[0], str(path)]) == 2
    assert "record 0: it has neither segmentation nor bbox; give it one" in capsys.readouterr().err


def test_without_an_object_every_number_is_a_dash(
    generated: tuple[Record, list[Record]], files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gt.json").write_text(json.dumps({**generated[0], "annotations": []}))
    assert main(["evaluate-file", *files[:2]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2::2]] == [[word for name in NAMES for word in (name, "–")]] * 2
    assert main(["compare", *files]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"mask AP      – %  {files[1]}",
        f"mask AP      – %  {files[2]}",
        "difference –: AP is undefined, as these images have no object to find",
    ]


def test_an_output_keeps_links_and_devices(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "latest.json"
    link.symlink_to("real.json")
    assert main(["evaluate-file", *files[:2], "--out", str(link)]) == 0
    assert link.is_symlink() and json.loads((tmp_path / "real.json").read_text())["segm"]
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: texts.append(pipe.read_text()))
    texts: list[str] = []
    reader.start()
    assert main(["evaluate-file", *files[:2], "--out", str(pipe)]) == 0
    reader.join(20)
    assert texts == [(tmp_path / "real.json").read_text()] and pipe.is_fifo()
    (tmp_path / "folder").mkdir()
    assert main(["evaluate-file", *files[:2], "--out", str(tmp_path / "folder")]) == 2
    assert "folder: is a directory; name another path" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.partial"))


def test_one_image_has_no_interval(
    generated: tuple[Record, list[Record]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gt, records = generated
    image = Counter(one["image_id"] for one in gt["annotations"]).most_common(1)[0][0]
    own = [one for one in records if one["image_id"] == image]
    objects = [one for one in gt["annotations"] if one["image_id"] == image]
    images = [one for one in gt["images"] if one["id"] == image]
    contents = {"gt": {**gt, "images": images, "annotations": objects}, "all": own, "half": own[::2]}
    paths = [tmp_path / f"{name}.json" for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_text(json.dumps(content))
    assert main(["compare", *map(str, paths)]) == 0
    assert capsys.readouterr().out.endswith("points, without an interval: one image says nothing of others\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json", "all.json"], "absent.json: no such annotation file; name one in COCO format"),
        (["broken.json", "all.json"], "broken.json: not valid JSON"),
        (["half.json", "all.json"], "half.json: holds a list; an instances file"),
        (["wrong.json", "all.json"], "wrong.json: annotation 1 has bbox [1]"),
        (["gt.json", "absent.json"], "absent.json: cannot be read (No such file"),
        (["gt.json", "broken.json"], "broken.json: not valid JSON"),
        (["gt.json", "all.json", "--metrics", "coc"], "there is no 'coc'; choose one of boundary"),
        (["gt.json", "all.json", "--metrics", "cityscapes"], "'class 0' is not a Cityscapes class"),
    ],
)
def test_faulty_arguments_are_named(
    arguments: list[str],
    message: str,
    generated: tuple[Record, list[Record]],
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("[{")
    gt = generated[0]
    wrong = {**gt["annotations"][0], "bbox": [1]}
    Path("wrong.json").write_text(json.dumps({**gt, "annotations": [wrong, *gt["annotations"][1:]]}))
    assert main(["evaluate-file", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_detectable_on_images_has_its_power() -> None:
    effect, rng = significance.detectable_on_images(0.7), np.random.default_rng(0)
    significant = np.abs(rng.normal(effect, 0.7, size=100_000)) > 1.959964 * 0.7
    assert significant.mean() == pytest.approx(0.8, abs=0.005)
