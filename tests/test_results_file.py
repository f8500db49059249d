"""Check that results files of any codebase can be evaluated and compared, and that each fault is named in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pytest

from pais_bench.cli.main import main
from pais_bench.evaluation import significance
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.coco.pycocotools import NAMES
from pais_bench.evaluation.metrics.coco import evaluate

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
    expected = evaluate(*generated)["segm"]
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


def rle_of(text: str) -> dict[str, Any]:
    return {"size": [150, 150], "counts": text}


# test_metrics_coco.py has more faults of a record; every one of them goes through the same check.
FAULTS: list[tuple[Callable[[list[Record]], object], str]] = [
    (lambda records: {"annotations": records}, "holds a dict; a COCO results file is a list of records"),
    (lambda records: [*records, 3], "record {n} is a int; a result is a mapping"),
    (changed(image_id=4), "prediction record 2: the ground truth has no image_id 4"),
    (changed(image_id=[3]), "prediction record 2: the ground truth has no image_id [3]"),
    (changed(score="high"), "prediction record 2: its score is high"),
    (changed(score=float("inf")), "prediction record 2: its score is inf"),
    (changed(bbox=[1, 2, 3]), "prediction record 2: its bbox is [1, 2, 3]"),
    (changed(segmentation={"counts": "0"}), "prediction record 2: its mask is None"),
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
    assert f"pais-bench {command}: error: {path}: {message.format(n=len(generated[1]))}" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json", "all.json"], "absent.json: no such annotation file"),
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
