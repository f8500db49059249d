"""Check panoptic files, maps, the merge of predictions, and panoptic quality against oracles and other tools."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as official
from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
from coco_random import of_images
from PIL import Image
from tiny import KNET, study, write_study

from pais_bench.annotations.panoptic import rasterise, things_alone, write_map
from pais_bench.annotations.rle import decode_mask, describe_mask
from pais_bench.annotations.sources import identify
from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.datasets import cityscapes, coco, shapes
from pais_bench.errors import BenchError
from pais_bench.evaluation.coco.average_precision import evaluate_fast
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.evaluation.evaluate import evaluate, require
from pais_bench.evaluation.metrics import panoptic
from pais_bench.evaluation.panoptic_merge import merge
from pais_bench.splits.label_noise import sample_label_noise
from pais_bench.study.load import load_study
from pais_bench.study.split import LabelNoise
from pais_bench.whole_file import write_text

PLAIN = "16e074c78f2770f8fd45ae7d2537ea0cf510ca85d03a7e1da0d257211bf3814c"
"""The sha256 of the records of six plain shapes."""
CLASSES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b", "isthing": 1}, {"id": 3, "name": "c", "isthing": 0}]
Segments = dict[int, int]
"""The class of every segment of an image, by id."""


def regions(image: int, ids: list[list[int]], classes: Segments, crowd: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """Return an annotation for each segment of a map."""
    return [
        {"id": 100 * image + number, "image_id": image, "category_id": label, "iscrowd": int(number in crowd)}
        | {"segment_id": number, **describe_mask(np.array(ids) == number)}
        for number, label in classes.items()
    ]


def as_records(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the objects of annotations as COCO results of score 1."""
    keys = ("image_id", "category_id", "segmentation", "bbox")
    return [{**{key: one[key] for key in keys}, "score": 1.0} for one in annotations if not one["iscrowd"]]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    """Prepare shapes with stuff, once."""
    folder = tmp_path_factory.mktemp("stuff")
    shapes.Dataset(shapes.Options(train=60, val=12, size=64, stuff=True), None).prepare(folder, "stuff")
    return {name: Store.open(folder, name) for name in ("train", "val")}


@pytest.fixture
def root(stores: dict[str, Store], tmp_path: Path) -> Path:
    """Write the shapes in COCO's panoptic format."""
    root = tmp_path / "root"
    for name, store in stores.items():
        images, maps = root / f"{name}2017", root / "annotations" / f"panoptic_{name}2017"
        images.mkdir(parents=True)
        maps.mkdir(parents=True)
        content = {**store.coco_dict(), "annotations": []}
        for image in content["images"]:
            (images / image["file_name"]).symlink_to(store.path(image["id"]))
            drawn = rasterise(store.annotations(image["id"]), store.size(image["id"]))
            colours = 1 + 7919 * np.arange(len(drawn.segments) + 1)  # to use all three channels
            colours[0] = 0
            for segment in drawn.segments:
                segment["id"] = int(colours[segment["id"]])
            write_map(maps / f"{image['id']}.png", colours[drawn.ids].astype(np.int32))
            record = {"image_id": image["id"], "file_name": f"{image['id']}.png", "segments_info": drawn.segments}
            content["annotations"].append(record)
        maps.with_suffix(".json").write_text(json.dumps(content))
    return root


def options(**changes: Any) -> coco.Options:
    panoptic_files = {
        f"{name}_{key}": f"annotations/panoptic_{name}2017{ending}"
        for name in ("train", "val")
        for key, ending in (("annotations", ".json"), ("segments", ""))
    }
    return coco.Options(**{**panoptic_files, **changes})


def test_quality_is_that_of_the_oracle() -> None:
    """The numbers are those of panopticapi and of cityscapesscripts on two images by hand."""
    truth_a = [[1, 1, 3, 3, 2, 2], [1, 1, 3, 3, 2, 2], [3, 3, 3, 0, 0, 2], [3, 3, 4, 4, 0, 0]]
    found_a = [[1, 1, 5, 5, 5, 2], [1, 1, 5, 5, 5, 2], [1, 5, 5, 2, 2, 2], [5, 5, 6, 6, 7, 7]]
    truth_b, found_b = [[1, 1, 1, 3], [1, 1, 1, 3], [3, 3, 3, 3]], [[1, 1, 4, 4], [5, 5, 4, 4], [5, 5, 5, 5]]
    content = {
        "images": [{"id": 1, "height": 4, "width": 6}, {"id": 2, "height": 3, "width": 4}],
        "annotations": regions(1, truth_a, {1: 1, 2: 1, 3: 3, 4: 2}, crowd=(4,)) + regions(2, truth_b, {1: 2, 3: 3}),
        "categories": CLASSES,
    }
    records = as_records(regions(1, found_a, {1: 1, 2: 1, 5: 3, 6: 2, 7: 1}) + regions(2, found_b, {1: 1, 4: 2, 5: 3}))
    numbers = panoptic.Metric().evaluate(content, records)
    expected = {"PQ": 0.307879, "SQ": 0.475758, "RQ": 0.433333, "PQth": 0.28, "PQst": 0.363636}
    assert numbers["panoptic"] == pytest.approx(expected, abs=1e-6)
    assert numbers["panoptic_per_class"] == pytest.approx({"a": 0.56, "b": 0, "c": 0.363636}, abs=1e-6)
    alone = panoptic.Metric().evaluate(of_images(content, 1), records)
    assert alone["panoptic"]["PQ"] == pytest.approx(0.713636, abs=1e-6)
    assert alone["panoptic_per_class"] == {"a": pytest.approx(0.7), "b": None, "c": pytest.approx(0.727273, abs=1e-6)}
    nothing = panoptic.Metric().evaluate({**content, "annotations": []}, [])
    assert set(nothing["panoptic"].values()) == {None}
    assert panoptic.Metric().evaluate(content, [])["panoptic"]["PQ"] == 0


def test_the_merge_is_that_of_k_net() -> None:
    """The masks are probabilities; the oracle numbers a segment by its class + 1000 times its place."""
    a, b = (
        np.array([[0.9, 0.8, 0.3, 0.1], [0.9, 0.7, 0.2, 0.1]]),
        np.array([[0.6, 0.7, 0.6, 0.2], [0.2, 0.6, 0.7, 0.1]]),
    )
    stuff = np.array([[0.1, 0.2, 0.4, 0.9], [0.1, 0.3, 0.6, 0.9]])
    classes = [1, 0, 0]
    ids, instances = merge([stuff, a, b], [0.9, 0.8, 0.5], classes, things={0}, size=(2, 4))
    assert instances == [0, 1]
    numbered = np.array([classes[instances[k - 1]] + 1000 * (k - 1) for k in ids.ravel()]).reshape(ids.shape)
    assert numbered.tolist() == [[1000, 1000, 1, 1], [1000, 1000, 1, 1]]


def test_the_merge_drops_weak_things_and_hidden_instances_and_joins_stuff() -> None:
    row = np.arange(10)
    masks = [row < 4, (row >= 2) & (row < 7), row == 7, row == 8, row == 8]  # the second keeps 3 of 5 pixels
    arguments = [mask[None] for mask in masks], [0.9, 0.8, 0.29, 0.2, 0.1]
    ids, instances = merge(*arguments, classes=[5, 6, 6, 5, 6], things={6}, size=(1, 10))
    assert ids.tolist() == [[1, 1, 1, 1, 2, 2, 2, 0, 1, 0]] and instances == [0, 1]
    masks[1] = (row >= 2) & (row < 6)  # 2 of 4
    ids, instances = merge([mask[None] for mask in masks], arguments[1], [5, 6, 6, 5, 6], {6}, (1, 10))
    assert ids.tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 1, 0]] and instances == [0]


@pytest.mark.parametrize("binary", [False, True])
def test_the_merge_is_an_argmax_followed_by_the_two_thresholds(binary: bool) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        count, size = int(rng.integers(0, 9)), (5, 7)
        masks = rng.random((count, *size)).astype(np.float32) * (rng.random((count, *size)) < 0.6)
        masks = masks > 0.3 if binary else masks
        scores = np.sort(rng.random(count).round(1))[::-1].astype(np.float32)
        classes = rng.integers(0, 4, count).tolist()
        ids, instances = merge(masks, scores.tolist(), classes, things={0, 1}, size=size)
        products = np.concatenate([np.zeros((1, *size), dtype=np.float32), scores[:, None, None] * masks])
        owner, segments = products.argmax(axis=0) - 1, {}
        expected = np.zeros(size, dtype=int)
        for index, (score, name) in enumerate(zip(scores.tolist(), classes, strict=True)):
            kept, own = (owner == index).sum(), (masks[index] >= 0.5).sum()
            if kept and own and kept / own >= 0.6 and (score >= 0.3 or name > 1):
                key = name if name > 1 else 10 + index
                expected[owner == index] = segments.setdefault(key, len(segments) + 1)
        assert (ids == expected).all() and len(instances) == len(segments)


def test_the_truth_merged_is_the_truth_and_ap_counts_things_alone(stores: dict[str, Store]) -> None:
    content = stores["val"].coco_dict()
    records = as_records(content["annotations"])
    numbers = evaluate(["coco", "panoptic"], content, records)
    assert set(numbers["panoptic"].values()) == {1.0}
    assert numbers["segm"]["AP"] == pytest.approx(1) and set(numbers["per_class"]) == set(shapes.CLASSES)
    assert set(numbers["panoptic_per_class"]) == {*shapes.CLASSES, *shapes.STUFF}
    worse = [{**record, "score": 0.5 + 0.01 * index} for index, record in enumerate(records) if index % 3]
    things = things_alone(content)
    classes = {category["id"] for category in things["categories"]}
    alone = evaluate(["coco"], things, [record for record in worse if record["category_id"] in classes])
    measured = evaluate(["coco"], content, worse)
    assert measured == alone and 0 < alone["segm"]["AP"] < 1
    fast = evaluate_fast(GroundTruth.of(content), worse)
    assert fast["segm"]["AP"] == pytest.approx(measured["segm"]["AP"], abs=1e-12)


def test_stuff_is_one_region_that_overlaps_nothing(stores: dict[str, Store]) -> None:
    store, seen = stores["train"], set()
    for image_id in store.image_ids:
        annotations, size = store.annotations(image_id), store.size(image_id)
        covered = sum(decode_mask(one["segmentation"], size).astype(int) for one in annotations)
        assert covered.max() == 1 and covered.mean() > 0.5, "clutter alone is void"
        stuff = [one["category_id"] for one in annotations if not store.isthing[store.label_of[one["category_id"]]]]
        assert len(set(stuff)) == len(stuff) > 0
        seen.add(tuple(stuff))
    assert seen == {(9,), (10,), (9, 10)}


def test_the_manifest_names_stuff_and_plain_shapes_have_none(stores: dict[str, Store], tmp_path: Path) -> None:
    folder = stores["val"]._location[0]
    classes = json.loads((folder / "dataset.json").read_text())["classes"]
    assert [one["name"] for one in classes if one.get("isthing") == 0] == ["sky", "ground"]
    assert stores["val"].isthing == (True,) * 8 + (False,) * 2
    shapes.Dataset(shapes.Options(train=40, val=6), None).prepare(tmp_path, "shapes")
    plain = json.loads((tmp_path / "dataset.json").read_text())
    assert not any("isthing" in one for one in plain["classes"]) and Store.open(tmp_path, "val").isthing == (True,) * 8
    assert plain["subsets"]["val"]["sha256"] == PLAIN, "the records of plain shapes changed"
    with pytest.raises(BenchError, match="metrics/panoptic: no class of the dataset is stuff"):
        require(["coco", "panoptic"], plain["classes"])
    require(["coco", "panoptic"], classes)


def test_label_noise_is_of_things(stores: dict[str, Store]) -> None:
    store = stores["train"]
    noise = LabelNoise(class_flip=90, missing=50)
    noisy = sample_label_noise(noise, store.image_ids, store)
    ids = {one["id"] for number in store.image_ids for one in store.annotations(number) if one["category_id"] > 8}
    assert noisy.dropped and noisy.flipped and set(noisy.flipped.values()) <= set(range(1, 9))
    assert ids.isdisjoint(noisy.dropped) and ids.isdisjoint(noisy.flipped)


def test_a_file_that_is_read_and_written_is_the_same(root: Path, tmp_path: Path) -> None:
    (root / "more").mkdir()
    Image.new("RGB", (6, 4)).save(root / "more" / "1.png")
    image = {"id": 1, "file_name": "1.png", "height": 4, "width": 6}
    (root / "more.json").write_text(json.dumps({"images": [image], "categories": CLASSES[:2]}))
    more = {"unlabelled_annotations": "more.json", "unlabelled_images": "more"}
    dataset = coco.Dataset(options(**more), root)
    dataset.prepare(tmp_path / "out", "mine")
    assert Store.open(tmp_path / "out", "unlabelled").isthing == (True,) * 8 + (False,) * 2
    before, known = identify(dataset.sources(), {})
    for name in ("train", "val"):
        store = Store.open(tmp_path / "out", name)
        written = json.loads((root / f"annotations/panoptic_{name}2017.json").read_text())
        for record in written["annotations"]:
            number, png = record["image_id"], root / f"annotations/panoptic_{name}2017" / record["file_name"]
            drawn = rasterise(store.annotations(number), store.size(number))
            write_map(tmp_path / "again.png", drawn.ids)
            assert (tmp_path / "again.png").read_bytes() == png.read_bytes()
            assert drawn.segments == record["segments_info"]
            assert f"annotations/panoptic_{name}2017/{png.name}" in known
    Image.new("RGB", (64, 64)).save(png)
    assert identify(dataset.sources(), known)[0] != before, "an edited PNG is another dataset"


def test_segments_of_one_stuff_class_are_joined_with_a_note(root: Path, tmp_path: Path) -> None:
    path, lines = root / "annotations/panoptic_val2017.json", []
    content = json.loads(path.read_text())
    record = next(one for one in content["annotations"] if len(one["segments_info"]) > 1)
    first, second = record["segments_info"][:2]  # sky and ground
    second["category_id"] = first["category_id"]
    path.write_text(json.dumps(content))
    coco.Dataset(options(), root).prepare(tmp_path / "out", "mine", progress=lines.append)
    note = "1 segments of a stuff class that their image has already, which are joined with that one; the first: image "
    assert f"{path}: {note}{record['image_id']}" in lines
    stuff = [
        one for one in Store.open(tmp_path / "out", "val").annotations(record["image_id"]) if one["category_id"] > 8
    ]
    assert [one["area"] for one in stuff] == [first["area"] + second["area"]]


Change = Callable[[dict[str, Any], Path, Path], Any]
FAULTS: dict[str, Change] = {
    "folder not named": lambda content, png, path: {"train_segments": None},
    "missing folder": lambda content, png, path: {"train_segments": "maps"},
    "missing PNG": lambda content, png, path: png.unlink(),
    "unreadable PNG": lambda content, png, path: png.write_bytes(png.read_bytes()[:60]),
    "grey or palette": lambda content, png, path: Image.open(png).convert("L").save(png),
    "another size": lambda content, png, path: Image.new("RGB", (8, 6)).save(png),
    "colour without a segment": lambda content, png, path: content["annotations"][0]["segments_info"].pop(),
    "segment without a pixel": lambda content, png, path: content["annotations"][0]["segments_info"].append(
        {"id": 265, "category_id": 1}
    ),
    "segment of 0, or no number": lambda content, png, path: segment(content, id=0),
    "segment twice": lambda content, png, path: content["annotations"][0]["segments_info"].append(
        content["annotations"][0]["segments_info"][0]
    ),
    "unknown class": lambda content, png, path: segment(content, category_id=99),
    "iscrowd": lambda content, png, path: segment(content, iscrowd=2),
    "no segments": lambda content, png, path: content["annotations"][0].pop("segments_info"),
    "image without an annotation": lambda content, png, path: content["annotations"].pop(0),
    "two annotations of an image": lambda content, png, path: content["annotations"].insert(
        2, content["annotations"][0]
    ),
    "annotation of no image": lambda content, png, path: content["annotations"][0].update(image_id=900),
}
ROOT = Path(__file__).parent.parent
SECTION = (ROOT / "docs/reference/faults.md").read_text().split("\n## Panoptic files\n")[1].split("\n## ")[0]
ROWS = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| ")][2:]
"""The title and the message of every fault: the table is what the messages are compared with."""


def segment(content: dict[str, Any], **values: Any) -> None:
    """Change the first segment of the first image."""
    content["annotations"][0]["segments_info"][0].update(values)


def test_the_documentation_lists_these_faults() -> None:
    assert [title for title, _ in ROWS] == list(FAULTS)


@pytest.mark.parametrize(("title", "message"), ROWS, ids=[row[0] for row in ROWS])
def test_a_fault_is_refused_in_these_words(title: str, message: str, root: Path, tmp_path: Path) -> None:
    path, png = root / "annotations/panoptic_train2017.json", root / "annotations/panoptic_train2017/1.png"
    content = json.loads(path.read_text())
    segments = content["annotations"][0]["segments_info"]
    last, first, (height, width) = segments[-1]["id"], segments[0]["id"], np.asarray(Image.open(png)).shape[:2]
    changed = FAULTS[title](content, png, path)
    path.write_text(json.dumps(content))
    chosen = changed if isinstance(changed, dict) and "train_segments" in changed else {}
    with pytest.raises(BenchError) as raised:
        coco.Dataset(options(**chosen), root).prepare(tmp_path / "out", "mine")
    names = {"J": str(path), "D": str(root / "maps" if title == "missing folder" else png.parent), "P": str(png)}
    words = message.replace("segment 5 ", f"segment {first} ").replace("is 6 x 4", f"is {width} x {height}")
    if title == "colour without a segment":
        words = words.replace("(9, 1, 0)", f"({last & 255}, {last >> 8 & 255}, {last >> 16})").replace("265", str(last))
    words = re.sub(r"\b[JDP]\b", lambda name: names[name[0]], words)  # last: a path may hold any of these numbers
    start, _, end = words.partition("...")
    assert str(raised.value).startswith(start) and str(raised.value).endswith(end)
    assert not (tmp_path / "out").exists()


def test_cityscapes_is_what_its_converter_makes(few_streets: Path, tmp_path: Path) -> None:
    cityscapes.Dataset(cityscapes.Options(complete=False, stuff=True), few_streets).prepare(tmp_path / "out", "mine")
    with contextlib.redirect_stdout(io.StringIO()):
        convert2panoptic(str(few_streets / "gtFine"), str(tmp_path), setNames=["train", "val"])
    for name in ("train", "val"):
        store = Store.open(tmp_path / "out", name)
        converted = json.loads((tmp_path / f"cityscapes_panoptic_{name}.json").read_text())
        expected = sorted((one["id"], one["name"], bool(one["isthing"])) for one in converted["categories"])
        assert [(*one, thing) for one, thing in zip(store.categories, store.isthing, strict=True)] == expected
        assert len(store.image_ids) == len(converted["annotations"])
        for number, record in zip(store.image_ids, converted["annotations"], strict=True):
            drawn = rasterise(store.annotations(number), store.size(number))
            assert drawn.segments == sorted(record["segments_info"], key=lambda segment: segment["id"])
            png = tmp_path / f"cityscapes_panoptic_{name}" / record["file_name"]
            assert (official.rgb2id(np.asarray(Image.open(png))) == drawn.ids).all()
        assert {segment["category_id"] for segment in drawn.segments} >= {7, 11, 23}
    content = store.coco_dict()
    numbers = evaluate(["coco", "cityscapes", "panoptic"], content, as_records(content["annotations"]))
    assert numbers["panoptic"]["PQ"] == 1 and numbers["cityscapes_per_class"].keys() == numbers["per_class"].keys()


def test_a_study_with_stuff_is_trained_measured_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = study(metrics=["coco", "panoptic"])
    values["methods"] = {"pais": {"options": {"score_threshold": 0.0, "mask_iou_threshold": 0.0}}}
    values["networks"] = {"knet": {"backend": "torchvision", "options": KNET}}
    values["dataset"] = {"name": "shapes", "options": {"train": 20, "val": 3, "size": 64, "stuff": True}}
    path, results = tmp_path / "tiny.yaml", tmp_path / "results"
    path.write_text(yaml.safe_dump(values))
    common, split = [str(path), "--results", str(results)], ["--percent", "10", "--fold", "1"]
    of_run = [*common, *split, "--network", "knet", "--method", "pais"]
    on_cpu = ["--accelerator", "cpu"]
    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump({**values, "dataset": {**values["dataset"], "options": {"train": 20, "val": 3}}}))
    assert main(["prepare", str(plain), "--results", str(results)]) == 2, "before hours of training, not after them"
    assert "no class of the dataset is stuff" in capsys.readouterr().err
    assert main(["plan", *common]) == 0, "the dataset of other options is prepared again before it counts"
    assert main(["plan", str(plain), "--results", str(results)]) == 2, "nothing is stuff, and no run is trained yet"
    assert "no class of the dataset is stuff" in capsys.readouterr().err
    commands = [["prepare", *common], ["split", *common, *split], ["train", *of_run, *on_cpu]]
    for command in (*commands, ["predict", *of_run, *on_cpu]):
        assert main(command) == 0, command
    store = Store.open(results / "datasets" / "shapes", "val")
    (predictions,) = results.rglob("predictions.json")
    found = json.loads(predictions.read_text())
    assert {one["category_id"] for one in found} <= set(range(1, 11))
    (folder,) = (written.parent for written in results.rglob("run.json"))
    classes = json.loads((folder / "run.json").read_text())["classes"]
    assert [one["name"] for one in classes if one.get("isthing") == 0] == ["sky", "ground"]
    images = store.path(store.image_ids[0]).parent
    assert main(["predict-folder", str(folder), str(images), "--out", str(tmp_path / "same.json"), *on_cpu]) == 0
    assert len(json.loads((tmp_path / "same.json").read_text())) == len(found) > 0
    truth = as_records(store.coco_dict()["annotations"])  # after four steps nothing is found
    predictions.write_text(json.dumps(truth[::2] + found))
    assert main(["evaluate", *of_run]) == 0
    assert main(["export-panoptic", *of_run, "--out", str(tmp_path / "maps")]) == 0
    (written,) = results.rglob("metrics.json")
    metrics = json.loads(written.read_text())
    assert set(metrics["panoptic"]) == {"PQ", "SQ", "RQ", "PQth", "PQst"} and "sky" not in metrics["per_class"]
    exported = json.loads((tmp_path / "maps" / "panoptic_val.json").read_text())
    (tmp_path / "true").mkdir()
    pairs = []
    for record in exported["annotations"]:
        drawn = rasterise(store.annotations(record["image_id"]), store.size(record["image_id"]))
        write_map(tmp_path / "true" / record["file_name"], drawn.ids)
        pairs.append(({**record, "segments_info": drawn.segments}, record))
    categories = {one["id"]: one for one in exported["categories"]}
    folders = str(tmp_path / "true"), str(tmp_path / "maps" / "panoptic_val")
    statistics = official.pq_compute_single_core(0, pairs, *folders, categories)
    quality = metrics["panoptic"]["PQ"]
    assert statistics.pq_average(categories, None)[0]["pq"] == pytest.approx(quality) and 0.1 < quality < 0.9


def test_annotations_that_overlap_are_no_panoptic_map() -> None:
    pixels = np.ones((3, 4), dtype=bool)
    both = [{"id": number, "image_id": 5, "category_id": 1, "iscrowd": 0, **describe_mask(pixels)} for number in (7, 8)]
    with pytest.raises(BenchError, match="image 5: annotations 7 and 8 overlap, and a panoptic map has one segment"):
        rasterise(both, (3, 4))


def test_predictions_that_are_no_results_are_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, results = write_study(tmp_path), ["--results", str(tmp_path / "results")]
    assert main(["prepare", str(path), *results]) == 0
    run = load_study(path).runs()[0]
    words = ["--percent", "10", "--fold", "1", "--network", run.network.label, "--method", run.method.label]
    words = ["export-panoptic", str(path), *results, *words, "--out", str(tmp_path / "maps")]
    predictions = tmp_path / "results" / run.folder / "predictions.json"
    for content, fault in ((None, "missing"), ("{}", "holds a dict"), ("[1]", "record 0 is a int")):
        if content is not None:
            write_text(predictions, content)
        capsys.readouterr()
        assert main(words) == 2
        assert capsys.readouterr().err.startswith(f"pais-bench export-panoptic: error: {predictions}: {fault}")
    assert not (tmp_path / "maps").exists()
