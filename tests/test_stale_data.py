"""Check that no number comes from data that the study does not name: other roots, edited files, other options."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from squares import OPTIONS, edit, write_squares
from tiny import study, write_study

from pais_bench.annotations.sources import Sources, identify, read_content
from pais_bench.cli.main import main
from pais_bench.cli.prepared import open_stores
from pais_bench.runs import trained_data
from pais_bench.study.load import load_study

RUN = ["--percent", "50", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised"]


def squares_study(root: Path, **dataset: Any) -> Path:
    """Write a study of a root of squares beside it."""
    folder = root.parent / f"study of {root.name}"
    folder.mkdir(exist_ok=True)
    training = {**study()["training"], "steps": 2, "evaluate_every": 2, "evaluate_images": 1}
    values = {"name": "coco", "root": str(root), "options": OPTIONS, **dataset}
    split = {"family": "stratified", "percents": [50], "folds": [1]}
    return write_study(folder, dataset=values, split=split, training=training, methods={"supervised": {}})


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Run a command that is refused, and return its message."""
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    (message,) = (line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    return message


def test_two_roots_cannot_share_a_label(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = ["--results", str(tmp_path / "r")]
    leaves, cells = (write_squares(tmp_path / name, offset=offset) for name, offset in (("leaves", 0), ("cells", 9)))
    assert main(["prepare", str(squares_study(leaves)), *results]) == 0
    manifest = (tmp_path / "r/datasets/coco/dataset.json").read_bytes()
    for command in (["prepare"], ["split", *RUN[:4]], ["plan"]):
        message = refused(capsys, command[0], squares_study(cells), *results, *command[1:])
        assert f"prepared from {leaves}" in message and "give this study a dataset.label of its own" in message
    assert (tmp_path / "r/datasets/coco/dataset.json").read_bytes() == manifest
    own = squares_study(cells, label="cells")
    assert main(["prepare", str(own), *results]) == 0
    shutil.rmtree(leaves)  # its owner has gone, and the label with it
    assert main(["prepare", str(squares_study(cells)), *results]) == 0


@pytest.mark.parametrize("copy", [shutil.copytree, shutil.move])
def test_a_root_that_moved_is_followed(tmp_path: Path, copy: Any) -> None:
    root, results = write_squares(tmp_path / "here"), tmp_path / "r"
    assert main(["prepare", str(squares_study(root)), "--results", str(results)]) == 0
    content = read_content(results / "datasets/coco")
    copy(root, tmp_path / "there")
    path = squares_study(tmp_path / "there")
    store = open_stores(load_study(path), results)["train"]
    assert store.path(3) == tmp_path / "there/train/3.png"
    again, arguments = store.__reduce__()
    assert again(*arguments).path(3) == store.path(3), "a loader process reads there too"
    assert main(["prepare", str(path), "--results", str(results)]) == 0
    assert read_content(results / "datasets/coco") == content


def test_edited_files_and_options_are_named_by_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, results = write_squares(tmp_path / "data"), ["--results", str(tmp_path / "r")]
    path = squares_study(root)
    split = ["split", str(path), *results, *RUN[:4]]
    assert main(["prepare", str(path), *results]) == 0 and main(split) == 0
    for change in (
        lambda: edit(root / "val.json", category_id=1, area=500),
        lambda: Image.new("RGB", (64, 64)).save(root / "train/1.png"),
        lambda: (root / "val/3.png").unlink(),
    ):
        before = shutil.copytree(root, tmp_path / "before")
        change()
        assert "were changed since it was prepared; run `pais-bench prepare` again" in refused(capsys, *split)
        shutil.rmtree(root)
        shutil.move(before, root)
        assert main(split) == 0, "the same content, with other times"
    other = squares_study(root, options={**OPTIONS, "val_annotations": "train.json", "val_images": "train"})
    assert "run `pais-bench prepare` again, or give dataset.label" in refused(capsys, split[0], other, *split[2:])


def test_a_run_on_other_data_is_said_to_be_so_and_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, results = write_squares(tmp_path / "data"), ["--results", str(tmp_path / "r")]
    path = str(squares_study(root))
    original = (root / "val.json").read_bytes()
    for words in (["prepare"], ["split", *RUN[:4]], ["train", *RUN], ["predict", *RUN], ["evaluate", *RUN]):
        assert main([words[0], path, *results, *words[1:]]) == 0
    (run,) = (tmp_path / "r/runs/coco").glob("*/*/supervised-*")
    weights = (run / "checkpoint.pt").read_bytes()
    assert json.loads((run / "run.json").read_text())["data"] == trained_data.trained_on(run)

    edit(root / "val.json", segmentation=[[5, 5, 40, 5, 40, 40]], bbox=[5, 5, 35, 35])
    assert main(["prepare", path, *results]) == 0 and main(["split", path, *results, *RUN[:4]]) == 0
    for command in ("predict", "evaluate"):
        assert "trained on other data than the prepared one" in refused(capsys, command, path, *results, *RUN)
    assert main(["plan", path, *results]) == 0 and "0 trained, 0 predicted" in capsys.readouterr().out
    assert main(["report", path, *results]) == 0
    assert "trained on other data than the prepared one" in (tmp_path / "r/reports/tiny/report.html").read_text()
    assert main(["train", path, *results, *RUN]) == 0
    assert "trained on other data before, training anew" in capsys.readouterr().err
    (aside,) = run.glob("data-*")
    assert (aside / "checkpoint.pt").read_bytes() == weights and (aside / "metrics.json").exists()
    assert not (run / "metrics.json").exists()

    (root / "val.json").write_bytes(original)
    assert main(["prepare", path, *results]) == 0 and main(["train", path, *results, *RUN]) == 0
    assert "the data is as it was before" in capsys.readouterr().err
    assert (run / "checkpoint.pt").read_bytes() == weights and (run / "metrics.json").exists()


@pytest.mark.parametrize("moved", range(3))
def test_a_run_that_was_ended_while_its_files_moved_has_them_all_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    replace = os.replace
    for content in ("first", "second"):
        trained_data.enter(tmp_path, content)
        for name in ("checkpoint.pt", "log.jsonl"):
            (tmp_path / name).write_text(content)
    moves: list[Path] = []

    def end(source: Path, target: Path) -> None:
        if Path(source).parent == trained_data.kept(tmp_path, "first"):
            if len(moves) == moved:
                raise KeyboardInterrupt
            moves.append(source)
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", end)
        with pytest.raises(KeyboardInterrupt):
            trained_data.enter(tmp_path, "first")
    said = trained_data.enter(tmp_path, "first")
    assert "the data is as it was before" in said and trained_data.trained_on(tmp_path) == "first"
    kept = trained_data.kept(tmp_path, "second")
    for name in ("checkpoint.pt", "log.jsonl"):
        assert ((tmp_path / name).read_text(), (kept / name).read_text()) == ("first", "second")
    assert trained_data.enter(tmp_path, "first") == ""


def test_hashes_are_taken_over_and_names_sizes_and_content_count(tmp_path: Path) -> None:
    root = write_squares(tmp_path / "data")
    sources = Sources(root, ("train.json", "val.json"), ("train", "val"))
    sha256, hashes = identify(sources, {})
    assert set(hashes) == {"train.json", "val.json"}
    wrong = {name: [*entry[:2], "0"] for name, entry in hashes.items()}
    assert identify(sources, wrong)[0] != sha256, "the known hash is taken where size and time are the same"
    os.utime(root / "val.json", ns=(1, 1))
    assert identify(sources, hashes)[0] == sha256
    (root / "train/.DS_Store").touch()
    assert identify(sources, {})[0] == sha256
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "train/linked").symlink_to(elsewhere)
    (root / "train/1.png").rename(elsewhere / "1.png")
    moved, _ = identify(sources, {})
    (elsewhere / "1.png").write_bytes((elsewhere / "1.png").read_bytes() + b"0")
    assert len({sha256, moved, identify(sources, {})[0]}) == 3
