"""Can a person measure and compare results files of any codebase, and is each fault of such a file told in one line?"""

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

from pais_bench import cli, statistics
from pais_bench.metrics.coco import NAMES, bootstrap_ap, evaluate, match

Record = dict[str, Any]


@pytest.fixture(scope="module")
def drawn() -> tuple[Record, list[Record]]:
    """Give a truth that is a sound annotation file, and results."""
    truth, records = coco_random.draw(11, images=40)
    truth["images"] = [{**image, "file_name": f"{image['id']}.png"} for image in truth["images"]]
    return truth, records


@pytest.fixture
def files(drawn: tuple[Record, list[Record]], tmp_path: Path) -> list[str]:
    """Give the paths of the truth, of all results, and of every second one."""
    truth, records = drawn
    contents = {"truth": truth, "all": records, "half": records[::2]}
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return [str(tmp_path / f"{name}.json") for name in contents]


def test_the_example_of_cocoapi_on_the_command_line(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "cocoapi_eval"
    words = [folder / "instances_val2014_100.json", folder / "instances_val2014_fakesegm100_results.json"]
    command = [sys.executable, "-m", "pais_bench", "evaluate-file", *words, "--out", tmp_path / "new" / "numbers.json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        "100 images, 839 annotations, 734 results\nCOCO mask AP (%)\n  AP 31.95  AP50 56.23  AP75 29.89" in done.stdout
    )
    found = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert found["segm"]["AP"] == pytest.approx(0.319545, abs=1e-6) and found["images"] == 100
    assert tuple(found["segm"]) == tuple(found["bbox"]) == NAMES and len(found["per_class"]) == 80


def test_every_protocol_is_printed_under_its_name(
    drawn: tuple[Record, list[Record]], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate-file", *files[:2], "--metrics", "boundary", "coco"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1::2] == ["COCO mask AP (%)", "COCO box AP (%)", "COCO boundary AP (%)"]
    expected = evaluate(*drawn)["segm"]
    assert lines[2].split() == [word for name in NAMES for word in (name, f"{100 * expected[name]:.2f}")]  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_compare_prints_what_the_statistics_say(
    kind: str, drawn: tuple[Record, list[Record]], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    truth, records = drawn
    counts = statistics.draw(40, 200, 3)
    whole, half = (100 * bootstrap_ap(match(truth, one, kind=kind), counts) for one in (records, records[::2]))
    found = statistics.difference([half], [whole])
    words = ["--draws", "200", "--seed", "3", "--kind", kind]
    assert cli.main(["compare", files[0], files[2], files[1], *words]) == 0
    first, second, difference, detectable, told = capsys.readouterr().out.splitlines()
    assert f"{half[0]:.2f} %" in first and first.endswith("half.json") and f"{whole[0]:.2f} %" in second
    assert f"{found.value:+.2f} points, 95 % interval [{found.low:+.2f}, {found.high:+.2f}]" in difference
    assert difference.endswith(f"p = {found.p:.3f}")
    spread = (whole - half)[1:].std(ddof=1)
    assert f"detectable {2.8016 * spread:.2f} points" in detectable
    assert "40 images, 200 draws, seed 3" in told


def test_a_file_does_not_differ_from_itself(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", files[0], files[1], files[1], "--draws", "100"]) == 0
    assert "difference +0.00 points, 95 % interval [+0.00, +0.00], p = 1.000" in capsys.readouterr().out


def changed(**changes: Any) -> Callable[[list[Record]], object]:
    """Give a change of the third record."""
    return lambda records: [*records[:2], {**records[2], **changes}, *records[3:]]


def counts(text: str) -> dict[str, Any]:
    return {"size": [150, 150], "counts": text}


FAULTS: list[tuple[Callable[[list[Record]], object], str]] = [
    (lambda records: {"annotations": records}, "holds a dict; a COCO results file is a list of records"),
    (lambda records: [*records, 3], "record {n} is a int; a result is a mapping"),
    (changed(image_id=4), "prediction record 2: the truth has no image_id 4"),
    (changed(image_id=[3]), "prediction record 2: the truth has no image_id [3]"),
    (changed(category_id=2), "prediction record 2: the truth has no category_id 2"),
    (changed(score="high"), "prediction record 2: its score is high"),
    (changed(score=float("inf")), "prediction record 2: its score is inf"),
    (changed(bbox=[1, 2, 3]), "prediction record 2: its bbox is [1, 2, 3]"),
    (changed(segmentation=[[1, 1, 5, 1, 5, 5]]), "prediction record 2: its segmentation is not a compressed RLE"),
    (changed(segmentation={"counts": "0"}), "prediction record 2: its mask is None"),
    (changed(segmentation=counts("")), "prediction record 2: its counts '' are not those of its size; encode it again"),
    (changed(segmentation=counts("PPP1")), "prediction record 2: its counts 'PPP1' are not those of its size"),
    (changed(segmentation=counts("oooooooooo")), "prediction record 2: its counts 'oooooooooo' are not those"),
    (
        lambda records: [{k: v for k, v in records[0].items() if k != "score"}],
        "prediction record 0: missing key 'score'",
    ),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
@pytest.mark.parametrize("verb", ["evaluate-file", "compare"])
def test_a_faulty_results_file_is_told(
    verb: str,
    change: Callable[[list[Record]], object],
    message: str,
    drawn: tuple[Record, list[Record]],
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "faulty.json"
    path.write_text(json.dumps(change(drawn[1])))
    words = [files[0], str(path)] if verb == "evaluate-file" else [files[0], files[1], str(path)]
    assert cli.main([verb, *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"pais-bench {verb}: error: {path}: {message.format(n=len(drawn[1]))}" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.json", "all.json"], "absent.json: no such annotation file"),
        (["torn.json", "all.json"], "torn.json: not valid JSON"),
        (["half.json", "all.json"], "half.json: holds a list; an instances file"),
        (["bad.json", "all.json"], "bad.json: annotation 1 has bbox [1]"),
        (["truth.json", "absent.json"], "absent.json: cannot be read (No such file"),
        (["truth.json", "torn.json"], "torn.json: not valid JSON"),
        (["truth.json", "all.json", "--metrics", "coc"], "there is no 'coc'; choose one of boundary"),
        (["truth.json", "all.json", "--metrics", "pseudo_labels"], "'pseudo_labels' measures no predictions"),
        (["truth.json", "all.json", "--metrics", "cityscapes"], "'class 0' is not a Cityscapes class"),
    ],
)
def test_faulty_arguments_are_told(
    words: list[str],
    message: str,
    drawn: tuple[Record, list[Record]],
    files: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("torn.json").write_text("[{")
    truth = drawn[0]
    first = {**truth["annotations"][0], "bbox": [1]}
    Path("bad.json").write_text(json.dumps({**truth, "annotations": [first, *truth["annotations"][1:]]}))
    assert cli.main(["evaluate-file", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_interval_of_few_draws_is_refused(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", *files, "--draws", "20"]) == 2
    assert "at least 100 draws" in capsys.readouterr().err


def test_detectable_on_images_is_found_with_its_power() -> None:
    effect, rng = statistics.detectable_on_images(0.7), np.random.default_rng(0)
    found = np.abs(rng.normal(effect, 0.7, size=100_000)) > 1.959964 * 0.7
    assert found.mean() == pytest.approx(0.8, abs=0.005)
