"""What do all splits of a COCO-sized dataset cost, beside one pair of annotation files of the usual recipe?

python benchmarks/splits.py FOLDER [--source FAMILY=PATH ...]

FOLDER gets a generated annotation file and its store, or has them from an earlier call; about 2 GB. A family that looks
its splits up needs its published file. s4m_cityscapes has two of these percents and one fold, and is drawn from 2,975
images that bear the names of its lists.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np

from pais_bench import plugins, splits
from pais_bench.split_choice import SplitChoice
from pais_bench.store import Part, Store, write_store
from pais_bench.types import BenchError

PERCENTS, FOLDS = (1, 2, 5, 10), (1, 2, 3, 4, 5)
CITYSCAPES = "s4m_cityscapes"
CITYSCAPES_IMAGES = 2_975


def main(folder: Path, sources: dict[str, Path]) -> None:
    """Print seconds and MB of both ways."""
    annotations = folder / "instances.json"
    if not (folder / "store").exists():
        _prepare(annotations, folder)
    store = Store.open(folder / "store", "train")
    out = folder / "splits"
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    for family in plugins.names("families"):
        started, written, pool, asked = time.perf_counter(), 0, store, (PERCENTS, FOLDS)
        if family == CITYSCAPES and family in sources:
            pool, asked = _cityscapes(folder / "cityscapes", sources[family]), ((5, 10), (1,))
        try:
            for percent in asked[0]:
                for fold in asked[1]:
                    choice = SplitChoice(family=family, percent=percent, fold=fold)
                    split = splits.draw_split(pool, "coco", choice, sources.get(family))
                    splits.write_split(splits.split_path(out, "coco", choice), split)
                    written += 1
        except BenchError as error:
            print(f"{family}: left out after {written}: {error}")
            continue
        print(f"{family}: {written} splits in {time.perf_counter() - started:.1f} s")
    files = [path.stat().st_size for path in out.rglob("*.json")]
    print(f"all: {len(files)} splits in {time.perf_counter() - begun:.1f} s, {sum(files) / 1e6:.1f} MB")
    seconds, size = _usual(annotations, folder / "usual")
    print(f"usual recipe: 1 pair in {seconds:.1f} s, {size / 1e6:.0f} MB")


def _prepare(annotations: Path, folder: Path) -> None:
    import coco_sized

    folder.mkdir(parents=True, exist_ok=True)
    if not annotations.is_file():
        coco_sized.write(annotations)
    content = json.loads(annotations.read_bytes())
    lists = {key: content[key] for key in ("images", "annotations", "categories")}
    write_store(folder / "store", "coco", {"train": Part(str(annotations), folder, **lists)})


def _cityscapes(folder: Path, lists: Path) -> Store:
    """Write a store of Cityscapes' size: the names of all four lists, and made-up ones."""
    lines = {line.strip() for path in lists.glob("*.txt") for line in path.open(encoding="utf-8")}
    names = sorted(line.removesuffix("_gtFine_instanceIds.png") for line in lines)
    names += [f"nowhere_{number:06d}_000019" for number in range(CITYSCAPES_IMAGES - len(names))]
    images = [
        {"id": number, "file_name": f"{name}_leftImg8bit.png", "height": 1024, "width": 2048}
        for number, name in enumerate(names)
    ]
    part = Part("generated", folder, images, [], [{"id": 1, "name": "car"}])
    write_store(folder, "cityscapes", {"train": part})
    return Store.open(folder, "train")


def _usual(annotations: Path, out: Path) -> tuple[float, int]:
    """Read all records, filter them by a drawn set of images, and write both sides: 10 %, fold 1."""
    out.mkdir(exist_ok=True)
    begun = time.perf_counter()
    content = json.loads(annotations.read_bytes())
    images = content["images"]
    rng = np.random.RandomState(1)
    labelled = set(rng.choice(range(len(images)), size=int(0.1 * len(images)), replace=False).tolist())
    size = 0
    for name, wanted in (("labelled", True), ("unlabelled", False)):
        chosen = [image for place, image in enumerate(images) if (place in labelled) == wanted]
        ids = {image["id"] for image in chosen}
        notes = [note for note in content["annotations"] if note["image_id"] in ids]
        path = out / f"{name}.json"
        with path.open("w", encoding="utf-8") as file:
            json.dump({**content, "images": chosen, "annotations": notes}, file)
        size += path.stat().st_size
    return time.perf_counter() - begun, size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", action="append", default=[], metavar="FAMILY=PATH")
    words = parser.parse_args()
    main(words.folder, {family: Path(path) for family, _, path in (one.partition("=") for one in words.source)})
