"""Check that an incomplete or broken tree of Cityscapes is refused, and repaired on request."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tree import prepare

from pais_bench.annotations.store import Store
from pais_bench.errors import BenchError

FIRST = "aachen/aachen_000000_000019"


@pytest.fixture
def root(few_streets: Path, tmp_path: Path) -> Path:
    """Return a tree that a test may change."""
    return Path(shutil.copytree(few_streets, tmp_path / "root"))


def gt(root: Path, kind: str) -> Path:
    return root / "gtFine" / "train" / f"{FIRST}_gtFine_{kind}"


def change_polygons(**changes: Any) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        gt(root, "instanceIds.png").unlink()
        content = json.loads(gt(root, "polygons.json").read_text())
        content["objects"][0] |= changes
        gt(root, "polygons.json").write_text(json.dumps(content))

    return change


def rewrite(path: str, content: bytes) -> Callable[[Path], object]:
    def change(root: Path) -> None:
        if path.endswith(".json"):
            gt(root, "instanceIds.png").unlink()
        (root / path).write_bytes(content)

    return change


def cut(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-200])


def paint(shape: tuple[int, ...], value: int = 0, dtype: Any = np.uint16) -> Callable[[Path], object]:
    return lambda root: Image.fromarray(np.full(shape, value, dtype)).save(gt(root, "instanceIds.png"))


PHOTO = f"leftImg8bit/train/{FIRST}_leftImg8bit.png"
PNG, JSON = (f"gtFine/train/{FIRST}_gtFine_{kind}" for kind in ("instanceIds.png", "polygons.json"))
SIZES = b'{"imgWidth": 128, "imgHeight": 64'
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no gtFine": (
        lambda root: shutil.rmtree(root / "gtFine"),
        r"root: has no folder gtFine/train; unzip gtFine_trainvaltest\.zip of .* login, into .*root$",
    ),
    "no val": (
        lambda root: shutil.rmtree(root / "leftImg8bit/val"),
        r"root: has no folder leftImg8bit/val; unzip leftImg8bit_trainvaltest\.zip of",
    ),
    "no image": (
        lambda root: [path.unlink() for path in root.rglob("val/*/*_leftImg8bit.png")],
        r"leftImg8bit/val: holds no image <city>/<city>_.*; unzip the archive again",
    ),
    "no annotation": (
        lambda root: [path.unlink() for path in root.rglob(f"{FIRST}_gtFine*")],
        rf"gtFine/train: 1 of the 3 images of .*leftImg8bit/train have no annotation file, the first: "
        rf"{FIRST}_leftImg8bit\.png; unzip gtFine_trainvaltest\.zip again, or .* --repair",
    ),
    "size": (paint((32, 64)), rf"{PNG}: 64 x 32 pixels, but its image is 128 x 64; unzip"),
    "8 bits": (paint((64, 128), 0, np.uint8), rf"{PNG}: a PNG of mode L; .* one channel of 16 bits"),
    "colour": (paint((64, 128, 3), 0, np.uint8), rf"{PNG}: a PNG of mode RGB; .* one channel of 16 bits"),
    "value": (paint((64, 128), 11_000), rf"{PNG}: has the pixel value 11000, which no label of Cityscapes has"),
    "large value": (paint((64, 128), 65_000), rf"{PNG}: has the pixel value 65000"),
    "truncated instances": (cut(PNG), rf"{PNG}: unreadable PNG \(.*\); unzip"),
    "truncated photo": (cut(PHOTO), rf"{PHOTO}: unreadable PNG \(it is truncated\); unzip"),
    "no PNG": (rewrite(PHOTO, b"GIF89a"), rf"{PHOTO}: unreadable PNG \(cannot identify"),
    "empty photo": (rewrite(PHOTO, b""), rf"{PHOTO}: unreadable PNG"),
    "no JSON": (rewrite(JSON, b'{"imgWidth": 2'), rf"{JSON}: not valid JSON \(.*\); unzip"),
    "huge nesting": (rewrite(JSON, b"[" * 200_000), rf"{JSON}: not valid JSON \(.*\); unzip"),
    "list": (rewrite(JSON, b"[]"), rf"{JSON}: not a polygons file of gtFine \(.*\); .* has imgWidth"),
    "no objects": (rewrite(JSON, SIZES + b"}"), rf"{JSON}: not a polygons file of gtFine \(KeyError\('objects'\)\)"),
    "objects": (rewrite(JSON, SIZES + b', "objects": [3]}'), rf"{JSON}: not a polygons file of gtFine"),
    "polygon size": (
        rewrite(JSON, b'{"imgWidth": 26, "imgHeight": 64, "objects": []}'),
        rf"{JSON}: 26 x 64 pixels, but its image is 128 x 64",
    ),
    "label": (change_polygons(label="lorry"), rf"{JSON}: object 0 has the label 'lorry', which .*; rename it"),
    "label group": (change_polygons(label="lorrygroup"), rf"{JSON}: object 0 has the label 'lorrygroup'"),
    "no point": (change_polygons(polygon=[]), rf"{JSON}: object 0 has no polygon .*\(.*\); give x, y pairs"),
    "half a point": (change_polygons(polygon=[[1], [2], [3]]), rf"{JSON}: object 0 has no polygon that can be drawn"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named(root: Path, tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    change(root)
    with pytest.raises(BenchError, match=message):
        prepare(root, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_root_is_missing_or_absent(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="dataset.root: missing; give the folder that holds gtFine and leftImg8bit"):
        prepare(None, tmp_path)
    with pytest.raises(BenchError, match="nowhere: no such folder; set dataset.root to the folder that holds gtFine"):
        prepare(tmp_path / "nowhere", tmp_path)


def test_incomplete_cities_are_counted_and_named(root: Path, tmp_path: Path) -> None:
    (root / "leftImg8bit/train/ulm").rename(root / "leftImg8bit/train/atlantis")
    cities = "aachen has 1 instead of 174, atlantis has 1 instead of 0, .*, ulm has 0 instead of 95"
    remedy = r"unzip leftImg8bit_trainvaltest\.zip again, or set dataset\.options\.complete to false$"
    with pytest.raises(BenchError, match=rf"leftImg8bit/train: 3 images instead of 2975: {cities}.*; {remedy}"):
        prepare(root, tmp_path / "out", complete=True)


def test_repair_drops_and_lists_images_without_annotations(root: Path, tmp_path: Path) -> None:
    hidden = [path.rename(path.with_name(f"{path.name}.old")) for path in root.rglob(f"{FIRST}_gtFine*")]
    folder = prepare(root, tmp_path / "out", repair=True)
    repaired = json.loads((folder / "repaired.json").read_text())
    assert [entry["record"]["file_name"] for entry in repaired["train"]] == [f"{FIRST}_leftImg8bit.png"]
    assert "val" not in repaired
    assert len(Store.open(folder, "train").image_ids) == 2
    for path in hidden:
        path.rename(path.with_name(path.name.removesuffix(".old")))
    assert len(Store.open(prepare(root, folder, repair=True), "train").image_ids) == 3
    assert not (folder / "repaired.json").exists()


def test_repair_does_not_drop_all_images(root: Path, tmp_path: Path) -> None:
    for path in (root / "gtFine/val").glob("*/*"):
        path.unlink()
    with pytest.raises(BenchError, match="gtFine/val: 2 of the 2 images of .* have no annotation file"):
        prepare(root, tmp_path / "out", repair=True)
