"""Check what a split records and how it is read back; test_families.py checks the images that families draw."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.errors import BenchError
from pais_bench.splits.draw import draw, draw_split
from pais_bench.splits.family import ImagePool
from pais_bench.splits.split import check_split, read_split, write_split
from pais_bench.study.split import SplitChoice


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of 40 images whose ids are neither sorted nor dense."""
    ids = random.Random(0).sample(range(1000), 40)
    images = [{"id": number, "file_name": f"{number}.png", "height": 8, "width": 8} for number in ids]
    annotations = [
        {"id": number, "image_id": number, "category_id": 1, "iscrowd": int(number != ids[0]), "area": 4}
        | {"bbox": [0, 0, 2, 2], "segmentation": {"size": [8, 8], "counts": [0, 2, 6, 2, 54]}}
        for number in ids
    ]
    subset = Subset("file.json", tmp_path, images, annotations, [{"id": 1, "name": "car"}])
    write_store(tmp_path, "mine", {"train": subset, "val": subset})
    return Store.open(tmp_path, "train")


def choice(percent: float) -> SplitChoice:
    """Choose a percent of fold 2."""
    return SplitChoice(family="soft_teacher", percent=percent, fold=2)


def test_a_split_records_how_it_was_drawn(store: Store, tmp_path: Path) -> None:
    split = draw_split(store, "mine", choice(11))
    assert (split.dataset, split.family, split.percent, split.fold, split.pool) == ("mine", "soft_teacher", 11, 2, 40)
    assert len(split.ids) == 4
    assert split.effective_percent == 10
    assert list(split.ids) == sorted(draw("soft_teacher", ImagePool.of(store), 11, 2).ids)
    assert split.store == store.digest
    assert "ids" not in split.summary()
    write_split(tmp_path / "deep" / "split.json", split)
    assert read_split(tmp_path / "deep" / "split.json") == split
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["split.json"]
    check_split(split, store, choice(11))


def test_tampering_is_found(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    write_split(path, draw_split(store, "mine", choice(10)))
    content = json.loads(path.read_text())
    content["ids"][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"split\.json: its 4 ids do not have the sha256 .*`pais-bench split` again"):
        read_split(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"ids": [1]}'])
def test_not_a_split(tmp_path: Path, content: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(BenchError, match=r"split\.json: not a split"):
        read_split(path)


def test_missing_split(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such split; run `pais-bench split` first"):
        read_split(tmp_path / "split.json")


def test_split_of_other_records(store: Store) -> None:
    split = draw_split(store, "mine", choice(10)).model_copy(update={"store": "0" * 64})
    with pytest.raises(BenchError, match="drawn from records 00000000 of 'mine'.*run `pais-bench split` again"):
        check_split(split, store, choice(10))
