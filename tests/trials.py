"""Give one mutated input after another to the package: each is refused in one line, or nothing of it is lost.

A Trial prepares what its inputs need once. run(seed) makes the input of a seed and returns the outcome in a word; it
raises AssertionError where a law is broken, and lets through what the package must not raise. What was accepted is
counted here, without the package.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import random
import shutil
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import yaml
from mutations import HEIGHT, VALID, WIDTH, mutate, mutate_bytes, mutate_lines, mutate_nodes
from PIL import Image
from streets import draw_tree

from pais_bench.annotations.rle import decode_mask
from pais_bench.annotations.store import Store
from pais_bench.cli.commands import import_split
from pais_bench.datasets import cityscapes, coco
from pais_bench.errors import BenchError, describe_fault
from pais_bench.evaluation import evaluate
from pais_bench.evaluation.results_file import read_ground_truth, read_records
from pais_bench.images.pixels import read_pixels
from pais_bench.study.load import load_study, study_path


class Trial:
    """Run inputs in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Write what all inputs need."""
        self.root, self.out = folder / "root", folder / "out"
        self.root.mkdir(parents=True)

    def run(self, seed: int) -> str:
        """Return 'refused', 'accepted' or 'repaired' for the input of a seed."""
        raise NotImplementedError

    names_a_remedy = True
    """Whether a refusal ends with what to do, after a semicolon."""

    def attempt(self, work: Callable[[], str]) -> str:
        """Return the outcome of work, which writes into self.out; a refusal is one line and leaves nothing there."""
        shutil.rmtree(self.out, ignore_errors=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                outcome = work()
        except (BenchError, OSError, MemoryError, RuntimeError) as error:
            message = str(error) if isinstance(error, BenchError) else describe_fault(error)
            if message is None:
                raise
            assert len(message.splitlines()) == 1, message
            assert not self.names_a_remedy or "; " in message, message
            written = [path for path in self.out.rglob("*") if path.is_file()] if self.out.exists() else []
            assert not written, f"nothing is written: {written}"
            return "refused"
        assert not list(self.out.rglob("*.partial"))
        return outcome


class Annotations(Trial):
    """Prepare mutated annotation files."""

    def __init__(self, folder: Path) -> None:
        """Write the images and a valid validation set."""
        super().__init__(folder)
        write_coco(self.root)

    def run(self, seed: int) -> str:
        """Run the file of a seed; odd seeds repair."""
        return self.run_file(mutate(random.Random(seed)), repair=seed % 2 == 1)

    def run_file(self, content: bytes, repair: bool) -> str:
        """Run a file."""
        (self.root / "annotations" / "instances_train2017.json").write_bytes(content)
        return self.attempt(lambda: self._prepare(content, repair))

    def _prepare(self, content: bytes, repair: bool) -> str:
        coco.Dataset(coco.Options(), self.root).prepare(self.out, "mine", repair)
        store = Store.open(self.out, "train")
        store.verify()
        stored, source = store.coco_dict(), json.loads(content)
        for annotation in stored["annotations"]:
            size = store.size(annotation["image_id"])
            assert decode_mask(annotation["segmentation"], size).shape == size
        assert len({annotation["id"] for annotation in stored["annotations"]}) == len(stored["annotations"])
        repaired = self.out / "repaired.json"
        entries = json.loads(repaired.read_text())["train"] if repaired.exists() else []
        dropped = [entry for entry in entries if "replacement" not in entry]
        for key in ("images", "annotations"):
            assert len(stored[key]) + sum(entry["list"] == key for entry in dropped) == len(source[key]), key
        if all(entry["list"] == "annotations" for entry in dropped):
            for entry in dropped:
                earlier = [json.dumps(record) for record in source["annotations"][: entry["position"]]]
                text = json.dumps(entry["record"])
                assert text in earlier or not can_be_kept(entry["record"], source), f"dropped {text}"
        if not entries:
            pairs = zip(source["annotations"], stored["annotations"], strict=True)
            assert all(int(old["image_id"]) == new["image_id"] for old, new in pairs)
            if not json.loads((self.out / "dataset.json").read_text())["subsets"]["train"]["notes"]:
                assert json.dumps(stored, sort_keys=True) == json.dumps(source, sort_keys=True)
        return "repaired" if entries else "accepted"


def can_be_kept(record: Any, source: dict[str, Any]) -> bool:
    """Return whether an annotation surely has a mask on an image of the file: a polygon near it of 3 points."""
    try:
        known = {str(image["id"]) for image in source["images"]}, {str(each["id"]) for each in source["categories"]}
        if str(record["image_id"]) not in known[0] or str(record["category_id"]) not in known[1]:
            return False
        polygons = record["segmentation"]
        return isinstance(polygons, list) and any(
            len(polygon) >= 6
            and len(polygon) % 2 == 0
            and all(type(value) in (int, float) and math.isfinite(value) and 0 <= value <= HEIGHT for value in polygon)
            for polygon in polygons
        )
    except (KeyError, TypeError):
        return False


def write_coco(root: Path) -> None:
    """Write a valid dataset in COCO's layout."""
    for name in ("train2017", "val2017", "annotations"):
        (root / name).mkdir()
    for name in ("train2017", "val2017"):
        for number, image in enumerate(VALID["images"]):
            picture = Image.new("L", (WIDTH, HEIGHT), number + 10 * (name == "val2017"))
            picture.save(root / name / image["file_name"])
        (root / "annotations" / f"instances_{name}.json").write_text(json.dumps(VALID))


class Images(Trial):
    """Prepare datasets with an image file of any format, whose bytes are mutated."""

    MODES = {
        "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "jpeg": ("L", "RGB", "CMYK"),
        "tiff": ("1", "L", "RGB", "RGBA", "I;16", "I", "F", "CMYK"),
        "bmp": ("1", "L", "P", "RGB"),
        "gif": ("L", "P"),
        "webp": ("RGB", "RGBA"),
        "ppm": ("1", "L", "RGB"),
    }

    def __init__(self, folder: Path) -> None:
        """Write a valid dataset."""
        super().__init__(folder)
        write_coco(self.root)

    def run(self, seed: int) -> str:
        """Run the image of a seed; one in four is valid."""
        rng = random.Random(seed)
        kind = rng.choice(list(self.MODES))
        buffer = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).convert("L" if (mode := rng.choice(self.MODES[kind])) == "I;16" else "RGB")
        exif = Image.Exif()
        exif[0x0112] = rng.choice((1, 1, 1, 3, 6, 9))
        picture.convert(mode).save(buffer, kind, **({"exif": exif} if kind in ("jpeg", "png", "webp") else {}))
        content = buffer.getvalue() if rng.random() < 0.25 else mutate_bytes(buffer.getvalue(), rng)
        (self.root / "train2017" / "a.png").write_bytes(content)
        return self.attempt(lambda: self._prepare(repair=seed % 2 == 1))

    def _prepare(self, repair: bool) -> str:
        coco.Dataset(coco.Options(max_megapixels=1), self.root).prepare(self.out, "mine", repair, verify_images=True)
        store = Store.open(self.out, "train")
        for image_id in store.image_ids:
            pixels = read_pixels(store.path(image_id), store.size(image_id))
            assert pixels.shape == (HEIGHT, WIDTH, 3) and pixels.dtype == np.uint8
        if (self.out / "repaired.json").exists():
            assert store.image_ids == (5,) and len(store.annotations(5)) == 2, "the other image is kept"
            return "repaired"
        assert len(store.objects().image_id) == len(VALID["annotations"])
        return "accepted"


class Results(Trial):
    """Evaluate mutated results files."""

    def __init__(self, folder: Path) -> None:
        """Write the annotation file."""
        super().__init__(folder)
        gt, self.records = coco_random.generate(2, images=3)
        for image in gt["images"]:
            image["file_name"] = f"{image['id']}.png"
        (self.root / "gt.json").write_text(json.dumps(gt))
        self.gt = read_ground_truth(self.root / "gt.json")

    def run(self, seed: int) -> str:
        """Run the results of a seed."""
        path, content = self.root / "results.json", mutate(random.Random(seed), self.records)
        path.write_bytes(content)
        return self.attempt(lambda: self._evaluate(path, content))

    def _evaluate(self, path: Path, content: bytes) -> str:
        records = read_records(path)
        assert len(records) == len(json.loads(content))
        metrics = evaluate.evaluate(["coco", "boundary"], self.gt, records)
        values = [value for numbers in metrics.values() for value in numbers.values() if value is not None]
        assert all(0 <= value <= 1 for value in values), values
        return "accepted"


STUDY: dict[str, Any] = {
    "name": "mine",
    "dataset": {"name": "coco", "label": "mine", "root": "data"},
    "split": {"family": "imported", "percents": [50], "folds": [1]},
    "input": {"min_size_train": [84, 108], "max_size_train": 120, "min_size_test": 96, "max_size_test": 128},
    "training": {"steps": 4, "labelled_batch_size": 1, "unlabelled_batch_size": 1, "lr": 0.001},
    "networks": {"mask_rcnn": {"backend": "torchvision", "options": {"backbone": "small"}}},
    "methods": {"supervised": {}, "pais": {"options": {"alpha": 2.0}}},
}


class Lists(Trial):
    """Import splits from mutated lists of images."""

    def __init__(self, folder: Path) -> None:
        """Prepare a dataset of images whose ids and names differ."""
        super().__init__(folder)
        write_coco(self.root)
        self.results = folder / "results"
        coco.Dataset(coco.Options(), self.root).prepare(self.results / "datasets" / "mine", "mine")
        self.study = folder / "mine.yaml"
        self.study.write_text(yaml.safe_dump({**STUDY, "dataset": {**STUDY["dataset"], "root": str(self.root)}}))
        self.out = self.results / "splits"

    def run(self, seed: int) -> str:
        """Run the list of a seed: lines, a JSON list, or an annotation file."""
        rng = random.Random(seed)
        if rng.random() < 0.5:
            content, name = mutate_lines(rng.choice((["30"], ["5", "30"], ["a.png"], ["b.png", "30"])), rng), "list.txt"
        else:
            content, name = mutate(rng, rng.choice(([30], [5, 30], ["a.png"], VALID))), "list.json"
        path = self.root / name
        path.write_bytes(content)
        arguments = Namespace(study=str(self.study), file=path, results=self.results, percent=50.0, fold=1)
        return self.attempt(lambda: self._import(arguments, content))

    def _import(self, arguments: Namespace, content: bytes) -> str:
        import_split.run(arguments)
        (path,) = [path for path in self.out.rglob("*.json") if path.is_file()]
        labelled = json.loads(path.read_text())["ids"]
        if arguments.file.suffix == ".json":
            listed = json.loads(content)
            count = len(listed["images"] if isinstance(listed, dict) else listed)
        else:
            count = len(content.decode("utf-8-sig").split())
        assert len(labelled) == count and set(labelled) <= {30, 5}
        return "accepted"


class Studies(Trial):
    """Load mutated studies."""

    names_a_remedy = False

    def run(self, seed: int) -> str:
        """Run the study of a seed."""
        rng = random.Random(seed)
        valid = rng.choice((STUDY, yaml.safe_load(study_path(rng.choice(("demo", "coco", "ablation"))).read_text())))
        text = yaml.safe_dump(mutate_nodes(valid, rng), allow_unicode=rng.random() < 0.5).encode(errors="replace")
        if rng.random() < 0.3:
            text = mutate_bytes(text, rng)
        path = self.root / "study.yaml"
        path.write_bytes(text)
        return self.attempt(lambda: self._load(path, text))

    def _load(self, path: Path, text: bytes) -> str:
        study, content = load_study(path), yaml.safe_load(text)
        for key in ("networks", "methods"):
            asked = {str(label) for label, value in (content.get(key) or {}).items() if value is not None}
            assert asked <= set(getattr(study, key)), f"{key} of the file are lost"
        return "accepted"


class Streets(Trial):
    """Prepare mutated trees of Cityscapes."""

    CLASSES = (24, 25, 26, 27, 28, 31, 32, 33)
    """Labels of the eight classes with instances."""

    def __init__(self, folder: Path) -> None:
        """Draw a small tree."""
        super().__init__(folder)
        self.valid = draw_tree(folder / "valid", train=2, val=1, size=32)

    def run(self, seed: int) -> str:
        """Run the tree of a seed: a file is mutated, removed or moved."""
        rng = random.Random(seed)
        shutil.rmtree(self.root)
        shutil.copytree(self.valid, self.root)
        for _ in range(rng.choice((0, 1, 1, 2))):
            path = rng.choice(sorted(path for path in self.root.rglob("*") if path.is_file()))
            kind = rng.choice(("bytes", "nodes", "remove", "rename", "pixel", "swap"))
            if kind == "remove":
                path.unlink()
            elif kind == "rename":
                path.rename(path.with_name(path.name.replace("_", rng.choice(("-", "__", " ")), 1)))
            elif kind == "swap":
                shutil.copy(rng.choice(sorted(self.valid.rglob("*.png"))), path)
            elif kind == "nodes" and path.suffix == ".json" and (original := self._original(path)).exists():
                path.write_bytes(mutate(rng, json.loads(original.read_text())))
            elif kind == "pixel" and path.name.endswith("instanceIds.png") and self._original(path).exists():
                values = np.array(Image.open(self._original(path)))
                values[rng.randrange(32), rng.randrange(64)] = rng.choice((0, 24, 26000, 26123, 34000, 65535))
                Image.fromarray(values).save(path)
            else:
                path.write_bytes(mutate_bytes(path.read_bytes(), rng))
        return self.attempt(lambda: self._prepare(repair=seed % 2 == 1))

    def _original(self, path: Path) -> Path:
        """Return the sound file that a file was copied from; none where it was renamed."""
        return self.valid / path.relative_to(self.root)

    def _prepare(self, repair: bool) -> str:
        cityscapes.Dataset(cityscapes.Options(complete=False), self.root).prepare(self.out, "mine", repair)
        for subset in ("train", "val"):
            store = Store.open(self.out, subset)
            for image_id in store.image_ids:
                photo = store.path(image_id)
                folder = self.root / "gtFine" / subset / photo.parent.name
                instances = folder / photo.name.replace("leftImg8bit", "gtFine_instanceIds")
                if instances.exists():
                    values = np.unique(np.array(Image.open(instances)))
                    labels = np.where(values < 1000, values, values // 1000)
                    things = np.isin(labels, self.CLASSES)
                    assert len(store.annotations(image_id)) == things.sum(), instances
        return "repaired" if (self.out / "repaired.json").exists() else "accepted"


TRIALS: dict[str, type[Trial]] = {
    "annotations": Annotations,
    "images": Images,
    "results": Results,
    "lists": Lists,
    "studies": Studies,
    "streets": Streets,
}
"""Every kind of input."""
