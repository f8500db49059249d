"""Is a split what it says? Which images a family draws is in test_families.py."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pais_bench import splits
from pais_bench.pools import Pool
from pais_bench.split_choice import SplitChoice
from pais_bench.store import Part, Store, write_store
from pais_bench.types import BenchError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store of 40 images whose ids are neither sorted nor dense."""
    ids = random.Random(0).sample(range(1000), 40)
    images = [{"id": number, "file_name": f"{number}.png", "height": 8, "width": 8} for number in ids]
    part = Part("file.json", tmp_path, images, [], [{"id": 1, "name": "one"}])
    write_store(tmp_path, "mine", {"train": part, "val": part})
    return Store.open(tmp_path, "train")


def choice(percent: float) -> SplitChoice:
    """Choose a percent of fold 2."""
    return SplitChoice(family="soft_teacher", percent=percent, fold=2)


def test_split_tells_what_it_is(store: Store, tmp_path: Path) -> None:
    split = splits.draw_split(store, "mine", choice(11))
    assert (split.dataset, split.family, split.percent, split.fold, split.pool) == ("mine", "soft_teacher", 11, 2, 40)
    assert len(split.ids) == 4
    assert split.effective_percent == 10
    assert list(split.ids) == sorted(splits.draw("soft_teacher", Pool.of(store), 11, 2).ids)
    assert split.store == store.digest
    assert "ids" not in split.summary()
    splits.write_split(tmp_path / "deep" / "split.json", split)
    assert splits.read_split(tmp_path / "deep" / "split.json") == split
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["split.json"]
    splits.check_split(split, store, choice(11))


def test_tampering_is_found(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    splits.write_split(path, splits.draw_split(store, "mine", choice(10)))
    content = json.loads(path.read_text())
    content["ids"][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"split\.json: its 4 ids do not have the sha256 .*`pais-bench split` again"):
        splits.read_split(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"ids": [1]}'])
def test_not_a_split(tmp_path: Path, content: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(BenchError, match=r"split\.json: not a split"):
        splits.read_split(path)


def test_missing_split(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such split; run `pais-bench split` first"):
        splits.read_split(tmp_path / "split.json")


def test_split_of_other_records(store: Store) -> None:
    split = splits.draw_split(store, "mine", choice(10)).model_copy(update={"store": "0" * 64})
    with pytest.raises(BenchError, match="drawn from records 00000000 of 'mine'.*run `pais-bench split` again"):
        splits.check_split(split, store, choice(10))
