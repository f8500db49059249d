"""Check that the labelled images are those of the literature, and the laws of every family."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import image_pool

from pais_bench import plugins
from pais_bench.annotations.store import Objects
from pais_bench.errors import BenchError
from pais_bench.splits.draw import draw
from pais_bench.splits.family import ImagePool, LabelledSet
from pais_bench.splits.split import digest

COCO, CITYSCAPES = image_pool(range(118_287)), image_pool(range(2_975))
FILTERED = 117_266
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
# Digests of the sets of mmdetection's script at fold 1, of seed 1 in the published file, and of the sorted file names.
MMDET = ["fe9c5f38668cacf4", "4a9df1a4be47b5a9", "2e7a177dee61d13d", "1b18fae2ce0bd19f"]
UNBIASED = ["5cce92b4a3c97897", "d0e6a91c80a2ba03", "1cad270f995eb58a", "5145592aa557ffee"]
S4M = ["26e0a0a44b71a826", "8b6fbd8279ced351", "56395e68c774ed5f", "48ae0ef153bc2fe0"]
STRATIFIED = "097341f8f8f9aad5"
SEEDED = ("soft_teacher", "mmdet", "stratified")
PUBLISHED = {
    "unbiased_teacher": "COCO_supervision.txt",
    "s4m_cityscapes": "perc_5.txt",
    "coco_fractions": "1_32/labeled.txt",
    "ade20k_fractions": "1_32/labeled.txt",
}
"""The file of each family that is read for its percent in PERCENT."""
PERCENT = {"unbiased_teacher": 5, "s4m_cityscapes": 5, "coco_fractions": 3.125, "ade20k_fractions": 3.125}


@pytest.fixture(scope="session")
def supervision(shared_data: Path) -> Path:
    return shared_data / "splits" / "unbiased_teacher" / "COCO_supervision.txt"


@pytest.fixture(scope="session")
def lists(shared_data: Path) -> Path:
    return shared_data / "splits" / "s4m_cityscapes"


def annotated(count: int = FILTERED, images: int = 118_287) -> ImagePool:
    """Return COCO's number of images in random order, of which the first count by id are annotated."""
    ids = np.random.RandomState(0).permutation(images)
    objects = Objects(np.arange(images), np.ones(images, dtype=np.int64), np.arange(images) >= count)
    return ImagePool(ids.tolist(), str, lambda: objects)


def cityscapes(lists: Path) -> ImagePool:
    """Return the images that the four files list, under the file names of Cityscapes."""
    names = sorted({line for path in lists.glob("*.txt") for line in path.read_text().split()})
    files = [name.replace("gtFine_instanceIds", "leftImg8bit") for name in names]
    return image_pool(range(100, 100 + len(files)), name=lambda image_id: files[image_id - 100])


def test_these_tests_cover_every_family() -> None:
    assert set(plugins.names("families")) == {*SEEDED, *PUBLISHED, "imported"}


@pytest.mark.parametrize("fold", DIGESTS)
def test_soft_teacher_on_coco(fold: int) -> None:
    """Compare positions in instances_train2017.json with Soft Teacher's script, seed = fold, no offset."""
    drawn = [draw("soft_teacher", COCO, percent, fold).ids for percent in PERCENTS]
    assert tuple(map(len, drawn)) == SIZES
    assert all(tuple(ids[:5]) == DRAWN[fold] for ids in drawn)
    assert tuple(digest(ids)[:16] for ids in drawn) == DIGESTS[fold]


def test_soft_teacher_on_cityscapes() -> None:
    """Compare positions in instancesonly_filtered_gtFine_train.json with Noisy Boundaries' script, seed 1."""
    drawn = [draw("soft_teacher", CITYSCAPES, percent, 1).ids for percent in (5, 10, 20, 30)]
    assert [len(ids) for ids in drawn] == [148, 297, 595, 892]
    assert drawn[0][:5] == [2155, 756, 2246, 1036, 748]
    expected = ["fbddb9e454ef0ff6", "2a43460be946608f", "66789267381f1e53", "944350b3ed457bca"]
    assert [digest(ids)[:16] for ids in drawn] == expected


def test_soft_teacher_draws_ids_in_the_order_of_the_pool() -> None:
    ids = [7 * position for position in CITYSCAPES.ids]
    drawn = draw("soft_teacher", image_pool(ids), 5, 1).ids
    assert drawn[:3] == [7 * 2155, 7 * 756, 7 * 2246]
    assert set(drawn) != set(draw("soft_teacher", image_pool(ids[::-1]), 5, 1).ids)


def test_mmdet_on_coco() -> None:
    """Compare with mmdetection's script on positions: np.random.seed(fold), choice with replacement, set."""
    drawn = {(fold, p): draw("mmdet", COCO, p, fold) for fold in DIGESTS for p in PERCENTS}
    ranges = dict(zip(PERCENTS, ((1174, 1175), (2329, 2346), (5756, 5772), (11234, 11285)), strict=True))
    for percent, (least, most) in ranges.items():
        sizes = [len(drawn[fold, percent].ids) for fold in DIGESTS]
        assert (min(sizes), max(sizes)) == (least, most)
    for (fold, percent), labelled in drawn.items():
        np.random.seed(fold)
        expected = set(np.random.choice(range(118_287), size=int(percent / 100.0 * 118_287)).tolist())
        assert set(labelled.ids) == expected
    assert [digest(drawn[1, p].ids)[:16] for p in PERCENTS] == MMDET
    assert not set(drawn[1, 1].ids) & set(draw("soft_teacher", COCO, 1, 1).ids)
    assert drawn[1, 10].note and "with replacement" in drawn[1, 10].note and "9.5" in drawn[1, 10].note


def test_unbiased_teacher_on_coco(supervision: Path) -> None:
    coco = annotated()
    drawn = [draw("unbiased_teacher", coco, percent, 1, supervision) for percent in PERCENTS]
    assert [len(labelled.ids) for labelled in drawn] == [1172, 2345, 5863, 11726]
    assert {labelled.pool for labelled in drawn} == {FILTERED}
    # The first images by id are the annotated ones here, so that an id is its position in the filtered list.
    table = json.loads(supervision.read_text())
    assert [list(labelled.ids) for labelled in drawn] == [table[f"{percent}.0"]["1"] for percent in PERCENTS]
    assert [digest(labelled.ids)[:16] for labelled in drawn] == UNBIASED
    assert len(set(drawn[0].ids) & set(drawn[2].ids)) == 68, "published splits are not nested"
    assert {labelled.source_sha256 for labelled in drawn} == {
        "3dc88c1fee5676d3da717a4a2a357e5e590d9bd7c94e2feadc60d43d70c4401d"
    }
    for percent, count in ((0.01, 11), (0.1, 117), (0.5, 586)):
        assert len(draw("unbiased_teacher", coco, percent, 9, supervision).ids) == count


def test_unbiased_teacher_counts_by_image_id_without_crowds(supervision: Path) -> None:
    """Leave out images with crowds alone, as detectron2's list does: here those of an even id below 2042."""
    images = np.arange(118_287)
    crowd = (images % 2 == 0) & (images < 2042)
    objects = Objects(images, np.ones_like(images), crowd)
    drawn = draw("unbiased_teacher", ImagePool(images[::-1].tolist(), str, lambda: objects), 1, 0, supervision)
    positions = np.array(json.loads(supervision.read_text())["1.0"]["0"])
    assert list(drawn.ids) == images[~crowd][positions].tolist()


def test_s4m_on_cityscapes(lists: Path) -> None:
    images = cityscapes(lists)
    drawn = [draw("s4m_cityscapes", images, percent, 1, lists) for percent in (5, 10, 20, 30)]
    assert [len(labelled.ids) for labelled in drawn] == [144, 296, 592, 888]
    assert len(set(drawn[0].ids) & set(drawn[1].ids)) == 23
    assert images.name(drawn[0].ids[0]) == "bremen_000041_000019_leftImg8bit.png"
    names = [json.dumps(sorted(images.name(image_id) for image_id in labelled.ids)) for labelled in drawn]
    assert [hashlib.sha256(text.encode()).hexdigest()[:16] for text in names] == S4M


REFUSED: list[tuple[str, Callable[[], ImagePool], float, int, str]] = [
    ("unbiased_teacher", annotated, 3, 1, r"split\.percents: .* no 3 %; choose one of 0\.01, 0\.1, 0\.5, 1, 2, 5, 10"),
    ("unbiased_teacher", annotated, 1, 10, r"split\.folds: .* no seed 10; choose one of 0, 1, 2"),
    ("unbiased_teacher", lambda: annotated(FILTERED - 1), 1, 1, "117266 images .* but this dataset has 117265"),
    ("s4m_cityscapes", lambda: CITYSCAPES, 1, 1, r"split\.percents: s4m_cityscapes has no 1 %; .* 5, 10, 20, 30"),
    ("s4m_cityscapes", lambda: CITYSCAPES, 5, 2, r"split\.folds: s4m_cityscapes has no fold 2"),
    ("s4m_cityscapes", lambda: CITYSCAPES, 5, 1, "144 of its 144 images are not in this dataset, the first: bremen_"),
]


@pytest.mark.parametrize(("family", "pool", "percent", "fold", "message"), REFUSED)
def test_unpublished_splits_are_refused(
    family: str, pool: Callable[[], ImagePool], percent: float, fold: int, message: str, supervision: Path, lists: Path
) -> None:
    source = supervision if family == "unbiased_teacher" else lists
    with pytest.raises(BenchError, match=message):
        draw(family, pool(), percent, fold, source)


@pytest.mark.parametrize("family", PUBLISHED)
def test_missing_and_other_files_are_refused(family: str, tmp_path: Path) -> None:
    percent, path = PERCENT[family], tmp_path / PUBLISHED[family]
    with pytest.raises(BenchError, match=rf"split\.source: missing; family '{family}' needs .*\.txt"):
        draw(family, CITYSCAPES, percent, 1)
    source = path if family == "unbiased_teacher" else tmp_path
    with pytest.raises(BenchError, match=rf"{path.name}: cannot be read \(No such file.*let split\.source name"):
        draw(family, CITYSCAPES, percent, 1, source)
    path.parent.mkdir(exist_ok=True)
    path.write_text('{"5.0": {"1": [1]}}')
    with pytest.raises(BenchError, match=rf"{path.name}: not the published file \(sha256 .* instead of"):
        draw(family, CITYSCAPES, percent, 1, source)


@pytest.mark.parametrize("name", ["coco_fractions", "ade20k_fractions"])
def test_a_list_of_a_fraction_is_matched_by_stem(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a list of the published form; those of the papers are checked against their sha256 alone."""
    lines = ["train2017/7.jpg masks/7.png", "train2017/30.jpg masks/30.png", ""]
    (tmp_path / "1_512").mkdir()
    path = tmp_path / "1_512" / "labeled.txt"
    path.write_text("\n".join(lines))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(plugins.load("families", name), "SHA256", {512: sha256})
    pool = image_pool(range(40), name="folder/{}.png".format)
    for percent in (0.1953125, 0.195312):  # exact, and as a path has it
        assert draw(name, pool, percent, 1, tmp_path) == LabelledSet([7, 30], 40, source_sha256=sha256)
    with pytest.raises(BenchError, match=r"1 of its 2 images are not in this dataset, the first: 30; choose another"):
        draw(name, image_pool(range(30)), 0.1953125, 1, tmp_path)
    with pytest.raises(BenchError, match=rf"split\.percents: {name} has no 1 %; choose one of 0\.1953125 \(1/512\)$"):
        draw(name, pool, 1, 1, tmp_path)
    with pytest.raises(BenchError, match=rf"split\.folds: {name} has no fold 2; its files are one fold, choose 1"):
        draw(name, pool, 0.1953125, 2, tmp_path)


def test_the_fractions_have_the_percents_of_their_lists() -> None:
    for name, parts in (("coco_fractions", [512, 256, 128, 64, 32]), ("ade20k_fractions", [128, 64, 32, 16, 8])):
        assert list(plugins.load("families", name).SHA256) == parts


@pytest.mark.parametrize(
    ("family", "message"),
    [
        *((family, rf"split\.source: family '{family}' reads no file; remove the key") for family in SEEDED),
        (
            "stac",
            r"split\.family: .*no 'stac'; choose one of ade20k_fractions, coco_fractions, imported, .*stratified",
        ),
        ("imported", r"`pais-bench import-split STUDY FILE --percent 2\.5 --fold 3`"),
    ],
)
def test_families_that_cannot_be_drawn_are_refused(family: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=message):
        draw(family, COCO, 2.5, 3, tmp_path if family in SEEDED else None)


IDS = st.lists(st.integers(0, 10**12), min_size=1, max_size=60, unique=True)


@pytest.mark.parametrize("family", SEEDED)
@settings(max_examples=30, deadline=None)
@given(ids=IDS, percent=st.floats(0.1, 100), fold=st.integers(0, 2**32 - 1))
def test_laws_of_a_drawn_split(family: str, ids: list[int], percent: float, fold: int) -> None:
    """Check that ids are unique, of the pool, as many as specified and repeatable, or the smallest percent is named."""
    pool, count = image_pool(ids, classes=4, empty=0.2), int(percent / 100.0 * len(ids))
    if not count:
        with pytest.raises(BenchError, match="is no image; the smallest percent that gives one is"):
            draw(family, pool, percent, fold)
        return
    drawn = draw(family, pool, percent, fold)
    assert len(set(drawn.ids)) == len(drawn.ids) and set(drawn.ids) <= set(ids)
    assert drawn.pool == len(ids)
    assert len(drawn.ids) <= count if family == "mmdet" else len(drawn.ids) == count
    assert drawn == draw(family, pool, percent, fold)
    assert json.dumps(drawn.ids), "plain integers"


@pytest.mark.parametrize("family", SEEDED)
def test_percents_of_a_fold_are_nested_and_folds_differ(family: str) -> None:
    pool = image_pool(range(2_975), classes=8, empty=0.05)
    sets = [set(draw(family, pool, percent, 3).ids) for percent in (1, 2.5, 5, 10, 100)]
    assert all(less < more for less, more in zip(sets, sets[1:], strict=False))
    folds = [frozenset(draw(family, pool, 5, fold).ids) for fold in range(5)]
    assert len(set(folds)) == 5


@pytest.mark.parametrize("family", SEEDED)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 12, 30, 49, 89, 99, 100, 101, 999, 1200, 2975, 118_287])
def test_empty_split_names_the_smallest_percent(family: str, size: int) -> None:
    with pytest.raises(BenchError, match=f"of a pool of {size} images is no image") as caught:
        draw(family, image_pool(range(size)), 50 / size, 1)
    percent = float(str(caught.value).rsplit(" ", 1)[1])
    assert len(draw(family, image_pool(range(size)), percent, 1).ids) == 1
    assert 100 / size <= percent <= 112 / size, "the smallest, to two digits"


def presence(pool: ImagePool, drawn: LabelledSet) -> np.ndarray:
    """Return the number of drawn images with each class, and without any."""
    objects, classes = pool.objects(), int(pool.objects().category_id.max())
    inside = np.isin(objects.image_id, drawn.ids)
    counts = np.bincount(objects.category_id[inside], minlength=classes + 1)[1:]
    return np.append(counts, len(drawn.ids) - len(np.unique(objects.image_id[inside])))


@pytest.mark.parametrize("fold", range(3))
def test_stratified_prefixes_have_every_class_in_proportion(fold: int) -> None:
    pool = image_pool(range(5_000), classes=30, empty=0.03)
    total = presence(pool, draw("stratified", pool, 100, fold))
    assert total.min() > 100
    for percent in (0.6, 1, 2, 5, 10, 33.3, 80):
        drawn = draw("stratified", pool, percent, fold)
        images, expected = presence(pool, drawn), total * len(drawn.ids) / 5_000
        assert np.abs(images - expected).max() < 2, percent
        assert images[:-1].min() >= 1, "every class, from 30 images on"


def test_stratified_draws_a_rare_class_first() -> None:
    ids = np.arange(1_000)
    objects = Objects(ids, np.where(ids == 713, 2, 1), np.zeros(1_000, dtype=bool))
    for fold in range(5):
        assert draw("stratified", ImagePool(ids.tolist(), str, lambda: objects), 0.2, fold).ids[0] == 713


def test_stratified_depends_on_neither_the_machine_nor_the_order_of_the_file() -> None:
    ids = np.random.RandomState(1).permutation(4_000)[:700].tolist()
    forward, backward = (image_pool(order, classes=5, empty=0.1) for order in (ids, ids[::-1]))
    assert draw("stratified", forward, 10, 1) == draw("stratified", backward, 10, 1)
    drawn = draw("stratified", image_pool(range(2_975), classes=8, empty=0.05), 10, 1)
    assert digest(drawn.ids)[:16] == STRATIFIED
