"""Check `predict-folder`: the records are those of `predict`, labels are a dataset, and a bad image stops no other."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import binary_fill_holes
from tiny import study, write_study

from pais_bench.annotations.rle import compress, decode_mask
from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.training.polygons import MIN_IOU, to_polygons

CELL = ("--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run and predict with it; return its folder."""
    folder = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    training = {**study()["training"], "steps": 30, "evaluate_every": 30, "checkpoint_every": 30, "ema_decay": 0.8}
    path = str(write_study(folder, methods={"supervised": {}}, training=training))  # long enough that masks are there
    results = ("--results", str(folder / "results"))
    for command in (["prepare", path], ["split", path, *CELL[:4]], ["train", path, *CELL], ["predict", path, *CELL]):
        assert main([*command, *results]) == 0
    torch.set_num_threads(threads)
    (run,) = (folder / "results/runs/shapes/10pct-fold1/torchvision-mask_rcnn").iterdir()
    return run


def validation(run: Path) -> Store:
    return Store.open(run.parents[4] / "datasets" / "shapes", "val")


@pytest.fixture
def photos(trained: Path, tmp_path: Path) -> Path:
    """Return a folder with an image in a linked sub-folder, one on its side, one of 16 bits, and other files."""
    store, folder = validation(trained), tmp_path / "photos"
    (tmp_path / "elsewhere").mkdir()
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    first, second, third = (Image.open(store.path(image_id)).resize((64, 60)) for image_id in store.image_ids[:3])
    first.save(tmp_path / "elsewhere" / "é.PNG")
    turned = Image.Exif()
    turned[0x0112] = 6
    second.resize((80, 50)).save(folder / "on its side.jpg", exif=turned)
    Image.fromarray(np.asarray(third.convert("L")).astype(np.uint16) * 257).save(folder / "deep.tif")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"no image")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_records_are_those_of_predict(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = validation(trained)
    images = store.path(store.image_ids[0]).parent
    alone = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("log.jsonl"))
    monkeypatch.chdir(tmp_path)
    assert main(["predict-folder", "run", str(images), "--out", "made/found.json", "--overlays", "over"]) == 0
    found, expected = read(tmp_path / "made/found.json"), read(trained / "predictions.json")
    names = sorted(store.path(image_id).name for image_id in store.image_ids)
    ids = {image_id: 1 + names.index(store.path(image_id).name) for image_id in store.image_ids}
    assert {record["image_id"]: record["file_name"] for record in found}.items() <= dict(enumerate(names, 1)).items()
    kept = [{key: value for key, value in one.items() if key not in ("file_name", "mask_iou")} for one in found]
    assert kept and sorted(kept, key=str) == sorted(
        ({**record, "image_id": ids[record["image_id"]]} for record in expected), key=str
    )
    assert {path.name for path in (tmp_path / "over").iterdir()} == {f"{name}.jpg" for name in names}
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["found.json"]
    middle = float(np.median([record["mask_iou"] for record in found]))
    assert main(["predict-folder", str(alone), str(images), "--out", "sure.json", "--mask-iou", str(middle)]) == 0
    assert read(tmp_path / "sure.json") == [record for record in found if record["mask_iou"] >= middle]


@pytest.mark.parametrize("as_rle", [False, True])
def test_labels_are_a_dataset_that_prepare_accepts(as_rle: bool, trained: Path, photos: Path, tmp_path: Path) -> None:
    out, flags = photos.parent / "labels.json", ["--as-labels", "--score", "0", *(["--rle"] if as_rle else [])]
    assert main(["predict-folder", str(trained), str(photos), "--out", str(out), *flags, "--workers", "1"]) == 0
    labels = read(out)
    sizes = {image["file_name"]: (image["id"], image["width"], image["height"]) for image in labels["images"]}
    assert sizes == {"deep.tif": (1, 64, 60), "linked/é.PNG": (2, 64, 60), "on its side.jpg": (3, 50, 80)}
    assert [annotation["id"] for annotation in labels["annotations"]] == [*range(1, len(labels["annotations"]) + 1)]
    assert labels["annotations"] and isinstance(labels["annotations"][0]["segmentation"], dict) == as_rle
    for annotation in labels["annotations"]:
        image = labels["images"][annotation["image_id"] - 1]
        drawn = compress(annotation["segmentation"], (image["height"], image["width"]))
        assert (annotation["bbox"], annotation["area"]) == (rle.toBbox(drawn).tolist(), rle.area(drawn))
    options = {f"{subset}_{kind}": value for subset in ("train", "val") for kind, value in
               (("annotations", "labels.json"), ("images", "photos"))}  # fmt: skip
    dataset = {"name": "coco", "label": "made", "root": str(tmp_path), "options": options}
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(study(dataset=dataset)))
    assert main(["prepare", str(path), "--results", str(tmp_path / "results")]) == 0
    store = Store.open(tmp_path / "results/datasets/made", "train")
    assert [record for image_id in (1, 2, 3) for record in store.annotations(image_id)] == labels["annotations"]
    assert store.categories == validation(trained).categories


def test_an_unreadable_image_is_named_and_the_others_are_predicted(
    trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "found.json"
    command = ["predict-folder", str(trained), str(photos), "--out", str(out)]
    assert main(command) == 0
    whole = read(out)
    png = bytearray((photos / "linked" / "é.PNG").read_bytes())
    png[16:24] = struct.pack(">II", 30_000, 10_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    (photos / "zz.png").write_bytes(png)
    (photos / "deep.tif").write_bytes(b"no image")
    assert main([*command, "--overlays", str(photos.parent / "over")]) == 2
    message = f"2 of 4 images are not in {out}, the first: {photos / 'deep.tif'}: unreadable image"
    error = capsys.readouterr().err
    assert f"pais-bench predict-folder: error: {message}" in error
    assert f"{photos / 'zz.png'}: 300 megapixels, more than 200; scale or cut the image" in error
    others = [record for record in whole if record["file_name"] != "deep.tif"]
    assert [(record["image_id"], record["category_id"]) for record in read(out)] == [
        (record["image_id"], record["category_id"]) for record in others
    ], "the ids are those of the sorted paths"
    over = photos.parent / "over"
    assert {str(path.relative_to(over)) for path in over.rglob("*.jpg")} == {"linked/é.PNG.jpg", "on its side.jpg.jpg"}
    assert main([*command, "--as-labels"]) == 2
    assert [image["id"] for image in read(out)["images"]] == [2, 3]


def test_the_classes_are_those_of_the_training(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Take a run that was trained before run.json told the classes, beside its dataset, alone, and on other data."""
    results, out = tmp_path / "results", tmp_path / "found.json"
    run = results / trained.relative_to(trained.parents[4])
    shutil.copytree(trained, run)
    record = {key: value for key, value in read(run / "run.json").items() if key != "classes"}
    (run / "run.json").write_text(json.dumps(record))
    command = ["predict-folder", str(run), str(photos), "--out", str(out)]
    assert main(command) == 2
    assert "neither run.json nor a prepared dataset above tells its classes" in capsys.readouterr().err
    prepared = results / "datasets" / "shapes"
    shutil.copytree(trained.parents[4] / "datasets" / "shapes", prepared)
    assert main(command) == 0 and read(out)
    manifest = read(prepared / "dataset.json")
    (prepared / "dataset.json").write_text(json.dumps({**manifest, "content": "0" * 64}))
    assert main(command) == 2
    assert f"{prepared}: not the data that {run} was trained on; name the COCO" in capsys.readouterr().err
    content = validation(trained).coco_dict()
    for classes, code in ((content["categories"], 0), ([*content["categories"], {"id": 99, "name": "more"}], 2)):
        (tmp_path / "classes.json").write_text(json.dumps({**content, "categories": classes}))
        assert main([*command, "--classes", str(tmp_path / "classes.json")]) == code
    assert f"its weights do not fit a network of {len(classes)} classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{run}/..", "{photos}"], "run.json: missing; name the folder of a trained run"),
        (["{run}", "{photos}/none"], "none: no such folder"),
        (["{run}", "{photos}/linked"], "holds no image"),
        (["{run}", "{photos}", "--score", "1.5"], "--score 1.5: not in 0..1"),
        (["{run}", "{photos}", "--mask-iou", "nan"], "--mask-iou nan: not in 0..1"),
        (["{run}", "{photos}", "--rle"], "--rle: is of --as-labels"),
        (["{run}", "{photos}", "--overlays", "{photos}/over"], "whose images are predicted; name another folder"),
        (["{run}", "{photos}", "--out", "{photos}"], "is a folder; let --out name a file"),
        (["{run}", "{photos}", "--checkpoint", "teacher-best"], "best-teacher.pt: missing"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_prediction(
    words: list[str], message: str, trained: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "linked" / "é.PNG").unlink()
    out = photos.parent / "found.json"
    arguments = [word.format(run=trained, photos=photos) for word in words]
    assert main(["predict-folder", "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


def masks() -> list[np.ndarray]:
    """Return masks of noise, blobs and rings from one pixel to a photo's size, some of many parts."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 40, (60, 2)).tolist()
    noise = [rng.random(size) < rng.choice([0.05, 0.4, 0.6, 0.95]) for size in sizes]
    y, x = np.mgrid[:900, :1200]
    radius = np.hypot((x - 600) / 1.3, y - 450)
    return [
        mask for mask in [*noise, np.ones((1, 1), bool), radius < 400, (radius < 400) & (radius > 90)] if mask.any()
    ]


def test_polygons_draw_their_masks_with_holes_filled() -> None:
    for mask in masks():
        polygons, filled = to_polygons(mask)
        expected = binary_fill_holes(mask)
        assert filled == (expected.sum() > mask.sum()), "a hole is background that no edge or image border opens"
        drawn = decode_mask(polygons, mask.shape)
        assert (drawn & expected).sum() / (drawn | expected).sum() >= MIN_IOU
        assert all(len(polygon) >= 6 and min(polygon) >= 0 for polygon in polygons)
    assert sum(map(len, polygons)) < 400, "a smooth outline of 2,900 pixels has few points"
    assert to_polygons(np.zeros((4, 4), bool)) == ([], False)


def test_a_polygon_of_straight_edges_is_exact() -> None:
    mask = np.zeros((9, 12), bool)
    mask[2:8, 3:11] = True
    mask[2:4, 8:] = False
    (polygon,), _ = to_polygons(mask)
    corners = set(zip(polygon[::2], polygon[1::2], strict=True))
    assert corners == {(3, 2), (8, 2), (8, 4), (11, 4), (11, 8), (3, 8)}
    assert (decode_mask([polygon], (9, 12)) == mask).all()
