"""Check the commands beside the workflow's six: their output, and one line that names each fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import write_study

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.cli.commands import import_split
from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.splits.family import ImagePool
from pais_bench.splits.split import check_split, read_split
from pais_bench.study.load import load_study
from pais_bench.study.split import SplitChoice


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results folder of the tiny study, prepared."""
    folder = tmp_path_factory.mktemp("commands")
    assert main(["prepare", str(write_study(folder)), "--results", str(folder / "results")]) == 0
    return folder / "results"


@pytest.fixture(scope="module")
def store(results: Path) -> Store:
    return Store.open(results / "datasets" / "shapes", "train")


def tiny(folder: Path, family: str, **options: Any) -> str:
    """Write the tiny study with a split family."""
    return str(write_study(folder, split={"family": family, "percents": [10, 20], "folds": [1], **options}))


@pytest.mark.parametrize("name", plugins.names("commands"))
def test_every_command_describes_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name.replace("_", "-"), "--help"])
    assert str(plugins.load("commands", name).__doc__).splitlines()[0] in " ".join(capsys.readouterr().out.split())


def test_overlap_prints_the_shared_images(
    results: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [tiny(tmp_path, "soft_teacher"), "--results", str(results), "--percents", "10", "50"]
    assert main(["overlap", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("[")]
    families = ("mmdet", "soft_teacher", "stratified")
    names = [f"[{n}] {f} {p} % fold 1" for n, (f, p) in enumerate(((f, p) for f in families for p in (10, 50)), 1)]
    assert [row[: len(name)] for row, name in zip(rows, names, strict=True)] == names
    assert all(row.endswith("(100.0)") for row in rows)
    assert rows[3].split("1  ")[-1].split()[-4:] == ["4", "(100.0)", "20", "(100.0)"], "nested"
    assert [line.split(":")[1] for line in lines if line.startswith("left out")] == [
        " ade20k_fractions",
        " coco_fractions",
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
def test_import_reads_every_kind_of_list(
    content: Any, name: str, results: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(content(store))
    arguments = [tiny(tmp_path, "imported"), str(tmp_path / name), "--percent", "10", "--fold", "1"]
    assert main(["import-split", *arguments, "--results", str(results)]) == 0
    assert f"4 of 40 images labelled (imported from {name})" in capsys.readouterr().out
    split = read_split(results / "splits" / "shapes" / "imported" / "10pct-fold1.json")
    assert split.ids == tuple(sorted(store.image_ids[3:7])) and split.effective_percent == 10 and split.source_sha256
    check_split(split, store, SplitChoice(family="imported", percent=10, fold=1))


FAULTY_LISTS = [
    (
        "list.txt",
        "1\n99999\nnowhere.png\n",
        "2 of 3 images are not in the dataset, the first: 99999, nowhere.png; list",
    ),
    ("list.txt", "1\n2\n1\n", "1 images are repeated, the first by id: 1; list each once"),
    ("list.txt", "\n", "names no image"),
    ("list.json", '{"annotations": []}', "not a list of images"),
    ("list.json", "[1.5]", "not a list of images"),
    ("list.json", "[true]", "not a list of images"),
    ("list.json", "{", "not a list of images"),
    ("list.txt", None, "cannot be read (No such file"),
]


@pytest.mark.parametrize(("name", "content", "message"), FAULTY_LISTS)
def test_a_faulty_list_is_named(
    name: str, content: str | None, message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    arguments = [tiny(tmp_path, "imported"), str(tmp_path / name), "--percent", "20", "--fold", "1"]
    assert main(["import-split", *arguments, "--results", str(results)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}: {message}" in line
    assert not (results / "splits" / "shapes" / "imported" / "20pct-fold1.json").exists()


def test_import_requires_its_family_and_a_split_of_the_study(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("1\n")
    for family, percent, message in (
        ("soft_teacher", "10", "'soft_teacher', whose splits are drawn; set it to imported"),
        ("imported", "7", "--percent 7.0: not in study 'tiny'; choose one of 10.0, 20.0"),
    ):
        arguments = [tiny(tmp_path, family), str(tmp_path / "list.txt"), "--percent", percent, "--fold", "1"]
        assert main(["import-split", *arguments, "--results", str(results)]) == 2
        assert message in capsys.readouterr().err
    arguments = [tiny(tmp_path, "imported"), "--results", str(results), "--percent", "20", "--fold", "1"]
    assert main(["split", *arguments]) == 2
    assert "run `pais-bench import-split STUDY FILE --percent 20 --fold 1`" in capsys.readouterr().err


def test_an_exported_split_is_imported_unchanged(results: Path, store: Store, tmp_path: Path) -> None:
    common = ["--percent", "20", "--fold", "1", "--results", str(results)]
    drawn = tiny(tmp_path, "soft_teacher")
    assert main(["split", drawn, *common]) == 0
    assert main(["export-split", drawn, *common, "--out", str(tmp_path / "pair")]) == 0
    gt = store.coco_dict()
    pair = [
        json.loads((tmp_path / "pair" / f"instances_train2017.1@20{end}.json").read_text())
        for end in ("", "-unlabeled")
    ]
    assert [list(subset) for subset in pair] == [["images", "annotations", "licenses", "categories", "info"]] * 2
    for key in ("images", "annotations"):
        assert sorted(n["id"] for subset in pair for n in subset[key]) == sorted(n["id"] for n in gt[key])
    labelled = {image["id"] for image in pair[0]["images"]}
    assert pair[0]["images"] == [image for image in gt["images"] if image["id"] in labelled]
    assert all(ann["image_id"] in labelled for ann in pair[0]["annotations"])
    assert pair[1]["annotations"], "Soft Teacher keeps them"
    assert not any(ann["image_id"] in labelled for ann in pair[1]["annotations"])
    exported = str(tmp_path / "pair" / "instances_train2017.1@20.json")
    assert main(["import-split", tiny(tmp_path, "imported"), exported, *common]) == 0
    folder = results / "splits" / "shapes"
    first, second = (read_split(folder / family / "20pct-fold1.json") for family in ("soft_teacher", "imported"))
    assert (first.ids, first.sha256, first.pool) == (second.ids, second.sha256, second.pool)


def test_a_split_with_label_noise_is_exported_with_it(results: Path, tmp_path: Path) -> None:
    arguments = [tiny(tmp_path, "soft_teacher", label_noise={"missing": 50}), "--percent", "20", "--fold", "1"]
    arguments += ["--results", str(results)]
    assert main(["split", *arguments]) == 0
    split = read_split(results / "splits" / "shapes" / "soft_teacher" / "20pct-fold1-missing50.json")
    assert main(["export-split", *arguments, "--out", str(tmp_path)]) == 0
    exported = json.loads((tmp_path / "instances_train2017.1@20.json").read_text())
    assert split.dropped and not {ann["id"] for ann in exported["annotations"]} & set(split.dropped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"family": "stac"},
            "split.family: families: there is no 'stac'; choose one of ade20k_fractions, coco_fractions, imported",
        ),
        ({"folds": ["one"]}, "'split.folds.0'"),
        ({"folds": [1.5]}, "'split.folds.0'"),
        ({"folds": [-1]}, "'split.folds.0'"),
        ({"label_noise": {"class_flip": 0}}, "'split.label_noise.class_flip'"),
        ({"label_noise": {"flop": 1}}, "unknown key 'split.label_noise.flop'"),
        ({"label_noise": {}}, "'split.label_noise': value error, give at least one of imbalance, missing"),
        ({"family": "unbiased_teacher"}, "split.source: missing; family 'unbiased_teacher' needs"),
        ({"family": "unbiased_teacher", "source": "x.txt"}, "x.txt: cannot be read"),
        ({"source": "x.txt"}, "split.source: family 'soft_teacher' reads no file; remove the key"),
    ],
)
def test_a_faulty_split_of_a_study_is_named(
    change: dict[str, Any], message: str, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_study(tmp_path, split={"percents": [10], "folds": [1], **change})
    assert main(["split", str(path), "--results", str(results), "--percent", "10", "--fold", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_source_is_relative_to_its_study(tmp_path: Path) -> None:
    path = write_study(tmp_path, split={"percents": [10], "source": "lists/a.txt"})
    study = load_study(path)
    assert study.split.source == tmp_path / "lists" / "a.txt"
    assert "lists" not in study.runs()[0].model_dump_json()


def test_lists_with_a_byte_order_mark_and_negative_ids_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("-5\r\n7\r\n-5.png\r\n".encode("utf-8-sig"))
    assert import_split._entries(path.read_bytes(), path) == [-5, 7, "-5.png"]
    path = tmp_path / "list.json"
    path.write_bytes(b"\xef\xbb\xbf[-5, 7]")
    assert import_split._entries(path.read_bytes(), path) == [-5, 7]


@pytest.mark.parametrize("entry", ["a.png ./a.png", "b.png,30, x/a.png", "30; x/b.png", "é x/a.png", "# x/a.png"])
def test_an_entry_that_may_name_several_images_is_refused(entry: str) -> None:
    """Only the last of them would be a file name, and the others would be lost."""
    pool = ImagePool((1, 2, 30), {1: "a.png", 2: "b.png", 30: "my photo.png"}.__getitem__, pytest.fail)
    assert import_split.resolve(["my photo.png", "x/a.png"], pool, Path("list.txt")) == [30, 1]
    with pytest.raises(BenchError, match=r"list\.txt: .* may name several images; list one a line"):
        import_split.resolve([entry], pool, Path("list.txt"))


def test_labelled_images_without_an_object_are_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [tiny(tmp_path, "soft_teacher", label_noise={"missing": 99.9}), "--percent", "10", "--fold", "1"]
    assert main(["split", *arguments, "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert "split soft_teacher 10 % fold 1: its 4 labelled images have no object to learn from" in message
    assert "lost to label noise); choose a larger percent or another fold" in message
    assert not (results / "splits/shapes/soft_teacher/10pct-fold1-missing99.9.json").exists()
