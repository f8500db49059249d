"""Do the verbs beside the workflow's six say what they do, and refuse in one line what they cannot do?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import write_study

from pais_bench import cli, plugins, splits
from pais_bench.split_choice import SplitChoice
from pais_bench.store import Store


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the results folder of the tiny study, prepared."""
    folder = tmp_path_factory.mktemp("verbs")
    assert cli.main(["prepare", str(write_study(folder)), "--results", str(folder / "results")]) == 0
    return folder / "results"


@pytest.fixture(scope="module")
def store(results: Path) -> Store:
    return Store.open(results / "datasets" / "shapes", "train")


def tiny(folder: Path, family: str, **more: Any) -> str:
    """Write the tiny study with a family."""
    return str(write_study(folder, split={"family": family, "percents": [10, 20], "folds": [1], **more}))


@pytest.mark.parametrize("name", plugins.names("verbs"))
def test_every_verb_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([name.replace("_", "-"), "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert str(plugins.load("verbs", name).__doc__).splitlines()[0].split(",")[0] in told
    assert "STUDY" in told or name == "doctor"


def test_overlap_prints_the_shared_images(
    results: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["overlap", tiny(tmp_path, "soft_teacher"), "--results", str(results), "--percents", "10", "50"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("[")]
    families = ("mmdet", "soft_teacher", "stratified")
    names = [f"[{n}] {f} {p} % fold 1" for n, (f, p) in enumerate(((f, p) for f in families for p in (10, 50)), 1)]
    assert [row[: len(name)] for row, name in zip(rows, names, strict=True)] == names
    assert all(row.endswith("(100.0)") for row in rows)
    assert rows[3].split("1  ")[-1].split()[-4:] == ["4", "(100.0)", "20", "(100.0)"], "nested"
    assert [line.split(":")[1] for line in lines if line.startswith("left out")] == [
        " s4m_cityscapes",
        " unbiased_teacher",
    ]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lambda store: "\n".join(str(n) for n in store.image_ids[3:7]) + "\n", "list.txt"),
        (lambda store: "\n\n".join(store.path(n).name for n in store.image_ids[3:7]), "names.txt"),
        (lambda store: "\n".join(f"train/{store.path(n).name}" for n in store.image_ids[3:7]), "paths.txt"),
        (lambda store: json.dumps(list(store.image_ids[3:7])), "list.json"),
        (lambda store: json.dumps({"images": [{"id": n} for n in store.image_ids[3:7]]}), "coco.json"),
    ],
)
def test_import_takes_every_kind_of_list(
    content: Any, name: str, results: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content(store))
    words = [tiny(tmp_path, "imported"), str(tmp_path / name), "--percent", "10", "--fold", "1"]
    assert cli.main(["import-split", *words, "--results", str(results)]) == 0
    assert f"4 of 40 images labelled (imported from {name})" in capsys.readouterr().out
    split = splits.read_split(results / "splits" / "shapes" / "imported" / "10pct-fold1.json")
    assert split.ids == tuple(sorted(store.image_ids[3:7])) and split.effective_percent == 10 and split.source_sha256
    splits.check_split(split, store, SplitChoice(family="imported", percent=10, fold=1))


REFUSED = [
    (
        "list.txt",
        "1\n99999\nnowhere.png\n",
        "2 of 3 images are not in the dataset, the first: 99999, nowhere.png; list",
    ),
    ("list.txt", "1\n2\n1\n", "1 images are there twice, the first by id: 1; list each once"),
    ("list.txt", "\n", "names no image"),
    ("list.json", '{"annotations": []}', "not a list of images"),
    ("list.json", "[1.5]", "not a list of images"),
    ("list.json", "[true]", "not a list of images"),
    ("list.json", "{", "not a list of images"),
    ("list.txt", None, "cannot be read (No such file"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_import_refuses_by_name(
    name: str, content: str | None, message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    words = [tiny(tmp_path, "imported"), str(tmp_path / name), "--percent", "20", "--fold", "1"]
    assert cli.main(["import-split", *words, "--results", str(results)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}: {message}" in line
    assert not (results / "splits" / "shapes" / "imported" / "20pct-fold1.json").exists()


def test_import_belongs_to_its_family_and_grid(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("1\n")
    for family, percent, message in (
        ("soft_teacher", "10", "'soft_teacher', whose splits are drawn; set it to imported"),
        ("imported", "7", "--percent 7 --fold 1: not in study 'tiny'; it has percents [10.0, 20.0] and folds [1]"),
    ):
        words = [tiny(tmp_path, family), str(tmp_path / "list.txt"), "--percent", percent, "--fold", "1"]
        assert cli.main(["import-split", *words, "--results", str(results)]) == 2
        assert message in capsys.readouterr().err
    words = [tiny(tmp_path, "imported"), "--results", str(results), "--percent", "20", "--fold", "1"]
    assert cli.main(["split", *words]) == 2
    assert "run `pais-bench import-split STUDY FILE --percent 20 --fold 1`" in capsys.readouterr().err


def test_what_was_exported_is_imported_as_it_was(results: Path, store: Store, tmp_path: Path) -> None:
    common = ["--percent", "20", "--fold", "1", "--results", str(results)]
    drawn = tiny(tmp_path, "soft_teacher")
    assert cli.main(["split", drawn, *common]) == 0
    assert cli.main(["export-split", drawn, *common, "--out", str(tmp_path / "pair")]) == 0
    whole = store.coco_dict()
    pair = [
        json.loads((tmp_path / "pair" / f"instances_train2017.1@20{end}.json").read_text())
        for end in ("", "-unlabeled")
    ]
    assert [list(part) for part in pair] == [["images", "annotations", "licenses", "categories", "info"]] * 2
    for key in ("images", "annotations"):
        assert sorted(n["id"] for part in pair for n in part[key]) == sorted(n["id"] for n in whole[key])
    chosen = {image["id"] for image in pair[0]["images"]}
    assert pair[0]["images"] == [image for image in whole["images"] if image["id"] in chosen]
    assert all((note["image_id"] in chosen) == (part is pair[0]) for part in pair for note in part["annotations"])
    assert pair[1]["annotations"], "Soft Teacher keeps them"
    listed = str(tmp_path / "pair" / "instances_train2017.1@20.json")
    assert cli.main(["import-split", tiny(tmp_path, "imported"), listed, *common]) == 0
    folder = results / "splits" / "shapes"
    first, second = (splits.read_split(folder / family / "20pct-fold1.json") for family in ("soft_teacher", "imported"))
    assert (first.ids, first.sha256, first.pool) == (second.ids, second.sha256, second.pool)


def test_a_spoilt_split_is_exported_spoilt(results: Path, tmp_path: Path) -> None:
    words = [tiny(tmp_path, "soft_teacher", corruption={"drop": 50}), "--percent", "20", "--fold", "1"]
    words += ["--results", str(results)]
    assert cli.main(["split", *words]) == 0
    split = splits.read_split(results / "splits" / "shapes" / "soft_teacher" / "20pct-fold1-drop50.json")
    assert cli.main(["export-split", *words, "--out", str(tmp_path)]) == 0
    left = {note["id"] for note in json.loads((tmp_path / "instances_train2017.1@20.json").read_text())["annotations"]}
    assert split.dropped and not left & set(split.dropped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"family": "stac"},
            "split.family: families: there is no 'stac'; choose one of imported, mmdet, s4m_cityscapes",
        ),
        ({"folds": ["one"]}, "'split.folds.0'"),
        ({"folds": [1.5]}, "'split.folds.0'"),
        ({"folds": [-1]}, "'split.folds.0'"),
        ({"corruption": {"flip": 0}}, "'split.corruption.flip'"),
        ({"corruption": {"flop": 1}}, "unknown key 'split.corruption.flop'"),
        ({"corruption": {}}, "'split.corruption': value error, give at least one of long_tail, drop"),
        ({"family": "unbiased_teacher"}, "split.source: missing; family 'unbiased_teacher' needs"),
        ({"family": "unbiased_teacher", "source": "x.txt"}, "x.txt: cannot be read"),
        ({"source": "x.txt"}, "split.source: family 'soft_teacher' reads no file; remove the key"),
    ],
)
def test_faulty_splits_of_a_study_are_named(
    change: dict[str, Any], message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, split={"percents": [10], "folds": [1], **change})
    assert cli.main(["split", str(path), "--results", str(results), "--percent", "10", "--fold", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_source_is_relative_to_its_study(tmp_path: Path) -> None:
    from pais_bench.study_file import load_study

    path = write_study(tmp_path, split={"percents": [10], "source": "lists/a.txt"})
    study = load_study(path)
    assert study.split.source == tmp_path / "lists" / "a.txt"
    assert "lists" not in study.runs()[0].model_dump_json()
