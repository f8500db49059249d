"""Check that `init` finds the usual layouts, and that the study which it writes fits the data, plans and trains."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.init.device import find_device
from pais_bench.splits.draw import draw
from pais_bench.splits.family import ImagePool
from pais_bench.study.load import load_study
from pais_bench.study.study import Study

H100 = "echo 'NVIDIA H100 80GB HBM3, 535.104.05, 9.0, 81559, 81000, 0'"
"""What nvidia-smi prints of it, in the order of machine/gpu.py."""


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have no pretrained weights, and no driver of a GPU."""
    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    install_driver(tmp_path, monkeypatch, "exit 9")


def install_driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program nvidia-smi before all others."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_the_first_gpu_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device().gpu is None
    install_driver(tmp_path, monkeypatch, f"{H100}; echo 'other, 1, 5.0, 1, 1, 0'")
    device = find_device()
    assert device[1:] == ("NVIDIA H100 80GB HBM3", 81559 / 1024, (9, 0))
    assert str(device) == "NVIDIA H100 80GB HBM3, 80 GB"
    install_driver(tmp_path, monkeypatch, "echo 'a card without figures, 535.104.05, [N/A], [N/A], [N/A], [N/A]'")
    assert find_device().gpu is None


def coco(names: list[str], classes: int = 2, first: int = 1) -> dict[str, Any]:
    """Return the content of a COCO file of 64 x 48 images with a square of class 1 + k mod classes."""
    images = [{"id": first + k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(names)]
    square = [10, 8, 34, 8, 34, 32, 10, 32]
    annotations = [
        {"id": i + 1, "image_id": one["id"], "category_id": 1 + i % classes, "segmentation": [square], "iscrowd": 0,
         "area": 576, "bbox": [10, 8, 24, 24]}
        for i, one in enumerate(images)
    ]  # fmt: skip
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1 + k, "name": f"c{k}"} for k in range(classes)],
    }


def photo(path: Path, seed: int) -> None:
    """Draw a photo with a square."""
    pixels = np.random.default_rng(seed).integers(0, 120, (48, 64, 3), dtype=np.uint8)
    pixels[8:32, 10:34] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def lay_out(root: Path, files: dict[str, tuple[str, int]], classes: int = 2) -> Path:
    """Write annotation files, each with a number of images in a folder; return the root."""
    seed = 0
    for file, (folder, count) in files.items():
        names = [f"{seed + k:03}.png" for k in range(count)]
        for name in names:
            photo(root / folder / name, seed)
            seed += 1
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(json.dumps(coco(names, classes)))
    return root


def init(root: Path, output: Path, *options: str) -> Study:
    """Run the command and return the study, which loads."""
    assert main(["init", str(root), "--output", str(output), *options]) == 0
    return load_study(output)


LAYOUTS = {
    "Roboflow": {"train/_annotations.coco.json": ("train", 12), "valid/_annotations.coco.json": ("valid", 4)},
    "COCO": {
        "annotations/instances_train2017.json": ("train2017", 12),
        "annotations/instances_val2017.json": ("val2017", 4),
    },
    "COCO, images in one folder": {
        "annotations/instances_train2017.json": ("images/train2017", 12),
        "annotations/instances_val2017.json": ("images/val2017", 4),
    },
    "without a validation set": {
        "train/_annotations.coco.json": ("train", 12),
        "test/_annotations.coco.json": ("test", 4),
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_two_files(layout: str, tmp_path: Path) -> None:
    root = lay_out(tmp_path / "my photos", LAYOUTS[layout])
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "captions_train2017.json").write_text("{}")
    study = init(root, tmp_path / "study.yaml")
    (train, (folder, _)), (val, (val_folder, _)) = LAYOUTS[layout].items()
    options = study.dataset.options
    assert study.name == study.dataset.label == "my_photos" and study.dataset.root == root
    assert (options["train_annotations"], options["train_images"]) == (train, folder)
    assert (options["val_annotations"], options["val_images"]) == (val, val_folder)


SAME_NAMES = {
    "annotations/train.json, annotations/val.json": ("images", "images", "val_predictions"),
    "train.json, val.json": ("images", "images", "train_overlays"),
    "annotations/train2.json, annotations/val2.json": ("photos/train", "photos/val", "masks/train"),
    "annotations/coco.json": ("photos", "annotations"),
    "train_all.json, val_all.json": ("images", "val", "val_old/photos/val"),
    "labels.json": ("rgb", "depth"),
    "a_train.json, a_val.json": ("train", "val", "val_copy"),
    "full.json": ("full", "images"),
    "train/labels.json, val/labels.json": ("train/rgb", "val/rgb", "train/depth"),
}
"""The folder of the photos of each annotation file, and one of other pictures, which have the same names."""


@pytest.mark.parametrize("case", SAME_NAMES)
def test_photos_are_told_from_pictures_of_the_same_names(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *photos, other = SAME_NAMES[case]
    root = lay_out(tmp_path / "root", dict(zip(case.split(", "), zip(photos, (12, 8), strict=False), strict=True)))
    for path in [path for folder in set(photos) for path in (root / folder).glob("*.png")]:
        (root / other).mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(path))
        picture = Image.fromarray(pixels if other == "val_copy" else 255 - pixels)
        (picture.reduce(2) if case == "full.json" else picture).save(root / other / path.name)
    if case == "labels.json":
        content = json.loads((root / case).read_text())
        for image in content["images"]:
            image["file_name"] = f"C:\\old\\rgb\\{image['file_name']}"
        (root / case).write_text(json.dumps(content))
    if other == "train/depth":
        said = complain(capsys, str(root), "--output", str(tmp_path / "study.yaml"))
        assert f"may be those of {root}/train/depth or {root}/train/rgb, which have the same names; move the" in said
        return
    study = init(root, tmp_path / "study.yaml")
    assert main(["prepare", str(tmp_path / "study.yaml"), "--results", str(tmp_path)]) == 0
    for subset in ("train", "val"):
        store = Store.open(tmp_path / "datasets" / study.dataset.label, subset)
        assert {store.path(number).parent.relative_to(root).as_posix() for number in store.image_ids} <= set(photos)


def test_photos_outside_of_the_folder_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = lay_out(tmp_path / "root", {"labels.json": ("images", 16)})
    shutil.copytree(root / "images", tmp_path / "old")
    content = json.loads((root / "labels.json").read_text())
    for image in content["images"]:
        image["file_name"] = str(tmp_path / "old" / image["file_name"])
    (root / "labels.json").write_text(json.dumps(content))
    init(root, tmp_path / "study.yaml")
    assert f"16 photos are outside of {root}, the first: {tmp_path}/old/0" in capsys.readouterr().out
    photo(tmp_path / "old" / "000.png", 99)
    said = complain(capsys, str(root), "--output", str(tmp_path / "study.yaml"), "--force")
    assert f"names {tmp_path}/old/000.png, outside of {root}, where images/000.png is another photo" in said


def test_a_test_set_without_labels_is_no_validation_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = lay_out(tmp_path / "coco", LAYOUTS["without a validation set"])
    path = root / "test" / "_annotations.coco.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": []}))
    for number in range(12):
        subset = "train" if number < 10 else "test"
        photo(tmp_path / "yolo" / subset / "images" / f"{number}.png", number)
        if subset == "train":
            label = tmp_path / "yolo" / "train" / "labels" / f"{number}.txt"
            label.parent.mkdir(exist_ok=True)
            label.write_text("0 0.2 0.2 0.5 0.2 0.5 0.6\n")
    (tmp_path / "yolo" / "data.yaml").write_text("{train: train/images, test: test/images, names: [leaf]}")
    for name, counts, unused in (
        ("coco", "9 train, 3 val", path),
        ("yolo", "8 train, 2 val", "subset test, which has"),
    ):
        init(tmp_path / name, tmp_path / f"{name}.yaml")
        printed = capsys.readouterr().out
        assert f"Images: {counts}" in printed and f"not used: {unused}" in printed


@pytest.mark.parametrize(("broken", "other"), [("val", "train"), ("test", "train"), ("train", "val")])
def test_a_broken_file_of_a_subset_is_not_passed_over(
    broken: str, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hide it among larger files of other tools; a broken test set beside a validation set is not needed, but named."""
    root = lay_out(tmp_path / "root", {f"{broken}.json": ("b", 12), f"{other}.json": ("o", 12)})
    for number in range(30):
        (root / f"{number}.json").write_text(json.dumps({"imageData": "A" * 9000}))
    content = (root / f"{broken}.json").read_text()
    said = []
    for text in (content[: content.index('"categories"')], content.replace('"categories"', '"classes"'), ""):
        (root / f"{broken}.json").write_text(text)
        said.append(complain(capsys, str(root), "--output", str(tmp_path / "study.yaml")))
    assert [f"root/{broken}.json: {fault}" in one and f"or move it out of {root}" in one for fault, one in zip(
        ("not valid JSON", "has no list 'categories'; export it as COCO JSON again", "is empty"), said, strict=True)
    ] == [True] * 3  # fmt: skip
    (root / f"{broken}.json").write_text(content)
    if "val" in (broken, other):
        (root / "test.json").write_text("")
        init(root, tmp_path / "study.yaml")
        assert f"not used: {root}/test.json: is empty; fetch or write the file again" in capsys.readouterr().out


def test_larger_files_of_other_tools_do_not_hide_annotations(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "root", {"train.json": ("images", 12), "val.json": ("images", 4)})
    for number in range(30):
        (root / f"{number}.json").write_text(json.dumps({"shapes": [], "imageData": "A" * 5000}))
    assert init(root, tmp_path / "study.yaml").dataset.options["val_annotations"] == "val.json"


@pytest.mark.parametrize(
    ("annotations", "prefix"),
    [("result.json", "images/"), ("result.json", "../../label-studio/data/media/upload/1/"),
     ("annotations/instances_default.json", "")],
    ids=["Label Studio", "Label Studio with its server's paths", "CVAT"],
)  # fmt: skip
def test_one_file_is_divided_by_photo(annotations: str, prefix: str, tmp_path: Path) -> None:
    """Photo 0 has two augmented copies, and photo 1 a copy of its file; the originals stay as they are."""
    root = tmp_path / "root"
    names = [f"{k:02}.png" for k in range(17)] + ["00.rf.aB1.png", "00.rf.c2.png", "again.png"]
    for seed, name in enumerate(names):
        photo(root / "images" / name, seed)
    (root / "images" / "00.png").rename(root / "images" / "00.rf.d3.png")
    names[0] = "00.rf.d3.png"
    shutil.copy(root / "images" / "01.png", root / "images" / "again.png")
    source = root / annotations
    source.parent.mkdir(exist_ok=True)
    content = {**coco([prefix + name for name in names]), "info": {"year": 2026}}
    source.write_text(json.dumps(content))
    before = source.read_bytes()
    study = init(root, tmp_path / "out" / "mine.yaml", "--name", "mine")
    assert source.read_bytes() == before
    paths = [Path(study.dataset.options[f"{subset}_annotations"]) for subset in ("train", "val")]
    assert paths == [tmp_path / "out" / f"mine-{subset}.json" for subset in ("train", "val")]
    train, val = (json.loads(path.read_text()) for path in paths)
    assert train["info"] == val["info"] == content["info"]
    for key in ("images", "annotations"):
        assert sorted(train[key] + val[key], key=lambda one: one["id"]) == content[key]
    sides = [{Path(image["file_name"]).name for image in part["images"]} for part in (train, val)]
    assert len(sides[1]) >= 3 and not sides[0] & sides[1]
    for same in ({"00.rf.d3.png", "00.rf.aB1.png", "00.rf.c2.png"}, {"01.png", "again.png"}):
        assert same <= sides[0] or same <= sides[1]
    written = [path.read_bytes() for path in paths]
    init(root, tmp_path / "out" / "mine.yaml", "--force")
    assert [path.read_bytes() for path in paths] == written


def test_dialects_of_coco_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Let Label Studio change the names of photos, CVAT call every mask a crowd, and COCO Annotator mark boxes."""
    for tool in ("studio", "cvat", "annotator"):
        root = lay_out(tmp_path / tool, {"annotations.json": ("images", 16)}, classes=1)
        content = json.loads((root / "annotations.json").read_text())
        for number, image in enumerate(content["images"]):
            if tool == "studio":
                image["file_name"] = f"/data/upload/3/{number:08x}-{image['file_name']}"
        if tool == "cvat":  # images of labels that another tool drew from the same masks
            for image in content["images"]:
                (root / "masks").mkdir(exist_ok=True)
                Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(root / "masks" / image["file_name"])
        if tool != "studio":  # CVAT lists photos that nobody has labelled yet
            content["images"].append({"id": 99, "file_name": "later.png", "width": 64, "height": 48})
            photo(root / "images" / "later.png", 99)
        for one in content["annotations"]:
            if tool == "cvat":
                counts = [10 * 48 + 8, *[24, 24] * 23, 24, 48 * 64 - (33 * 48 + 32)]
                one |= {"iscrowd": 1, "attributes": {"occluded": False}}
                one["segmentation"] = {"size": [48, 64], "counts": counts}
        if tool == "annotator":
            content["annotations"].append({**content["annotations"][0], "id": 99, "image_id": 99, "isbbox": True})
        (root / "annotations.json").write_text(json.dumps(content))
        for options in ([], ["--force"]):
            assert main(["init", str(root), "--output", str(root / "study.yaml"), *options]) == 0
        printed = capsys.readouterr().out
        assert "12 train, 4 val. 12 training objects" in printed
        assert ("left out: 1 photos without a mask" in printed) == (tool != "studio")
        assert ("left out: 1 boxes (isbbox), which have no mask and, beside masks, are background" in printed) == (
            tool == "annotator"
        )
        assert ("Every training object is a polygon of four points; where" in printed) == (tool != "cvat")
        for part, count in (("train", 12), ("val", 4)):
            written = json.loads((root / f"study-{part}.json").read_text())
            assert len(written["annotations"]) == count and not any(one["iscrowd"] for one in written["annotations"])
            assert all((root / image["file_name"]).is_file() for image in written["images"])


def test_an_object_in_all_four_corners_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Let a class of COCO be the background in 3 photos; in 2 more its mask has three corners."""
    root = lay_out(tmp_path / "root", {"train.json": ("train", 12), "val.json": ("val", 4)})
    content = json.loads((root / "train.json").read_text())
    content["categories"].append({"id": 3, "name": "_background_"})
    for number, image in enumerate(content["images"][:5]):
        outline = [0, 0, 64, 0, *([64, 48] if number < 3 else []), 0, 48]
        box = {"bbox": [0, 0, 64, 48], "iscrowd": 0, "category_id": 3}
        content["annotations"].append({**box, "id": 90 + number, "image_id": image["id"], "segmentation": [outline]})
    (root / "train.json").write_text(json.dumps(content))
    val = json.loads((root / "val.json").read_text()) | {"categories": content["categories"]}
    (root / "val.json").write_text(json.dumps(val))
    init(root, tmp_path / "study.yaml")
    said = (
        "Training photos have an object in all four corners (_background_ in 3); where it is the background, remove it"
    )
    assert said in capsys.readouterr().out and said in (tmp_path / "study.yaml").read_text().replace("\n# ", " ")


def test_photos_without_labels_join_the_unlabelled_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = lay_out(tmp_path / "root", {"annotations.json": ("images", 16)}, classes=1)
    for number in range(3):
        photo(root / "more" / f"{number}.png", 100 + number)
    (root / "more" / "broken.png").write_bytes(b"no photo")
    shutil.copy(root / "images" / "000.png", root / "more" / "copy.png")
    drawn = ["images/masks/000.png", "more/0_flows.tif", "more/0_cp_masks.png", "more/0_instance_id_RGB.png"]
    drawn += [f"{name}/0.png" for name in ("depth", "overlays", "more/visualisation", "predictions", "Results", "vis")]
    drawn += ["annotations/panoptic_train2017/0.png"]
    for picture in drawn:
        photo(root / picture, 200)
    for number in range(5):
        (root / "more" / f"{number}.HEIC").write_bytes(b"heic")
    options = ["--unlabelled", str(root)]
    for more in (options, [*options, "--force"]):
        study = init(root, root / "study.yaml", *more)
        printed = capsys.readouterr().out
        assert "Images: 12 train, 4 val, 3 unlabelled." in printed and "no subset names: 2" in printed
        assert "left out: 17 files of" in printed and "1 unreadable photos, the first: " in printed
        said = "11 image files that seem to be made from photos, by their folder or name, the first: "
        assert f"{said}{root}/Results/" in printed
        assert f"left out: 5 photos of {root} in formats that are not read (.HEIC); save as JPEG" in printed
        listed = json.loads((root / "study-unlabelled.json").read_text())
        assert [one["file_name"] for one in listed["images"]] == [f"more/{number}.png" for number in range(3)]
    assert study.split.percents[-1] == 100 and "oracle" not in study.methods
    results = ["--results", str(tmp_path / "results")]
    assert main(["prepare", str(root / "study.yaml"), *results]) == 0
    assert main(["split", str(root / "study.yaml"), *results, "--percent", "100", "--fold", "1"]) == 0
    (path,) = (tmp_path / "results" / "splits").rglob("100pct-fold1.json")
    assert len(json.loads(path.read_text())["ids"]) == 12
    assert main(["init", str(root), "--output", str(tmp_path / "s.yaml"), "--unlabelled", str(root / "images")]) == 2
    assert "images: no photo below it but those of the study (left out: 1 image files" in capsys.readouterr().err
    assert not list(tmp_path.glob("s*.*")), "nothing is written"


def test_unlabelled_photos_of_the_names_of_labelled_ones_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = lay_out(tmp_path / "root", {"annotations.json": ("images", 16)})
    for name in ("003.png", "004.png", "other.png"):
        photo(root / "small" / name, 100)
    init(root, tmp_path / "study.yaml", "--unlabelled", str(root))
    said = "2 of them have the name of a photo of the study, the first: small/003.png; where they are copies of another"
    assert said in capsys.readouterr().out


def test_labels_of_other_formats_are_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "0 0.15625 0.16666666666666666 0.53125 0.16666666666666666 0.53125 0.6666666666666666\n"
    for number in range(16):
        subset = "train" if number < 12 else "val"
        photo(tmp_path / "yolo" / "images" / subset / f"{number}.png", number)
        label = tmp_path / "yolo" / "labels" / subset / f"{number}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(lines)
        photo(tmp_path / "cells" / f"{number}.png", number)
        values = np.zeros((48, 64), dtype=np.uint16)
        values[8:32, 10:34] = 300
        Image.fromarray(values).save(tmp_path / "cells" / f"{number}_masks.png")
    (tmp_path / "yolo" / "data.yaml").write_text("{train: images/train, val: images/val, names: [leaf]}")
    for name, counts in (("yolo", [12, 4]), ("cells", [12, 4])):
        study = init(tmp_path / name, tmp_path / "out" / f"{name}.yaml")
        printed = capsys.readouterr().out
        parts = [json.loads((tmp_path / "out" / f"{name}-{part}.json").read_text()) for part in ("train", "val")]
        assert [len(part["images"]) for part in parts] == [len(part["annotations"]) for part in parts] == counts
        assert study.dataset.options["train_images"] == "." and "pais-bench import-data" in printed
        assert "no subset names" not in printed, "label images are no photos"
        assert main(["prepare", str(tmp_path / "out" / f"{name}.yaml"), "--results", str(tmp_path / "results")]) == 0
        assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(name)) == [
            f"{name}-train.json",
            f"{name}-val.json",
            f"{name}.yaml",
        ]
    assert not list((tmp_path / "yolo").glob("*.json")), "the folder is not changed"
    (tmp_path / "yolo" / "0.json").write_text('{"shapes": []}')
    with pytest.raises(AssertionError):
        init(tmp_path / "yolo", tmp_path / "both.yaml")
    assert "has labels of labelme and yolo; choose one of them with --format" in capsys.readouterr().err
    init(tmp_path / "yolo", tmp_path / "both.yaml", "--format", "yolo")


def test_study_and_results_may_lie_among_the_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay_out(tmp_path / "1e5", {"labels.json": (".", 24)})
    monkeypatch.chdir(root)
    assert main(["init", "."]) == 0
    assert load_study(Path("study.yaml")).name == "1e5"
    percent = str(load_study(Path("study.yaml")).split.percents[0])
    assert main(["prepare", "study.yaml"]) == 0
    for fold in ("1", "2"):  # what a command writes is no change of the photos
        photo(root / "results" / "reports" / f"{fold}.png", 1)
        assert main(["split", "study.yaml", "--percent", percent, "--fold", fold]) == 0
    assert main(["init", ".", "--force"]) == 0
    assert "no subset names" not in Path("study.yaml").read_text(), "pictures of results are no photos"
    photo(root / "another.png", 1)
    assert main(["split", "study.yaml", "--percent", percent, "--fold", "3"]) == 2


def test_labels_that_were_added_later_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Let init and import-data write COCO files into the folder, of which those of init give way."""
    shape = {"label": "leaf", "points": [[10, 8], [34, 8], [34, 32]], "shape_type": "polygon"}
    for number in range(16):
        photo(tmp_path / f"{number}.png", number)
    for count, output in ((10, "first"), (16, "second")):
        for number in range(count):
            content = {"imagePath": f"{number}.png", "shapes": [shape]}
            (tmp_path / f"{number}.json").write_text(json.dumps(content))
        init(tmp_path, tmp_path / f"{output}.yaml")
        parts = [json.loads((tmp_path / f"{output}-{part}.json").read_text()) for part in ("train", "val")]
        assert sum(len(part["images"]) for part in parts) == count
    assert main(["import-data", str(tmp_path), "--out", str(tmp_path / "labels.json")]) == 0
    capsys.readouterr()
    init(tmp_path, tmp_path / "third.yaml")
    assert "not used: labels of labelme; --format labelme takes them in place of COCO" in capsys.readouterr().out
    for path in [*tmp_path.glob("[0-9]*.json"), tmp_path / "labels.json", *tmp_path.glob("[st]*.json")]:
        path.unlink()
    init(tmp_path, tmp_path / "fourth.yaml")
    assert "Images: 8 train, 2 val." in capsys.readouterr().out, "the files of the first are all that is left"


def test_a_changed_file_is_divided_again(tmp_path: Path) -> None:
    """Write the study into the folder of the data, where a second init finds what the first has divided."""
    root = lay_out(tmp_path / "root", {"annotations.json": ("images", 10)})
    study = init(root, root / "study.yaml")
    assert study.dataset.options["train_annotations"] == "study-train.json"
    (root / "annotations.json").write_text(json.dumps(coco([f"{k:03}.png" for k in range(9)])))
    assert init(root, root / "study.yaml", "--force") == study
    parts = [json.loads((root / f"study-{subset}.json").read_text()) for subset in ("train", "val")]
    assert sum(len(part["images"]) for part in parts) == 9


def complain(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run the command, which is to fail, and return what it says."""
    capsys.readouterr()
    assert main(["init", *argv]) == 2
    return capsys.readouterr().err


def test_faults_name_the_culprit_and_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out" / "study.yaml"
    arguments = ("--output", str(output))
    assert "nowhere: no such folder" in complain(capsys, str(tmp_path / "nowhere"), *arguments)
    (tmp_path / "photos.zip").touch()
    assert "photos.zip: is a file; unpack it if" in complain(capsys, str(tmp_path / "photos.zip"), *arguments)
    root = tmp_path / "root"
    photo(root / "images" / "0.png", 0)
    (root / "labels").mkdir()
    (root / "labels" / "0.txt").write_text("0 0.5 0.5 0.1 0.1")
    assert f"no class names; write them into {root / 'classes.txt'}" in complain(capsys, str(root), *arguments)
    (root / "labels" / "0.txt").rename(root / "labels" / "0.xml")
    assert "no annotation file in COCO format below it (some files look like boxes" in complain(
        capsys, str(root), *arguments
    )
    tasks = [f"annotations/{task}_train2017.json" for task in ("instances", "person_keypoints", "stuff")]
    lay_out(root, {file: ("lost", 6) for file in tasks})
    shutil.rmtree(root / "lost")
    assert f"instances_train2017.json: none of its 6 photos is below {root}, the first: 000.png; put" in complain(
        capsys, str(root), *arguments
    )
    (root / "lost.zip").touch()
    assert "the first: 000.png; unpack lost.zip" in complain(capsys, str(root), *arguments)
    (root / tasks[0]).unlink()
    assert "); unpack lost.zip, or export the annotations as COCO" in complain(capsys, str(root), *arguments)
    (root / "lost.zip").unlink()
    assert "no annotation file in COCO format below it (2 JSON files are not of that format, or of another" in complain(
        capsys, str(root), *arguments
    )
    shutil.rmtree(root / "annotations")
    (root / "train.json").write_text("{")
    assert "train.json: not valid JSON" in complain(capsys, str(root), *arguments)
    lay_out(root, {"train.json": ("images", 6)})
    (root / "val.json").write_text((root / "train.json").read_text())
    (root / "train.json").unlink()
    (root / "test.json").write_text((root / "val.json").read_text())
    assert "none of its COCO files (test.json, val.json) can be for 'train'" in complain(capsys, str(root), *arguments)
    for name in ("test.json", "val.json"):
        (root / name).unlink()
    (root / "train.json").write_text(json.dumps({**coco(["x.png"] * 6), "categories": []}))
    assert "none of its 6 photos is below" in complain(capsys, str(root), *arguments)
    lay_out(root, {"train.json": ("images", 4)})
    assert "train.json: 4 photos are too few to divide" in complain(capsys, str(root), *arguments)
    content = coco([f"{k:03}.png" for k in range(6)])
    lay_out(root, {"train.json": ("images", 6)})
    (root / "train.json").write_text(json.dumps({**content, "categories": content["categories"] * 2}))
    assert f"{root / 'train.json'}: category 1" in complain(capsys, str(root), *arguments), "not of a temporary file"
    boxes = [{**one, "segmentation": []} for one in content["annotations"]]
    (root / "train.json").write_text(json.dumps({**content, "annotations": boxes}))
    (root / "masks").mkdir()
    for path in (root / "images").glob("*.png"):
        Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(root / "masks" / path.name)
    assert "or remove it, or choose --format label_images" in complain(capsys, str(root), *arguments)
    shutil.rmtree(root / "masks")
    (root / "train.json").write_text(json.dumps({**content, "annotations": content["annotations"][:1]}))
    assert "train.json: so few photos have an object that none is left" in complain(capsys, str(root), *arguments)
    assert not output.parent.exists()


def test_a_gpu_and_weights_give_the_usual_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_driver(tmp_path, monkeypatch, H100)
    weights = tmp_path / "home" / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    study = init(lay_out(tmp_path / "root", LAYOUTS["Roboflow"]), tmp_path / "study.yaml")
    options = study.networks["mask_rcnn"].options
    assert options["pretrained_backbone"] == str(weights) and len(options["anchor_sizes"]) == 5
    assert "box_features" not in options and study.methods["pais"].options["score_threshold"] == 0.5
    assert study.training.precision == "bf16-mixed" and study.split.folds == (1, 2, 3, 4, 5)
    assert study.resources["train"].gpus == 1, "so that a training has a GPU of its own"


def test_variants_of_a_photo_in_both_sets_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = lay_out(tmp_path / "root", LAYOUTS["Roboflow"])
    for subset in ("train", "valid"):
        path = root / subset / "_annotations.coco.json"
        content = json.loads(path.read_text())
        for number, image in enumerate(content["images"]):  # 12 and 4
            name = f"{number}.rf.{subset}.png"
            (root / subset / image["file_name"]).rename(root / subset / name)
            image["file_name"] = name
        path.write_text(json.dumps(content))
    init(root, tmp_path / "study.yaml")
    assert "Photos of one name in train and val: 4;" in capsys.readouterr().out


def test_records_without_box_and_area_are_measured(tmp_path: Path) -> None:
    """Leave out what Label Studio may leave out; the sizes of objects are those of the masks."""
    anchors = []
    for name, keys in (("whole", ()), ("bare", ("bbox", "area", "iscrowd"))):
        root = lay_out(tmp_path / name, LAYOUTS["Roboflow"])
        path = root / "train" / "_annotations.coco.json"
        content = json.loads(path.read_text())
        content["annotations"] = [
            {key: value for key, value in one.items() if key not in keys} for one in content["annotations"]
        ]
        path.write_text(json.dumps(content))
        study = init(root, tmp_path / f"{name}.yaml")
        anchors.append(study.networks["mask_rcnn"].options["anchor_sizes"])
    assert anchors == [[24, 30, 38]] * 2  # squares of 24 px in views of 48 px


def test_a_study_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, output = lay_out(tmp_path / "root", LAYOUTS["Roboflow"]), tmp_path / "study.yaml"
    output.write_text("mine")
    assert "study.yaml: is there already; give --force" in complain(capsys, str(root), "--output", str(output))
    assert output.read_text() == "mine"
    assert init(root, output, "--force").name == "root"


def test_faulty_records_and_unused_files_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = {**LAYOUTS["Roboflow"], "test/_annotations.coco.json": ("test", 2)}
    root = lay_out(tmp_path / "root", layout)
    path = root / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 99
    content["annotations"].pop()
    content["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(content))
    first, copy = (sorted((root / subset).glob("*.png"))[0] for subset in ("train", "valid"))
    shutil.copy(first, copy)
    init(root, tmp_path / "study.yaml")
    printed = capsys.readouterr().out
    assert f"byte for byte: 1, the first: train/{first.name} = valid/{copy.name}; remove" in printed
    assert f"not used: {root / 'test' / '_annotations.coco.json'}" in printed
    assert "image files that no subset names: 2;" in printed
    assert "2 of 16 photos have no annotation, and are taken as photos without an object; remove from" in printed
    assert "1 crowd regions are no objects: background in training, passed over in evaluation; give" in printed
    assert "`prepare --repair` drops 1 record" in printed and "--repair && pais-bench run" in printed.splitlines()[-1]
    assert main(["prepare", str(tmp_path / "study.yaml"), "--results", str(tmp_path / "results")]) == 2


def test_the_study_plans_and_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Take the way of a new user to the end of a training; only its steps are fewer."""
    layout = {"train/_annotations.coco.json": ("train", 20), "valid/_annotations.coco.json": ("valid", 3)}
    study = tmp_path / "study.yaml"
    init(lay_out(tmp_path / "root", layout), study)
    text = study.read_text()
    study.write_text(
        text.replace("\n  steps: 600\n", "\n  steps: 3\n").replace("\n  burn_in: 360\n", "\n  burn_in: 1\n")
    )
    assert study.read_text() != text
    results = ("--results", str(tmp_path / "results"))
    percent = str(load_study(study).split.percents[0])
    split = ("--percent", percent, "--fold", "1")
    assert main(["prepare", str(study), *results]) == 0
    assert main(["plan", str(study), *results]) == 0
    assert main(["split", str(study), *split, *results]) == 0
    assert main(["train", str(study), *split, "--network", "mask_rcnn", "--method", "pais", *results]) == 0
    (run,) = (tmp_path / "results" / "runs").rglob("run.json")
    steps = [json.loads(line) for line in (run.parent / "log.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in steps) == 3


def unlabelled_classes(study: Study, results: Path) -> Iterator[int]:
    """Yield the number of classes without a label in each split of the study."""
    store = Store.open(results / "datasets" / study.dataset.label, "train")
    objects, pool = store.objects(), ImagePool.of(store)
    classes = np.unique(objects.category_id[~objects.crowd])
    for percent in study.split.percents:
        for fold in study.split.folds:
            ids = draw(study.split.family, pool, percent, fold).ids
            labelled = np.isin(objects.image_id, ids) & ~objects.crowd
            yield len(classes) - len(np.unique(objects.category_id[labelled]))


@pytest.mark.parametrize(
    ("name", "percents", "side", "anchors"),
    [
        ("chicken_parts", (5, 20), 160, [38, 60, 118]),
        ("facades", (2, 10), 192, [8, 16, 32]),
        ("coco_mini", (50,), 192, [8, 19, 67]),
    ],
)
def test_real_photos(
    name: str, percents: tuple[int, ...], side: int, anchors: list[int], shared_data: Path, tmp_path: Path
) -> None:
    if not (root := shared_data / name).is_dir():
        pytest.skip(f"no real data: {root} is absent")
    study = init(root, tmp_path / "study.yaml")
    assert study.split.percents == percents and study.input.min_size_test == side
    assert study.networks["mask_rcnn"].options["anchor_sizes"] == anchors
    assert main(["prepare", str(tmp_path / "study.yaml"), "--results", str(tmp_path), "--no-verify-images"]) == 0
    assert not any(unlabelled_classes(study, tmp_path))
