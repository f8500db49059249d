"""Are the labelled images those of the literature, and is a split what it says?"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from pais_bench import splits
from pais_bench.config import SplitChoice
from pais_bench.store import Part, Store, write_store
from pais_bench.types import BenchError

COCO, CITYSCAPES = range(118_287), range(2_975)
PERCENTS = (1, 2, 5, 10)
SIZES = (1182, 2365, 5914, 11828)
DRAWN = {
    1: (105285, 107335, 49358, 65744, 101669),
    2: (50732, 104846, 84723, 53526, 109616),
    3: (52896, 111834, 21472, 4886, 86848),
    4: (909, 68942, 105360, 36552, 106943),
    5: (109242, 42571, 69389, 35409, 114293),
}
DIGESTS = {
    1: ("d40649435550e5d2", "74b244bb7b872c83", "a875af59432ce007", "c128944017daf8a8"),
    2: ("5d15345ffe0e5b6d", "5b82a8abeb9cce95", "217ef141afd4b3a7", "2c9f9a46cf09608f"),
    3: ("bdddce3d2051b56e", "b8e3f19f3c4db7f5", "e51d7f6dbfde57ff", "e6ffb868a9ee6f48"),
    4: ("2867b7dd4e171974", "954af0a50c5611a9", "f5ac81096d7257c0", "405a8b111b4930dd"),
    5: ("42683c13c1a24da6", "9e75264d12b86d3c", "dd15e233dca8d606", "4a1aef413287cefd"),
}


@pytest.mark.parametrize("fold", DIGESTS)
def test_coco_golden(fold: int) -> None:
    """Positions in instances_train2017.json that Soft Teacher's script draws with seed = fold and no offset."""
    drawn = [splits.draw("soft_teacher", COCO, percent, fold) for percent in PERCENTS]
    assert tuple(map(len, drawn)) == SIZES
    assert all(tuple(one[:5]) == DRAWN[fold] for one in drawn)
    assert tuple(splits.digest(one)[:16] for one in drawn) == DIGESTS[fold]


def test_coco_smallest_of_fold_1() -> None:
    assert sorted(splits.draw("soft_teacher", COCO, 1, 1))[:5] == [91, 142, 293, 439, 603]


def test_cityscapes_golden() -> None:
    """Positions in instancesonly_filtered_gtFine_train.json of Noisy Boundaries' script, seed 1."""
    drawn = [splits.draw("soft_teacher", CITYSCAPES, percent, 1) for percent in (5, 10, 20, 30)]
    assert [len(one) for one in drawn] == [148, 297, 595, 892]
    assert drawn[0][:5] == [2155, 756, 2246, 1036, 748]
    expected = ["fbddb9e454ef0ff6", "2a43460be946608f", "66789267381f1e53", "944350b3ed457bca"]
    assert [splits.digest(one)[:16] for one in drawn] == expected


def test_draws_ids_in_the_order_of_the_pool() -> None:
    ids = [7 * position for position in CITYSCAPES]
    drawn = splits.draw("soft_teacher", ids, 5, 1)
    assert drawn[:3] == [7 * 2155, 7 * 756, 7 * 2246]
    assert set(drawn) != set(splits.draw("soft_teacher", ids[::-1], 5, 1))


def test_percents_of_a_fold_are_nested_and_repeat() -> None:
    drawn = [splits.draw("soft_teacher", CITYSCAPES, percent, 3) for percent in (5, 10, 10, 100)]
    assert set(drawn[0]) < set(drawn[1])
    assert drawn[1] == drawn[2]
    assert sorted(drawn[3]) == list(CITYSCAPES)


def test_unknown_family() -> None:
    with pytest.raises(BenchError, match="no 'stac'; choose one of soft_teacher"):
        splits.draw("stac", COCO, 1, 1)


@pytest.mark.parametrize("pool", [1, 2, 3, 7, 12, 30, 49, 89, 99, 100, 101, 999, 1200, 2975, 118_287])
def test_empty_split_names_the_smallest_percent(pool: int) -> None:
    with pytest.raises(BenchError, match=f"of a pool of {pool} images is no image") as caught:
        splits.draw("soft_teacher", range(pool), 50 / pool, 1)
    told = float(str(caught.value).rsplit(" ", 1)[1])
    assert len(splits.draw("soft_teacher", range(pool), told, 1)) == 1
    assert 100 / pool <= told <= 112 / pool, "the smallest, to two digits"


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
    assert list(split.ids) == sorted(splits.draw("soft_teacher", store.image_ids, 11, 2))
    assert split.store == store.digest
    assert "ids" not in split.summary()
    splits.write_split(tmp_path / "deep" / "split.json", split)
    assert splits.read_split(tmp_path / "deep" / "split.json") == split
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["split.json"]
    splits.check_split(split, store)


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
        splits.check_split(split, store)
