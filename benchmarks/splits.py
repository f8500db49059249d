"""Measure drawing all splits of a COCO-sized dataset, beside writing one pair of annotation files as papers do.

python benchmarks/splits.py FOLDER [--source FAMILY=PATH ...]

FOLDER gets a generated annotation file and its store, or has them from an earlier call; about 2 GB. A family that reads
its splits needs its published file. s4m_cityscapes has two of these percents and one fold, and is drawn from 2,975
images with the names of its lists.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np

from pais_bench import plugins
from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.errors import BenchError
from pais_bench.splits.draw import draw_split
from pais_bench.splits.split import split_path, write_split
from pais_bench.study.split import SplitChoice

PERCENTS, FOLDS = (1, 2, 5, 10), (1, 2, 3, 4, 5)
CITYSCAPES = "s4m_cityscapes"
CITYSCAPES_IMAGES = 2_975


def main(folder: Path, sources: dict[str, Path]) -> None:
    """Print the seconds and MB of both."""
    annotations = folder / "instances.json"
    if not (folder / "store").exists():
        _prepare(annotations, folder)
    store = Store.open(folder / "store", "train")
    out = folder / "splits"
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    for family in plugins.names("families"):
        start, written, pool, percents, folds = time.perf_counter(), 0, store, PERCENTS, FOLDS
        if family == CITYSCAPES and family in sources:
            pool, percents, folds = _cityscapes(folder / "cityscapes", sources[family]), (5, 10), (1,)
        try:
            for percent in percents:
                for fold in folds:
                    choice = SplitChoice(family=family, percent=percent, fold=fold)
                    split = draw_split(pool, "coco", choice, sources.get(family))
                    write_split(split_path(out, "coco", choice), split)
                    written += 1
        except BenchError as error:
            print(f"{family}: left out after {written}: {error}")
            continue
        print(f"{family}: {written} splits in {time.perf_counter() - start:.1f} s")
    files = [path.stat().st_size for path in out.rglob("*.json")]
    print(f"all: {len(files)} splits in {time.perf_counter() - begin:.1f} s, {sum(files) / 1e6:.1f} MB")
    seconds, size = _write_pair(annotations, folder / "pair")
    print(f"annotation files: 1 pair in {seconds:.1f} s, {size / 1e6:.0f} MB")


def _prepare(annotations: Path, folder: Path) -> None:
    import coco_sized

    folder.mkdir(parents=True, exist_ok=True)
    if not annotations.is_file():
        coco_sized.write(annotations)
    content = json.loads(annotations.read_bytes())
    lists = {key: content[key] for key in ("images", "annotations", "categories")}
    write_store(folder / "store", "coco", {"train": Subset(str(annotations), folder, **lists)})


def _cityscapes(folder: Path, lists: Path) -> Store:
    """Write a store of Cityscapes' size: the names of all four lists, and made-up ones."""
    lines = {line.strip() for path in lists.glob("*.txt") for line in path.open(encoding="utf-8")}
    names = sorted(line.removesuffix("_gtFine_instanceIds.png") for line in lines)
    names += [f"nowhere_{number:06d}_000019" for number in range(CITYSCAPES_IMAGES - len(names))]
    images = [
        {"id": number, "file_name": f"{name}_leftImg8bit.png", "height": 1024, "width": 2048}
        for number, name in enumerate(names)
    ]
    subset = Subset("generated", folder, images, [], [{"id": 1, "name": "car"}])
    write_store(folder, "cityscapes", {"train": subset})
    return Store.open(folder, "train")


def _write_pair(annotations: Path, out: Path) -> tuple[float, int]:
    """Read all records, and write those of labelled and of unlabelled images: 10 %, fold 1."""
    out.mkdir(exist_ok=True)
    begin = time.perf_counter()
    content = json.loads(annotations.read_bytes())
    images = content["images"]
    rng = np.random.RandomState(1)
    labelled = set(rng.choice(range(len(images)), size=int(0.1 * len(images)), replace=False).tolist())
    size = 0
    for name, is_labelled in (("labelled", True), ("unlabelled", False)):
        selected = [image for index, image in enumerate(images) if (index in labelled) == is_labelled]
        ids = {image["id"] for image in selected}
        anns = [ann for ann in content["annotations"] if ann["image_id"] in ids]
        path = out / f"{name}.json"
        with path.open("w", encoding="utf-8") as file:
            json.dump({**content, "images": selected, "annotations": anns}, file)
        size += path.stat().st_size
    return time.perf_counter() - begin, size


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", action="append", default=[], metavar="FAMILY=PATH")
    arguments = parser.parse_args()
    sources = dict(source.split("=", 1) for source in arguments.source)
    main(arguments.folder, {family: Path(path) for family, path in sources.items()})
