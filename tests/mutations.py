"""Mutate a small valid annotation file at random: nodes are replaced, deleted, nested or duplicated."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from pais_bench.annotations.rle import decode_mask
from pais_bench.annotations.store import Store
from pais_bench.datasets.coco import Dataset, Options
from pais_bench.errors import BenchError

HEIGHT, WIDTH = 9, 11
TRIANGLE = [1, 1.5, 8, 1, 6.25, 7]
SEGMENTATIONS: tuple[Any, ...] = (
    [TRIANGLE],
    {"size": [HEIGHT, WIDTH], "counts": [10, 5, 84]},
    {"size": [HEIGHT, WIDTH], "counts": ":59O0j1"},
    [TRIANGLE, [0, 0, 3, 0, 3, 3, 0, 3]],
)
VALID: dict[str, Any] = {
    "info": {"year": 2017},
    "images": [
        {"id": 30, "file_name": "a.png", "height": HEIGHT, "width": WIDTH, "license": 1},
        {"id": 5, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
    ],
    "annotations": [
        {
            "id": number,
            "image_id": (30, 5)[number % 2],
            "category_id": 7,
            "iscrowd": number // 3,
            "area": 12.5,
            "bbox": [1, 1.5, 7, 5.5],
            "segmentation": segmentation,
        }
        for number, segmentation in enumerate(SEGMENTATIONS)
    ],
    "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}],
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 5, 7, 30, 99, 2**31, 2**32, 2**53 + 1, 2**63, -(2**63) - 1, 10**400),
    *(0.5, -0.0, 1e308, -1e9, float("nan"), float("inf"), "", "0", "id", "\ud800", "\x00", "\n", "é", "a.png"),
    *("PPPPPPPPPPPP1", "?" * 40, ":5", "o" * 9, [], {}, [[]], [{}], {"size": [9, 11], "counts": "S3"}),
    *([99], [0, 99], [2**32 - 1, 100], {"counts": []}, [1, 1, 2, 2, 3, 3], [[1, 1, 2, 2, 3, 1e5]]),
)


class Trial:
    """Prepare one mutated file after another in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Write the images and a valid validation set."""
        self.root, self.out = folder / "root", folder / "out"
        for name in ("train2017", "val2017", "annotations"):
            (self.root / name).mkdir(parents=True)
        for image in VALID["images"]:
            for name in ("train2017", "val2017"):
                Image.new("L", (WIDTH, HEIGHT)).save(self.root / name / image["file_name"])
        (self.root / "annotations" / "instances_val2017.json").write_text(json.dumps(VALID))
        self.out.mkdir()

    def run(self, content: bytes, repair: bool) -> str:
        """Return 'refused', 'repaired' or 'prepared'; raise AssertionError if the message or the store is invalid."""
        (self.root / "annotations" / "instances_train2017.json").write_bytes(content)
        with tempfile.TemporaryDirectory(dir=self.out) as parent:
            folder = Path(parent) / "store"
            try:
                Dataset(Options(), self.root).prepare(folder, "mine", repair)
            except BenchError as error:
                assert len(str(error).splitlines()) == 1, error
                assert "; " in str(error), error
                assert not folder.exists(), "nothing is written"
                return "refused"
            assert not list(folder.glob("*.partial"))
            store = Store.open(folder, "train")
            store.verify()
            for image_id in store.image_ids:
                for annotation in store.annotations(image_id):
                    assert decode_mask(annotation["segmentation"], store.size(image_id)).shape == store.size(image_id)
            if (folder / "repaired.json").exists():
                return "repaired"
            source = json.loads(content)
            if not any(word in content for word in (b"NaN", b"Infinity", b"1e400")):  # NaN differs from itself
                assert store.coco_dict() == source
            return "prepared"


def mutate(rng: random.Random) -> bytes:
    """Return a file with one to four mutated nodes, and rarely mutated bytes."""
    content = copy.deepcopy(VALID)
    try:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            mutate_node(content, rng)
        text = json.dumps(content).encode()
    except RecursionError:  # nested deeper than Python can write it
        return mutate(rng)
    if rng.random() < 0.1:
        start = rng.randrange(len(text) + 1)
        text = text[:start] + rng.choice((b"", b"\xff", b"\x00" + text[start:], text[start + 1 :]))
    return text


def mutate_node(content: dict[str, Any], rng: random.Random) -> None:
    """Mutate one node below the root."""
    parent, key = content, rng.choice(list(content) or ["images"])
    while isinstance(parent.get(key) if isinstance(parent, dict) else parent[key], (dict, list)):
        inner = parent[key]
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys or rng.random() < 0.15:
            break
        parent, key = inner, rng.choice(keys)
    if isinstance(parent, dict) and key not in parent:
        return
    kind = rng.choice(("replace", "replace", "delete", "nest", "duplicate", "swap"))
    if kind == "replace":
        parent[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == "delete":
        del parent[key]
    elif kind == "nest":
        for _ in range(rng.choice((1, 1, 3, 300))):
            parent[key] = rng.choice(([parent[key]], {"id": parent[key]}))
    elif kind == "duplicate" and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif kind == "duplicate":
        parent[rng.choice(("id", "extra", "size"))] = copy.deepcopy(parent[key])
    else:
        other = rng.choice(VALID["annotations"])
        parent[key] = copy.deepcopy(other[rng.choice(list(other))])
