"""Is a tree of Cityscapes that is incomplete or broken refused in words, and mended where that is asked for?"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tree import prepare

from pais_bench.store import Store
from pais_bench.types import BenchError

FIRST = "aachen/aachen_000000_000019"


@pytest.fixture
def root(few_streets: Path, tmp_path: Path) -> Path:
    """Give a tree that a test may spoil."""
    return Path(shutil.copytree(few_streets, tmp_path / "root"))


def gt(root: Path, kind: str) -> Path:
    return root / "gtFine" / "train" / f"{FIRST}_gtFine_{kind}"


def spoil_polygons(**changes: Any) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        gt(root, "instanceIds.png").unlink()
        content = json.loads(gt(root, "polygons.json").read_text())
        for key, value in changes.items():
            content["objects"][0][key] = value
        gt(root, "polygons.json").write_text(json.dumps(content))

    return spoil


def rewrite(path: str, content: bytes) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        if path.endswith(".json"):
            gt(root, "instanceIds.png").unlink()
        (root / path).write_bytes(content)

    return spoil


def cut(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_bytes((root / path).read_bytes()[:-200])


def paint(values: np.ndarray) -> Callable[[Path], object]:
    return lambda root: Image.fromarray(values).save(gt(root, "instanceIds.png"))


PHOTO, PNG, JSON = (
    f"leftImg8bit/train/{FIRST}_leftImg8bit.png",
    *(f"gtFine/train/{FIRST}_gtFine_{k}" for k in ("instanceIds.png", "polygons.json")),
)
STRANGE = np.full((64, 128), 11_000, dtype=np.uint16)
FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no gtFine",
        lambda root: shutil.rmtree(root / "gtFine"),
        r"root: has no folder gtFine/train; unzip gtFine_trainvaltest\.zip of cityscapes-dataset\.com, which needs "
        r"a login, into .*root$",
    ),
    (
        "no val",
        lambda root: shutil.rmtree(root / "leftImg8bit/val"),
        r"has no folder leftImg8bit/val; unzip leftImg8bit_trainvaltest\.zip of",
    ),
    (
        "no image",
        lambda root: [path.unlink() for path in root.rglob("val/*/*_leftImg8bit.png")],
        r"leftImg8bit/val: holds no image <city>/<city>_.*; unzip the archive again",
    ),
    (
        "no annotation",
        lambda root: [path.unlink() for path in root.rglob(f"{FIRST}_gtFine*")],
        rf"gtFine/train: 1 of the 3 images of .*leftImg8bit/train have no annotation "
        rf"file, the first: {FIRST}_leftImg8bit\.png; unzip gtFine_trainvaltest\.zip again, or leave "
        r"these images out with --repair",
    ),
    (
        "size",
        paint(np.zeros((32, 64), dtype=np.uint16)),
        rf"{PNG}: 64 x 32 pixels, but its image is 128 x 64; unzip",
    ),
    (
        "8 bits",
        paint(np.zeros((64, 128), dtype=np.uint8)),
        rf"{PNG}: a PNG of mode L; an instanceIds file has one channel of 16 bits",
    ),
    ("colour", paint(np.zeros((64, 128, 3), dtype=np.uint8)), rf"{PNG}: a PNG of mode RGB; an instanceIds"),
    ("value", paint(STRANGE), rf"{PNG}: has the pixel value 11000, which no label of Cityscapes has"),
    ("large value", paint(np.full((64, 128), 65_000, dtype=np.uint16)), rf"{PNG}: has the pixel value 65000"),
    ("truncated instances", cut(PNG), rf"{PNG}: unreadable PNG \(.*\); unzip"),
    ("truncated photo", cut(PHOTO), rf"{PHOTO}: unreadable PNG \(it is truncated\); unzip"),
    ("no PNG", rewrite(PHOTO, b"GIF89a"), rf"{PHOTO}: unreadable PNG \(cannot identify"),
    ("empty photo", rewrite(PHOTO, b""), rf"{PHOTO}: unreadable PNG"),
    ("no JSON", rewrite(JSON, b'{"imgWidth": 2'), rf"{JSON}: not valid JSON \(.*\); unzip"),
    ("list", rewrite(JSON, b"[]"), rf"{JSON}: not a polygons file of gtFine \(.*\); a polygons file has imgWidth"),
    (
        "no objects",
        rewrite(JSON, b'{"imgWidth": 128, "imgHeight": 64}'),
        rf"{JSON}: not a polygons file of gtFine \(KeyError\('objects'\)\)",
    ),
    (
        "objects",
        rewrite(JSON, b'{"imgWidth": 128, "imgHeight": 64, "objects": [3]}'),
        rf"{JSON}: not a polygons file of gtFine",
    ),
    (
        "polygon size",
        rewrite(JSON, b'{"imgWidth": 26, "imgHeight": 64, "objects": []}'),
        rf"{JSON}: 26 x 64 pixels, but its image is 128 x 64",
    ),
    (
        "label",
        spoil_polygons(label="lorry"),
        rf"{JSON}: object 0 has the label 'lorry', which Cityscapes does not know; rename it",
    ),
    ("label group", spoil_polygons(label="lorrygroup"), rf"{JSON}: object 0 has the label 'lorrygroup'"),
    (
        "no point",
        spoil_polygons(polygon=[]),
        rf"{JSON}: object 0 has no polygon that can be drawn \(.*\); give x, y pairs",
    ),
    ("half a point", spoil_polygons(polygon=[[1], [2], [3]]), rf"{JSON}: object 0 has no polygon that can be drawn"),
]


@pytest.mark.parametrize(("spoil", "message"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_faults_are_named(root: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(root)
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
    with pytest.raises(BenchError) as caught:
        prepare(root, tmp_path / "out", complete=True)
    told = str(caught.value)
    assert re.match(
        r".*leftImg8bit/train: 3 images instead of 2975: aachen has 1 instead of 174, atlantis has 1 inst", told
    )
    assert "ulm has 0 instead of 95" in told
    assert told.endswith("; unzip leftImg8bit_trainvaltest.zip again, or set dataset.options.complete to false")


def test_repair_leaves_out_and_lists_what_has_no_annotation(root: Path, tmp_path: Path) -> None:
    hidden = [path.rename(path.with_name(f"{path.name}.old")) for path in root.rglob(f"{FIRST}_gtFine*")]
    folder = prepare(root, tmp_path / "out", repair=True)
    repaired = json.loads((folder / "repaired.json").read_text())
    assert [one["record"]["file_name"] for one in repaired["train"]] == [f"{FIRST}_leftImg8bit.png"]
    assert "val" not in repaired
    assert len(Store.open(folder, "train").image_ids) == 2
    for path in hidden:
        path.rename(path.with_name(path.name.removesuffix(".old")))
    assert len(Store.open(prepare(root, folder, repair=True), "train").image_ids) == 3
    assert not (folder / "repaired.json").exists()


def test_repair_does_not_leave_out_everything(root: Path, tmp_path: Path) -> None:
    for path in (root / "gtFine/val").glob("*/*"):
        path.unlink()
    with pytest.raises(BenchError, match="gtFine/val: 2 of the 2 images of .* have no annotation file"):
        prepare(root, tmp_path / "out", repair=True)
