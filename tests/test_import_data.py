"""Check that `import-data` keeps every object of every format, and that `prepare` reads what it writes."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools import mask as rle

from pais_bench import plugins
from pais_bench.annotations.rle import decode_mask, describe_mask
from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.converters.convert import find_format

H, W = 40, 60
Masks = dict[str, list[tuple[str, np.ndarray]]]
"""The objects of each photo: class and mask bool[H,W]."""


def scene() -> Masks:
    """Return two training photos and one validation photo; an object has a hole, one has two parts."""
    masks = np.zeros((5, H, W), dtype=bool)
    masks[0, 5:25, 4:30] = True
    masks[0, 10:15, 10:20] = False
    masks[1, 30:36, 2:9] = masks[1, 30:36, 20:29] = True
    masks[2, 0:9, 50:60] = True
    masks[3, 12:30, 12:40] = True
    masks[4, 3:9, 3:9] = True
    return {
        "train/a": [("leaf", masks[0]), ("stem", masks[1])],
        "train/b": [("leaf", masks[2])],
        "val/c": [("stem", masks[3]), ("stem", masks[4])],
    }


def save_photo(path: Path, seed: int = 0, turned: bool = False) -> None:
    """Write a photo of noise; a turned one is stored on its side, with an EXIF orientation that says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (W, H, 3) if turned else (H, W, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    Image.fromarray(pixels).save(path, exif=exif)


def save_mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_masks(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        save_photo(root / key / "images" / f"{seed}.jpg", seed, turned=seed == 1)
        for number, (_, mask) in enumerate(objects):
            save_mask(root / key / "masks" / f"m{number}.png", mask.astype(np.uint8) * 255)
    return {key: [("object", mask) for _, mask in objects] for key, objects in scene().items()}


def write_label_images(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        subset, name = key.split("/")
        save_photo(root / subset / "images" / f"{name}.jpg", seed, turned=seed == 1)
        values = np.zeros((H, W), dtype=np.uint16)
        for number, (_, mask) in enumerate(objects):
            values[mask] = 700 * number + 3
        save_mask(root / subset / "masks" / f"{name}.{'png' if seed else 'tif'}", values)
    return {key: [("object", mask) for _, mask in objects] for key, objects in scene().items()}


def write_voc(root: Path) -> Masks:
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for subset in ("train", "val"):
        names = [key.split("/")[1] for key in scene() if key.startswith(subset)]
        (root / "ImageSets" / "Segmentation" / f"{subset}.txt").write_text("\n".join(names) + "\n")
    renamed = {"leaf": ("bird", 3), "stem": ("tvmonitor", 20)}
    for seed, (key, objects) in enumerate(scene().items()):
        name = key.split("/")[1]
        save_photo(root / "JPEGImages" / f"{name}.jpg", seed, turned=seed == 1)
        numbers, classes = np.full((2, H, W), 0, dtype=np.uint8)
        numbers[-1] = classes[-1] = 255
        for number, (class_name, mask) in enumerate(objects, start=1):
            numbers[mask], classes[mask] = number, renamed[class_name][1]
        for folder, values in (("SegmentationObject", numbers), ("SegmentationClass", classes)):
            (root / folder).mkdir(exist_ok=True)
            image = Image.fromarray(values).convert("P")
            image.putpalette([value for k in range(256) for value in (k, 255 - k, k // 2)])
            image.save(root / folder / f"{name}.png")
    return {key: [(renamed[name][0], mask) for name, mask in objects] for key, objects in scene().items()}


def corners(mask: np.ndarray) -> list[float]:
    """Return the rectangle around a mask."""
    x, y, w, h = rle.toBbox(rle.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist()
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def filled(mask: np.ndarray) -> np.ndarray:
    return decode_mask([corners(mask)], (H, W))


def write_yolo(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        save_photo(root / "images" / f"{key}.jpg", seed, turned=seed == 1)
        lines = []
        for class_name, mask in objects:
            points = np.array(corners(mask)) / np.tile([W, H], 4)
            lines.append(" ".join([{"leaf": "0", "stem": "2"}[class_name], *map(repr, points.tolist())]))
        (root / "labels" / key).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels" / f"{key}.txt").write_text("\n".join(lines) + "\n")
    content = {"path": "../elsewhere", "train": "../images/train", "val": "images/val", "names": {0: "leaf", 2: "stem"}}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return {key: [(name, filled(mask)) for name, mask in objects] for key, objects in scene().items()}


def shape(label: str, kind: str, points: Any, **keys: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **keys}


def write_labelme(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        save_photo(root / f"{key}.jpg", seed, turned=seed == 1)
        shapes = []
        for number, (label, mask) in enumerate(objects):
            x0, y0, x1, y1 = np.array(corners(mask))[[0, 1, 4, 5]].astype(int).tolist()
            buffer = io.BytesIO()
            Image.fromarray(mask[y0:y1, x0:x1]).save(buffer, "PNG")
            text = base64.b64encode(buffer.getvalue()).decode()
            shapes.append(shape(label, "mask", [[x0, y0], [x1 - 1, y1 - 1]], mask=text, group_id=number))
        shapes[0:0] = [shape("leaf", "point", [[3, 3]]), shape("leaf", "linestrip", [[3, 3], [9, 9], [9, 3]])]
        name = key.split("/")[1]
        content = {"imagePath": f"..\\photos\\{name}.jpg", "imageHeight": H, "imageWidth": W, "shapes": shapes}
        (root / f"{key}.json").write_text(json.dumps(content))
    return scene()


def write_via(root: Path) -> Masks:
    """Write a project of version 2 for training, and an export of version 1 for validation."""
    for seed, (key, objects) in enumerate(scene().items()):
        name = key.split("/")[1]
        save_photo(root / f"{key}.jpg", seed, turned=seed == 1)
        regions: list[Any] = [region("point", cx=3, cy=3), region("rect", x=1, y=1, width=5, height=5)] * (seed == 0)
        for label, mask in objects:
            x, y = np.reshape(corners(mask), (-1, 2)).T.tolist()
            regions.append(region("polygon", {"Class": label}, all_points_x=x, all_points_y=y))
        if seed < 2:
            path, record = root / "train" / "project.json", {"filename": f"{name}.jpg", "regions": regions}
            content = json.loads(path.read_text()) if seed else {"_via_settings": {}, "_via_img_metadata": {}}
            content["_via_img_metadata"][f"{name}.jpg99"] = record
            path.write_text(json.dumps(content))
        else:
            numbered = {str(number): one for number, one in enumerate(regions)}
            content = {"c.jpg99": {"filename": "c.jpg", "regions": numbered}, "d": {"filename": "d.jpg", "regions": {}}}
            (root / "val" / "regions.json").write_text(json.dumps(content))
    return {key: [(name, filled(mask)) for name, mask in objects] for key, objects in scene().items()}


def region(kind: str, attributes: dict[str, Any] | None = None, **numbers: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": kind, **numbers}, "region_attributes": attributes or {}}


def write_cvat(root: Path) -> Masks:
    lines = ['<?xml version="1.0"?><annotations><version>1.1</version>']
    for seed, (key, objects) in enumerate(scene().items()):
        save_photo(root / "images" / f"{key}.jpg", seed, turned=seed == 1)
        subset, name = key.split("/")
        lines.append(f'<image id="{seed}" name="{key}.jpg" subset="{subset}" width="{W}" height="{H}">')
        lines.append('<box label="leaf" xtl="1" ytl="1" xbr="5" ybr="9"></box>' * (seed == 0))
        for label, mask in objects:
            x0, y0, x1, y1 = np.array(corners(mask))[[0, 1, 4, 5]].astype(int).tolist()
            row = np.concatenate(([0], mask[y0:y1, x0:x1].ravel().astype(int), [2]))
            edges = np.flatnonzero(np.diff(row))
            runs = np.diff(np.concatenate(([0], edges)) if row[1] == 0 else np.concatenate(([0, 0], edges[1:])))
            place = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
            lines.append(f'<mask label="{label}" rle="{", ".join(map(str, runs))}" {place}></mask>')
        lines.append("</image>")
    lines.append(f'<image id="9" name="more.jpg" width="{W}" height="{H}"></image></annotations>')
    (root / "annotations.xml").write_text("\n".join(lines))
    return scene()


def write_supervisely(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        subset, name = key.split("/")
        save_photo(root / subset / "img" / f"{name}.jpg", seed, turned=seed == 1)
        geometries: list[Any] = [{"classTitle": "leaf", "geometryType": "point", "points": {"exterior": [[1, 1]]}}]
        for label, mask in objects:
            x0, y0, x1, y1 = np.array(corners(mask))[[0, 1, 4, 5]].astype(int).tolist()
            buffer = io.BytesIO()
            Image.fromarray((mask[y0:y1, x0:x1] * 255).astype(np.uint8)).save(buffer, "PNG")
            data = base64.b64encode(zlib.compress(buffer.getvalue())).decode()
            bitmap = {"data": data, "origin": [x0, y0]}
            geometries.append({"classTitle": label, "geometryType": "bitmap", "bitmap": bitmap})
        save_mask(root / subset / "masks_machine" / f"{name}.png", np.ones((H, W), dtype=np.uint8))  # a picture of it
        (root / subset / "ann").mkdir(exist_ok=True)
        content = {"size": {"height": H, "width": W}, "tags": [], "objects": geometries}
        (root / subset / "ann" / f"{name}.jpg.json").write_text(json.dumps(content))
    (root / "meta.json").write_text('{"classes": [{"title": "leaf"}, {"title": "stem"}]}')
    return scene()


def write_label_studio(root: Path) -> Masks:
    """Write brush masks, of an upload and of a local storage, a task that was skipped and one without an annotation."""
    tasks: dict[str, list[Any]] = {"train": [], "val": []}
    for seed, (key, objects) in enumerate(scene().items()):
        subset, name = key.split("/")
        save_photo(root / "photos" / f"{key}.jpg", seed, turned=seed == 1)
        results = [result("rectanglelabels", ["leaf"], x=1, y=1, width=5, height=5, rotation=0)] * (seed == 0)
        results += [result("brushlabels", [label], format="rle", rle=pack(mask)) for label, mask in objects]
        image = f"/data/upload/3/0123abcd-{name}.jpg" if seed else f"/data/local-files/?d=photos/{subset}/{name}.jpg"
        task = {"id": seed, "data": {"image": image}, "annotations": [{"result": results, "was_cancelled": False}]}
        tasks[subset].append(task)
    tasks["val"] += [{"id": 8, "data": {"image": "x.jpg"}, "annotations": [{"result": [], "was_cancelled": True}]}]
    tasks["val"] += [{"id": 9, "data": {"image": "y.jpg"}, "annotations": []}]
    for subset, listed in tasks.items():
        (root / f"{subset}.json").write_text(json.dumps(listed))
    return scene()


def write_darwin(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        save_photo(root / "images" / f"{key}.jpg", seed, turned=seed == 1)
        annotations: list[dict[str, Any]] = [
            {"name": name, "polygon": {"paths": [[{"x": x, "y": y} for x, y in path] for path in outlines(mask)]}}
            for name, mask in objects
        ]
        subset, name = key.split("/")
        slots = [{"type": "image", "slot_name": "0", "width": W, "height": H}]
        item = {"name": f"{name}.jpg", "path": f"/{subset}", "slots": slots}
        save_json(root / "annotations" / f"{key}.json", {"item": item, "annotations": annotations})
    return scene()


def outlines(mask: np.ndarray) -> list[list[tuple[float, float]]]:
    """Return rectangles of which an odd number has each pixel of a mask: its box, and what of it has no pixel."""
    x0, y0, x1, y1 = (int(side) for side in np.array(corners(mask))[[0, 1, 4, 5]])
    hole = np.zeros_like(mask)
    hole[y0:y1, x0:x1] = ~mask[y0:y1, x0:x1]
    boxes = [corners(one) for one in ([mask, hole] if hole.any() else [mask])]
    return [[(box[k], box[k + 1]) for k in range(0, 8, 2)] for box in boxes]


def write_sa1b(root: Path) -> Masks:
    for seed, (key, objects) in enumerate(scene().items()):
        save_photo(root / f"{key}.jpg", seed, turned=seed == 1)
        image = {"image_id": seed, "file_name": f"{Path(key).name}.jpg", "height": H, "width": W}
        annotations = [
            {"segmentation": describe_mask(mask)["segmentation"], "predicted_iou": 0.9, "stability_score": 0.9}
            for _, mask in objects
        ]
        save_json(root / f"{key}.json", {"image": image, "annotations": annotations})
    return {key: [("object", mask) for _, mask in objects] for key, objects in scene().items()}


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_rle_csv(root: Path) -> Masks:
    """Write photos by name without suffix, their runs by rows, one that is absent, and a sample submission."""
    for subset in ("train", "val"):
        lines = ["id,annotation,width,height,cell_type"]
        for seed, (key, objects) in enumerate(scene().items()):
            if not key.startswith(subset):
                continue
            save_photo(root / subset / f"{key.split('/')[1]}.png", seed)
            lines += [f"{key.split('/')[1]},{runs(mask.T)},{W},{H},{label}" for label, mask in objects]
        (root / f"{subset}.csv").write_text("\n".join([*lines, "absent,1 3,60,40,leaf"]) + "\n")
    (root / "sample_submission.csv").write_text("id,predicted\na,1 1\n")
    return scene()


def runs(mask: np.ndarray) -> str:
    """Return the runs of a mask, whose pixels are counted from 1 by columns; those of its transpose are by rows."""
    edges = np.flatnonzero(np.diff(np.pad(mask.T.ravel().astype(int), 1)))
    return " ".join(f"{start + 1} {end - start}" for start, end in edges.reshape(-1, 2).tolist())


def result(kind: str, labels: list[str], **value: Any) -> dict[str, Any]:
    value |= {kind if kind.endswith("labels") else "labels": labels}
    size = {"original_width": W, "original_height": H, "image_rotation": 0}
    return {"id": str(value), "type": kind, "from_name": "label", "to_name": "image", "value": value, **size}


def pack(mask: np.ndarray) -> list[int]:
    """Pack a mask as the opacity of a brush, with runs of 16 bits, and values that stand alone as literals."""
    values = np.zeros((*mask.shape, 4), dtype=np.uint8)
    values[..., 3] = mask * 255
    flat = values.ravel()
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    bits = f"{flat.size:032b}{7:05b}" + f"{15:04b}" * 4
    for start, end in itertools.pairwise(edges):
        bits += f"{int(end - start > 1)}00{end - start - 1:016b}{flat[start]:08b}"
    return [int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8)]


WRITERS: dict[str, Callable[[Path], Masks]] = {
    "masks": write_masks,
    "label_images": write_label_images,
    "voc": write_voc,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "via": write_via,
    "cvat": write_cvat,
    "supervisely": write_supervisely,
    "label_studio": write_label_studio,
    "rle_csv": write_rle_csv,
    "darwin": write_darwin,
    "sa1b": write_sa1b,
}


def convert(folder: Path, out: Path, *options: str) -> None:
    assert main(["import-data", str(folder), "--out", str(out), *options]) == 0


def read(path: Path) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Return class and mask of the objects of each photo, by file_name."""
    content = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    found: dict[str, list[tuple[str, np.ndarray]]] = {one["file_name"]: [] for one in content["images"]}
    images = {one["id"]: one for one in content["images"]}
    for one in content["annotations"]:
        image = images[one["image_id"]]
        mask = decode_mask(one["segmentation"], (image["height"], image["width"]))
        assert one["area"] == mask.sum() and one["iscrowd"] == 0
        found[image["file_name"]].append((names[one["category_id"]], mask))
    return found


def same(found: list[tuple[str, np.ndarray]], expected: list[tuple[str, np.ndarray]]) -> bool:
    return len(found) == len(expected) and all(
        name == other and np.array_equal(mask, truth)
        for (name, mask), (other, truth) in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize(("format_", "suffix"), [("labelme", ".json"), ("cvat", ".xml")])
def test_files_of_other_kinds_do_not_hide_labels(format_: str, suffix: str, tmp_path: Path) -> None:
    WRITERS[format_](tmp_path)
    (tmp_path / "0").mkdir()
    for number in range(30):
        (tmp_path / "0" / f"{number}{suffix}").write_text("<camera/>" if suffix == ".xml" else "{}")
    assert find_format(tmp_path) == format_


@pytest.mark.parametrize("format_", WRITERS)
def test_every_object_is_kept_and_prepare_reads_it(
    format_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "photos", tmp_path / "labels" / "ours.json"
    expected = WRITERS[format_](root)
    assert find_format(root) == format_
    convert(root, out)
    printed = capsys.readouterr().out
    assert sorted(path.name for path in out.parent.iterdir()) == ["ours-train.json", "ours-val.json"]
    first = {path: path.read_bytes() for path in out.parent.iterdir()}
    objects = {key: value for path in first for key, value in read(path).items()}
    assert all((root / name).is_file() for name in objects)
    for (_, found), truth in zip(sorted(objects.items()), expected.values(), strict=True):
        assert same(found, truth)
    assert "2 images, 3 objects" in printed and "1 images, 2 objects" in printed
    convert(root, out, "--force")
    assert {path: path.read_bytes() for path in out.parent.iterdir()} == first
    annotations = {f"{subset}_annotations": str(out.parent / f"ours-{subset}.json") for subset in ("train", "val")}
    coco = plugins.load("datasets", "coco")
    lines: list[str] = []
    dataset = coco.Dataset(coco.Options(**annotations, train_images=".", val_images="."), root)
    dataset.prepare(tmp_path / "data", "data", progress=lines.append)
    assert not [line for line in lines if not any(word in line for word in ("checking", "reading", "turned"))]
    assert Store.open(tmp_path / "data", "train").objects().image_id.tolist() == [1, 1, 2]


@pytest.mark.parametrize("format_", WRITERS)
def test_hidden_files_links_and_the_place_of_the_folder_change_nothing(
    format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "photos"
    WRITERS[format_](root)
    convert(root, tmp_path / "out.json")
    expected = read(tmp_path / "out-train.json")
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7 of macOS")
        for folder in ("__MACOSX", ".ipynb_checkpoints"):
            hidden = root / folder / path.relative_to(root)
            hidden.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, hidden)
        path.with_name(f"lost {path.name}").symlink_to(tmp_path / "nowhere")
    (root / "folder.json").mkdir()
    monkeypatch.chdir(root)
    convert(Path("."), tmp_path / "again.json")
    assert read(tmp_path / "again-train.json").keys() == expected.keys()
    linked = tmp_path / "beside" / "a folder"
    linked.parent.mkdir()
    linked.symlink_to(root)
    convert(linked.parent, tmp_path / "linked.json")
    found = read(tmp_path / "linked-train.json")
    assert all(same(found[f"a folder/{name}"], objects) for name, objects in expected.items())
    (root / "itself").symlink_to("itself")
    for name in ("train", "labels", "JPEGImages"):
        if (root / name).is_dir():
            (root / f"latest_{name}").symlink_to(root / name)  # read once all the same
    convert(root, tmp_path / "once.json")
    assert read(tmp_path / "once-train.json").keys() == expected.keys()


def write_shapes(root: Path, *shapes: dict[str, Any]) -> Path:
    """Write a photo and its Labelme file."""
    save_photo(root / "a.jpg")
    content = {"imagePath": "a.jpg", "imageHeight": H, "imageWidth": W, "shapes": shapes}
    (root / "a.json").write_text(json.dumps(content))
    return root


def test_shapes_of_labelme_keep_their_coordinates_and_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part = [[1.25, 2.5], [9.75, 2.5], [5.1, 11.3]]
    mask = np.ones((4, 6), dtype=bool)
    mask[1, 2] = False
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    png = base64.b64encode(buffer.getvalue()).decode()
    root = write_shapes(
        tmp_path / "root",
        shape("leaf", "polygon", part, group_id=1),
        shape("stem", "polygon", part, group_id=1),
        shape("leaf", "rectangle", [[20, 20], [30.5, 28]], group_id=1),
        shape("leaf", "polygon", part),
        shape("leaf", "circle", [[40, 20], [45, 20]]),
        shape("leaf", "mask", [[50, 30], [55, 33]], mask=png, group_id=2),
        shape("leaf", "rectangle", [[0, 30], [5, 35]], group_id=2),
    )
    convert(root, tmp_path / "out.json")
    assert "1 photos have shapes of one label and group_id, which are one object; where" in capsys.readouterr().out
    first, second, third, circle, mixed = json.loads((tmp_path / "out.json").read_text())["annotations"]
    flat = [value for point in part for value in point]
    assert first["segmentation"] == [flat, [20, 20, 30.5, 20, 30.5, 28, 20, 28]]
    assert second["segmentation"] == third["segmentation"] == [flat] and second["category_id"] == 2
    rows, columns = np.mgrid[:H, :W] + 0.5
    assert np.array_equal(decode_mask(circle["segmentation"], (H, W)), np.hypot(columns - 40, rows - 20) <= 5)
    expected = np.zeros((H, W), dtype=bool)
    expected[30:34, 50:56], expected[30:35, 0:5] = mask, True
    assert np.array_equal(decode_mask(mixed["segmentation"], (H, W)), expected)


def write_other_files(folder: Path) -> None:
    """Write JSON files of no format, more than a converter may pass over."""
    folder.mkdir()
    for number in range(25):
        (folder / f"{number}.json").write_text('{"camera": 1}')


def complain(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> str:
    """Return the one sentence of a conversion that fails, after which nothing is written."""
    out = folder.parent / "refused" / "out.json"
    assert main(["import-data", str(folder), "--out", str(out), *options]) == 2
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return capsys.readouterr().err.splitlines()[-1]


YOLO_FAULTS = {
    "9 0 0 1 0 1 1": "line 1: the class '9' is not among the names (0 to 2)",
    "0 0 0 1 0 1 30": "line 1: 30 is no fraction of the photo",
    "0 0 0 1 0 1 nan": "line 1: nan is no fraction",
    "0 0 0 1 0 1 1 1": "line 1: an odd number of coordinates",
    "0 0 0 1 0 1 x": "line 1: could not convert string to float: 'x'; give a class",
    "0 0.5 0.5 0.2 0.2": "1 boxes, which have no mask, the first: ",
}


@pytest.mark.parametrize("line", YOLO_FAULTS)
def test_a_faulty_line_of_yolo_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    write_yolo(root)
    for path in (root / "labels").rglob("*.txt"):
        path.write_text("")
    (root / "labels" / "train" / "a.txt").write_text(f"{line}\n")
    sentence = complain(capsys, root)
    assert YOLO_FAULTS[line] in sentence and str(root / "labels" / "train" / "a.txt") in sentence


@pytest.mark.parametrize(
    "format_", ["cvat", "darwin", "label_images", "label_studio", "labelme", "sa1b", "supervisely", "via"]
)
def test_labels_whose_photo_is_missing_are_left_out_and_counted(
    format_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = WRITERS[format_](tmp_path / "set")
    first, *others = sorted(path for path in (tmp_path / "set").rglob("*.jpg") if "train" in str(path))
    first.unlink()
    convert(tmp_path / "set", tmp_path / "out.json", "--format", format_)
    said = f"warning: left out: 1 of {1 + len(others)} labelled photos, which are missing, the first: "
    assert re.search(rf"{said}.*\b(a.jpg|a.tif: the photo of these labels) is missing; put it", capsys.readouterr().out)
    found = {**read(tmp_path / "out-train.json"), **read(tmp_path / "out-val.json")}
    assert {Path(name).name for name in found} == {path.name for path in others} | {"c.jpg"}
    for name, objects in found.items():
        (key,) = (key for key in masks if Path(name).stem == Path(key).stem)
        assert same(objects, masks[key])
    for path in others:
        path.unlink()
    sentence = complain(capsys, tmp_path / "set", "--format", format_)
    assert f"none of the {1 + len(others)} labelled photos is there; " in sentence


def test_photos_and_labels_that_do_not_match_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for format_, writer in WRITERS.items():
        writer(tmp_path / format_)
    renamed = (tmp_path / "yolo" / "images" / "train" / "b.jpg").rename(tmp_path / "yolo" / "images/train/other.jpg")
    sentence = complain(capsys, tmp_path / "yolo")
    assert "b.txt: the photo of these labels is missing, and other.jpg has no labels; put it back" in sentence
    renamed.unlink()
    convert(tmp_path / "yolo", tmp_path / "yolo.json")
    assert re.search("left out: 1 text files that no photo has, the first: .*b.txt", capsys.readouterr().out)
    save_photo(tmp_path / "yolo" / "images" / "train" / "b.jpg")
    (tmp_path / "yolo" / "images" / "val" / "c.jpg").unlink()
    assert "data.yaml: val: no photo in" in complain(capsys, tmp_path / "yolo")
    (tmp_path / "yolo" / "data.yaml").unlink()
    assert "no class names; write them into" in complain(capsys, tmp_path / "yolo")
    (tmp_path / "yolo" / "classes.txt").write_text("leaf\nflower\nstem\n")
    assert "c.txt: the photo of these labels is missing" in complain(capsys, tmp_path / "yolo")
    save_photo(tmp_path / "yolo" / "images" / "val" / "c.jpg")
    (tmp_path / "yolo" / "images" / "val" / "c.jpg").write_bytes(b"no photo")
    assert "c.jpg: unreadable image" in complain(capsys, tmp_path / "yolo")
    (tmp_path / "labelme" / "raw").mkdir()
    moved = (tmp_path / "labelme" / "val" / "c.jpg").rename(tmp_path / "labelme" / "raw" / "c.jpg")
    convert(tmp_path / "labelme", tmp_path / "moved" / "out.json")
    moved.unlink()
    assert "c.json: its photo ../photos/c.jpg is missing" in complain(capsys, tmp_path / "labelme")
    (tmp_path / "voc" / "JPEGImages" / "a.jpg").unlink()
    convert(tmp_path / "voc", tmp_path / "voc.json")
    said = "left out: 1 of 2 labelled photos, which are missing, the first: .*JPEGImages: has no a of train"
    assert re.search(said, capsys.readouterr().out) and len(read(tmp_path / "voc-train.json")) == 1
    (tmp_path / "voc" / "JPEGImages" / "c.jpg").unlink()
    assert "JPEGImages: has no c of val" in complain(capsys, tmp_path / "voc")
    Image.new("RGB", (30, 30)).save(tmp_path / "label_images" / "val" / "images" / "c.jpg")
    assert f"c.png: {W} x {H} pixels, but its photo" in complain(capsys, tmp_path / "label_images")
    (tmp_path / "label_images" / "val" / "images" / "c.jpg").unlink()
    assert "none of the 1 labelled photos is there; " in complain(capsys, tmp_path / "label_images")
    save_photo(tmp_path / "masks" / "val" / "c" / "images" / "other.jpg")
    assert "images: 2 photos; leave the one" in complain(capsys, tmp_path / "masks")
    classes = np.full((H, W), 255, dtype=np.uint8)
    save_photo(tmp_path / "voc" / "JPEGImages" / "c.jpg")
    save_mask(tmp_path / "voc" / "SegmentationClass" / "c.png", classes)
    assert "c.png is of no class; give all its pixels one class" in complain(capsys, tmp_path / "voc")
    assert "nowhere: no such folder" in complain(capsys, tmp_path / "nowhere")
    save_photo(tmp_path / "empty" / "a.jpg")
    assert "no labels of a known format" in complain(capsys, tmp_path / "empty")
    write_voc(tmp_path / "yolo")
    assert "has labels of voc and yolo; choose one of them with --format" in complain(capsys, tmp_path / "yolo")
    foreground = scene()["train/a"][0][1].astype(np.uint8) * 255
    save_photo(tmp_path / "foreground" / "a.png")
    save_mask(tmp_path / "foreground" / "a_masks.png", foreground)
    assert "its one number is 255, like a mask of all objects" in complain(capsys, tmp_path / "foreground")
    write_shapes(tmp_path / "twice", shape("leaf", "rectangle", [[2, 2], [9, 9]]))
    (tmp_path / "twice" / "b.json").write_text((tmp_path / "twice" / "a.json").read_text().replace("leaf", "stem"))
    named = f"({tmp_path / 'twice' / 'a.json'} and {tmp_path / 'twice' / 'b.json'})"
    assert f"a.jpg: two files of labels are of this photo and differ {named}; join" in complain(
        capsys, tmp_path / "twice"
    )
    (tmp_path / "twice" / "b.json").unlink()
    far = shape("leaf", "polygon", [[2, 2], [9, 900], [9, 2]])
    write_shapes(tmp_path / "twice", far)
    assert "a.jpg: one of its objects has a polygon that leaves its image" in complain(capsys, tmp_path / "twice")
    (tmp_path / "there.json").write_text("mine")
    assert main(["import-data", str(tmp_path / "masks"), "--out", str(tmp_path / "there.json")]) == 2


def test_dialects_of_coco_are_rewritten_and_all_else_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    for name in ("a", "b"):
        save_photo(root / "images" / f"{name}.jpg")
    square = [[1, 1, 20, 1, 20, 20, 1, 20]]
    mask = rle.encode(np.asfortranarray(scene()["train/a"][0][1].astype(np.uint8)))
    attributes = {"occluded": False, "ripe": True}
    content: dict[str, Any] = {
        "info": {"contributor": "someone"},
        "images": [
            {"id": 0, "file_name": r"\data\upload\3\1a2b3c4d-a.jpg", "width": W, "height": H, "date": "today"},
            {"id": 1, "file_name": "/data/upload/3/deadbeef-b.jpg", "width": W, "height": H},
        ],
        "categories": [{"id": 0, "name": "leaf", "supercategory": "plant"}],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 0, "segmentation": square, "iscrowd": 0, "attributes": attributes},
            {"id": 1, "image_id": 1, "category_id": 0, "iscrowd": 1, "attributes": attributes}
            | {"segmentation": {"size": [H, W], "counts": mask["counts"].decode()}},
        ],
    }
    (root / "labels.json").write_text(json.dumps(content))
    for options in ([], ["--force"]):  # the second time its own file is there
        convert(root, root / "ours.json", *options)
    (root / "ours.json").rename(tmp_path / "out.json")
    for image, name in zip(content["images"], ("a", "b"), strict=True):
        image["file_name"] = f"images/{name}.jpg"
    content["annotations"][1]["iscrowd"] = 0
    assert json.loads((tmp_path / "out.json").read_text()) == content
    content["annotations"][1] |= {"iscrowd": 1, "attributes": {}}
    (root / "labels.json").write_text(json.dumps(content))
    convert(root, tmp_path / "out.json", "--force")
    assert json.loads((tmp_path / "out.json").read_text()) == content, "a crowd of another tool is one"
    # LVIS has the address of a photo in the place of its name, and LIVECell its annotations by id.
    for image in content["images"]:
        image |= {"coco_url": f"http://a.host/{image.pop('file_name')}", "not_exhaustive_category_ids": [0]}
    by_id = {str(one["id"]): one for one in content["annotations"]}
    (root / "labels.json").write_text(json.dumps({**content, "annotations": by_id}))
    capsys.readouterr()
    convert(root, tmp_path / "out.json", "--force")
    for image, name in zip(content["images"], ("a", "b"), strict=True):
        image["file_name"] = f"images/{name}.jpg"
    assert json.loads((tmp_path / "out.json").read_text()) == content
    told = (
        "annotations: records by id became a list",
        "2 photos without file_name",
        "LVIS names objects of some classes",
    )
    text = capsys.readouterr().out
    assert all(part in text for part in told), text


def write_instances(root: Path, values: np.ndarray, name: str = "a.png", format_: str = "label_images") -> None:
    """Write one photo and an image of its labels."""
    folder = root / "a" if format_ == "masks" else root
    save_photo(folder / "images" / "a.jpg")
    save_mask(folder / "masks" / ("mask" + name[1:] if format_ == "masks" else name), values)


def test_images_that_hold_no_exact_numbers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreground = scene()["train/a"][0][1]
    negative = foreground.astype(np.int32)
    negative[0] = -1
    for format_ in ("label_images", "masks"):
        write_instances(tmp_path / format_, foreground.astype(np.uint8) * 255, "a.jpg", format_)
        assert "a JPEG, which changes the numbers of labels" in complain(capsys, tmp_path / format_)
    write_instances(tmp_path / "bits", foreground)
    assert "one bit a pixel, like a mask of all objects" in complain(capsys, tmp_path / "bits")
    soft = Image.fromarray(foreground.astype(np.uint8) * 255).resize((W * 5 // 4, H * 5 // 4), Image.Resampling.BICUBIC)
    write_instances(tmp_path / "soft", np.asarray(soft.crop((0, 0, W, H))))
    assert "most of its pixels have 255, and its edges " in complain(capsys, tmp_path / "soft")
    many = np.arange(W * H).reshape(H, W) % 256
    many[: H // 3] = 255
    write_instances(tmp_path / "many", many.astype(np.uint8))
    convert(tmp_path / "many", tmp_path / "many.json")
    assert len(read(tmp_path / "many.json")["images/a.jpg"]) == 255
    write_instances(tmp_path / "negative", negative, "a.tif")
    assert "the number -1; give 0 where no object is" in complain(capsys, tmp_path / "negative")
    write_instances(tmp_path / "pages", np.abs(negative), "a.tif")
    pages = [Image.fromarray(np.abs(negative)) for _ in range(2)]
    pages[0].save(tmp_path / "pages" / "masks" / "a.tif", save_all=True, append_images=pages[1:])
    assert "several pages or frames" in complain(capsys, tmp_path / "pages")


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((7 * 256, 26 * 256 + 1, 26 * 256 + 2), "such as 6658, hold class and object in one, like those of KITTI"),
        ((7, 23, 26000), "such as 26000, hold class and object in one"),
        ((2000, 2001, 10000), "such as 10000, hold class and object in one"),
        ((1, 2, 255), "1 photos have the number 255 beside 1, 2, 3, ...; if it is a border or void, give it 0"),
        ((300, 556, 813), ""),
        ((1, 254, 255), ""),
        ((1, 700, 12000), ""),
    ],
)
def test_numbers_that_are_not_those_of_objects_are_told(
    numbers: tuple[int, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.zeros((H, W), dtype=np.uint16 if max(numbers) > 255 else np.uint8)
    for place, number in enumerate(numbers):
        values[2:30, 4 + 15 * place : 15 + 15 * place] = number
    write_instances(tmp_path, values)
    status = main(["import-data", str(tmp_path), "--out", str(tmp_path / "out.json")])
    printed = capsys.readouterr()
    assert status == (2 if "class and object" in said else 0) and said in printed.out + printed.err
    assert said or "class and object" not in printed.err and "number 255" not in printed.out


def test_masks_of_one_object_may_be_of_many_kinds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Write a mask as JPEG made it, as a palette whose object is 0, as a cut-out, and the other way round."""
    truth = np.zeros((H, W), dtype=bool)
    truth[8:24, 16:40] = True
    grey, buffer = Image.fromarray(truth.astype(np.uint8) * 255), io.BytesIO()
    grey.resize((2 * W, 2 * H)).resize((W, H), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
    palette = Image.fromarray((~truth).astype(np.uint8), "P")
    palette.putpalette([255, 255, 255, 0, 0, 0])
    numbers = Image.fromarray(truth.astype(np.uint8), "P")  # whose palette has no colours
    cut = Image.merge("RGBA", [Image.new("L", (W, H), 200)] * 3 + [grey])
    opaque = Image.merge("RGBA", [grey] * 3 + [Image.new("L", (W, H), 255)])
    kinds = {
        "soft": Image.open(buffer),
        "palette": palette,
        "numbers": numbers,
        "cut": cut,
        "opaque": opaque,
        "plain": grey,
    }
    for name, image in kinds.items():
        save_photo(tmp_path / "root" / name / "images" / f"{name}.jpg")
        (tmp_path / "root" / name / "masks").mkdir()
        image.save(tmp_path / "root" / name / "masks" / "0.png")
    convert(tmp_path / "root", tmp_path / "out.json")
    assert all(same(found, [("object", truth)]) for found in read(tmp_path / "out.json").values())
    told = capsys.readouterr().out
    assert "left out: 1 grey edges of masks, values up to 127 of 255, the first: " in told and "corners" not in told
    Image.fromarray(~truth).save(tmp_path / "root" / "plain" / "masks" / "0.png")
    convert(tmp_path / "root", tmp_path / "out.json", "--force")
    told = capsys.readouterr().out
    assert "1 photos have an object in all four corners; where it is the background" in told and "plain.jpg" in told


def test_label_images_lie_in_sub_folders_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.zeros((H, W), dtype=np.uint16)
    values[2:9, 2:9], values[20:30, 5:50] = 1, 7
    save_photo(tmp_path / "images" / "train" / "a.jpg")
    save_mask(tmp_path / "masks" / "train" / "a.png", values)
    save_photo(tmp_path / "images" / "extra" / "b.jpg")
    convert(tmp_path, tmp_path / "out.json")
    assert "left out: 1 photos without an image of labels" in capsys.readouterr().out
    (objects,) = read(tmp_path / "out.json").values()
    assert same(objects, [("object", values == 1), ("object", values == 7)])


PAIRS = {
    "PNGImages/a.png": "PedMasks/a_mask.png",
    "imgs/a.jpg": "Labels/a.tif",
    "data/train/a.jpg": "data/train_masks/a_mask.png",
    "set/image/a_mask.png": "set/label/a_mask.png",
    "x/train_images/a.png": "x/train_masks/a_mask.png",
    "labeled/images/a.png": "labeled/labels/a_label.png",
    "labeled/a.png": "masks/a.png",
    "raw_images/a.png": "labeled_images/a.png",
}


@pytest.mark.parametrize("photo", PAIRS)
def test_folders_of_photos_and_labels_have_many_names(
    photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read the layouts of Penn-Fudan and of others, with a second photo whose labels are named likewise."""
    values = np.zeros((H, W), dtype=np.uint16)
    values[2:9, 2:9], values[20:30, 5:50] = 1, 2
    for name in ("a", "b"):
        save_photo(tmp_path / photo.replace("/a", f"/{name}"), ord(name))
        save_mask(tmp_path / PAIRS[photo].replace("/a", f"/{name}"), values)
    if "train_images" in photo:
        save_photo(tmp_path / "x" / "test_images" / "c.png")
        (tmp_path / photo).with_name(f"{name}.h5").write_bytes(b"what ImageJ's plugins write beside a photo")
    for folder in ("unlabeled", "unlabelled/images"):
        save_photo(tmp_path / folder / "u.png")
    assert find_format(tmp_path) == "label_images"
    convert(tmp_path, tmp_path / "out.json")
    found = {**read(tmp_path / "out.json")}
    expected = [("object", values == 1), ("object", values == 2)]
    assert list(found) == [photo, photo.replace("/a", "/b")] and all(same(one, expected) for one in found.values())
    for end in ("mask", "label"):
        stem = Path(photo).stem.replace("a", "b", 1)
        save_mask((tmp_path / PAIRS[photo]).with_name(f"{stem}_{end}.png"), values)
    assert "is of the same photo; remove one of the two" in complain(capsys, tmp_path)


def test_photos_of_one_name_are_those_of_the_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    for subset, count in (("train", 2), ("val", 1), ("test", 4)):
        for number in range(count):
            save_photo(root / f"{subset}_images" / f"{number}.png", number)
            if subset != "test":
                save_mask(root / f"{subset}_masks" / f"{number}.png", np.eye(H, W, dtype=np.uint8))
    convert(root, tmp_path / "out.json")
    assert list(read(tmp_path / "out-train.json")) == ["train_images/0.png", "train_images/1.png"]
    assert list(read(tmp_path / "out-val.json")) == ["val_images/0.png"]
    (root / "train_masks").rename(root / "masks")
    assert find_format(root) == "label_images"
    assert "masks: its photos may be those of test_images or train_images, which have" in complain(capsys, root)


@pytest.mark.parametrize("format_", ["label_images", "masks"])
def test_one_object_in_every_photo_is_told(format_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mask of all objects whose value is 1 cannot be told from one object of several parts."""
    values = np.zeros((H, W), dtype=np.uint8)
    values[2:9, 2:9] = values[20:30, 5:50] = 1
    write_instances(tmp_path / "root", values, format_=format_)
    convert(tmp_path / "root", tmp_path / "out.json")
    assert "; where it is" in (told := capsys.readouterr().out) and "several objects, give each its own" in told
    values[20:30, 5:50], values[1, 1] = 2, 2  # a stray pixel is no part
    write_instances(tmp_path / "two", values)
    convert(tmp_path / "two", tmp_path / "two.json")
    told = capsys.readouterr().out
    assert not any(doubt in told for doubt in ("several objects", "several separate parts", "corners"))


def test_background_and_classes_that_may_be_objects_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Number the background 1 and classes from 2 on, as ilastik does; a row of a CSV may be a class too."""
    values = np.ones((H, W), dtype=np.uint8)
    values[2:18, 2:9] = values[20:30, 5:50] = 2
    values[2:9, 30:40] = values[33:38, 30:40] = 3
    write_instances(tmp_path / "numbers", values)
    save_photo(tmp_path / "rows" / "a.png")
    rows = "\n".join(f"a,{runs(values == number)}" for number in (2, 3))
    (tmp_path / "rows" / "labels.csv").write_text(f"id,runs\n{rows}\n")
    classes = (
        "1 photos have mostly objects of several separate parts; where they are classes, give every object its own"
    )
    for folder in ("numbers", "rows"):
        convert(tmp_path / folder, tmp_path / "out" / f"{folder}.json")
        told = capsys.readouterr().out
        assert classes in told and ("where it is the background, correct the labels" in told) == (folder == "numbers")


@pytest.mark.parametrize(
    "names", ["[no, stem, yes]", "[leaf, leaf, stem]", "[leaf, '', stem]", "{0: leaf, 1: 5, 2: stem}"]
)
def test_class_names_of_yolo_are_not_guessed(names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yolo(tmp_path / "root")
    (tmp_path / "root" / "data.yaml").write_text(f"{{train: images/train, val: images/val, names: {names}}}")
    assert "data.yaml: class " in (sentence := complain(capsys, tmp_path / "root")) and "; give " in sentence
    assert " has the name " in sentence


def test_two_lists_of_class_names_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, said = tmp_path / "root", "number the classes of all labels alike, and leave one such file"
    write_yolo(root)
    more = yaml.safe_load((root / "data.yaml").read_text())
    for name in ("more.yaml", "no_yaml.yml"):
        (root / name).write_text(yaml.safe_dump({**more, "names": ["leaf", "flower", "stem"]}))
    (root / "no_yaml.yml").write_text("names: {")
    convert(root, tmp_path / "out.json")
    printed = capsys.readouterr().out
    assert f"not used: {root}/more.yaml, in place of {root}/data.yaml" in printed
    assert f"classes are named by {root}/data.yaml" in printed
    (root / "more.yaml").write_text(yaml.safe_dump({**more, "names": ["person"]}))
    expected = f"{root}/more.yaml: class 0 is 'person', but 'leaf' in {root}/data.yaml; {said}"
    assert expected in complain(capsys, root)
    for path in [*root.glob("*.y*ml")]:
        path.unlink()
    (root / "labels" / "train" / "classes.txt").write_text("leaf\nflower\n")
    (root / "labels" / "val" / "classes.txt").write_text("leaf\nflower\nstem\n")
    (root / "labels.txt").write_text("a.jpg\n")
    convert(root, tmp_path / "lists.json")
    assert f"classes are named by {root}/labels/train/classes.txt and 1 like it" in capsys.readouterr().out
    (root / "obj.names").write_text("flower\nleaf\n")
    expected = f"{root}/obj.names: class 0 is 'flower', but 'leaf' in {root}/labels/train/classes.txt; {said}"
    assert expected in complain(capsys, root)


def test_boxes_and_key_points_are_no_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    write_yolo(root)
    with (root / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 2]\n")
    assert "data.yaml: kpt_shape: its lines are boxes and key points, which have no mask" in complain(capsys, root)
    (root / "data.yaml").unlink()
    image, one = {"id": 1, "file_name": "a.jpg"}, {"id": 1, "image_id": 1, "category_id": 1, "isbbox": True}
    content = {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "leaf"}]}
    (root / "labels.json").write_text(json.dumps(content))
    assert "labels.json: all its annotations are boxes (isbbox)" in complain(capsys, root, "--format", "coco")


def test_the_yaml_of_yolo_may_be_in_a_sub_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "photos"
    write_yolo(root / "export")
    (root / "runs").mkdir()
    (root / "runs" / "args.yaml").write_text("task: segment\nnames: cats\n")
    convert(root, tmp_path / "out" / "ours.json")
    assert sorted(read(tmp_path / "out" / "ours-train.json")) == [
        "export/images/train/a.jpg",
        "export/images/train/b.jpg",
    ]
    write_yolo(root / "second")
    expected = f"has data sets of {root}/export/data.yaml and {root}/second/data.yaml; give the folder"
    assert expected in complain(capsys, root)


@pytest.mark.parametrize("path", ["", "{old}", "../old"])
def test_the_photos_of_yolo_are_those_of_the_folder(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read a copy whose path names the original, and an export of Roboflow in the folder of an older one."""
    old = tmp_path / "old"
    new = old / "new" if not path else tmp_path / "new"
    for root in (old, new):
        write_yolo(root)
        above, place = ("", {"path": path.format(old=old)}) if path else ("../", {})
        photos = {subset: f"{above}images/{subset}" for subset in ("train", "val")}
        (root / "data.yaml").write_text(yaml.safe_dump({**place, **photos, "names": ["leaf", "flower", "stem"]}))
    convert(new, tmp_path / "out.json")
    assert sorted(read(tmp_path / "out-train.json")) == ["images/train/a.jpg", "images/train/b.jpg"]
    printed = capsys.readouterr().out
    assert "photos are outside of" not in printed
    assert (f"its path {path.format(old=old)} is outside of {new}; its folder {new} is read" in printed) == bool(path)
    shutil.rmtree(new / "images")
    shutil.rmtree(new / "labels")
    convert(new, tmp_path / "out.json", "--force")
    assert len(read(tmp_path / "out-train.json")) == 2
    assert f"3 photos are outside of {new}, the first: {old}/images/train/a.jpg" in capsys.readouterr().out


@pytest.mark.parametrize("named", ["D:\\photos\\images\\{}", "/content/drive/photos/images/{}", "..\\images\\{}"])
def test_paths_of_another_machine_in_a_yaml_of_yolo_are_found_by_their_ends(
    named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    write_yolo(root)
    content = {subset: named.format(subset) for subset in ("train", "val")}
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "names": ["leaf", "flower", "stem"]}))
    convert(root, tmp_path / "out.json")
    assert [sorted(read(tmp_path / f"out-{subset}.json")) for subset in ("train", "val")] == [
        ["images/train/a.jpg", "images/train/b.jpg"],
        ["images/val/c.jpg"],
    ]
    assert f"train: {content['train']} is not here; {root}/images/train is read instead" in capsys.readouterr().out
    content["val"] = named.replace("images", "photos").format("others")
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "names": ["leaf", "flower", "stem"]}))
    assert f"data.yaml: val: no such file or folder: {content['val']}; put" in complain(capsys, root)


def test_labels_that_the_yaml_does_not_reach_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Name a test set that is absent, as Roboflow does, and leave out one folder and one photo of a list."""
    root = tmp_path / "root"
    write_yolo(root)
    save_photo(root / "images" / "more" / "m.jpg")
    (root / "labels" / "more").mkdir()
    (root / "labels" / "more" / "m.txt").write_text("0 0 0 1 0 1 1\n")
    (root / "labels" / "val" / "c.txt").unlink()
    (root / "train.txt").write_text("/content/of/another/machine/images/train/a.jpg\n")
    content = "{train: train.txt, val: images/val, test: ../test/images, names: [leaf, flower, stem]}"
    (root / "data.yaml").write_text(content)
    convert(root, tmp_path / "out.json")
    printed = capsys.readouterr().out
    assert "left out: 2 text files that no photo has, the first: " in printed and "labels/more/m.txt" in printed
    assert "test: no photo in ../test/images" in printed and "1 photos have no text file" in printed
    assert not (tmp_path / "out-test.json").exists() and list(read(tmp_path / "out-train.json")) == [
        "images/train/a.jpg"
    ]
    (root / "train.txt").write_text("images/train/gone.jpg\nimages/train/a.jpg\n")
    convert(root, tmp_path / "some" / "out.json")
    said = (
        "left out: 1 of 2 labelled photos, which are missing, the first: .*train.txt: its photo images/train/gone.jpg"
    )
    assert re.search(said, capsys.readouterr().out)
    (root / "train.txt").write_text("images/train/gone.jpg\n")
    assert f"train.txt: its photo images/train/gone.jpg is not below {root}; put it there" in complain(capsys, root)


@pytest.mark.parametrize(("above", "below"), [(".", "."), ("images/leaves", "."), (".", "images")])
def test_text_files_beside_photos_are_labels_of_yolo(above: str, below: str, tmp_path: Path) -> None:
    tmp_path /= above
    save_photo(tmp_path / below / "a.jpg")
    (tmp_path / below / "a.txt").write_text("0 0.25 0.25 0.75 0.25 0.75 0.75\n")
    (tmp_path / "classes.txt").write_text("leaf\n\n")
    convert(tmp_path, tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "leaf"}]
    assert content["annotations"][0]["segmentation"] == [[15.0, 10.0, 45.0, 10.0, 45.0, 30.0]]


@pytest.mark.parametrize("photos", ["train", "train/images", "images/train"])
@pytest.mark.parametrize("has_yaml", [True, False])
def test_pictures_made_from_photos_are_no_photos_of_yolo(
    photos: str, has_yaml: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keep photos without a text file, and photos with one in a folder of another name; leave out all others."""
    labels = photos.replace("images", "labels")
    for name in ("a", "predicted/b"):
        save_photo(tmp_path / photos / f"{name}.jpg")
        (tmp_path / labels / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / labels / f"{name}.txt").write_text("0 0.25 0.25 0.75 0.25 0.75 0.75\n")
    for name in ("empty", "masks/a", "depth/a", "a_overlay"):
        save_photo(tmp_path / photos / f"{name}.jpg")
    content = f"{{train: {photos.removesuffix('/images')}, names: [leaf]}}" if has_yaml else "leaf"
    (tmp_path / ("data.yaml" if has_yaml else "classes.txt")).write_text(content)
    convert(tmp_path, tmp_path / "out.json", "--format", "yolo")
    assert set(read(tmp_path / "out.json")) == {f"{photos}/{name}.jpg" for name in ("a", "empty", "predicted/b")}
    assert (
        "left out: 3 image files that seem to be made from photos, by their folder or name, the first"
        in capsys.readouterr().out
    )


def test_objects_without_a_pixel_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = [shape("leaf", "rectangle", [[5, 5], [5, 5]]), shape("leaf", "circle", [[200, 200], [201, 200]])]
    nothing.append(shape("leaf", "circle", [[20, 20], [20, 20]]))
    root = write_shapes(tmp_path / "root", *nothing, shape("leaf", "rectangle", [[2, 2], [9, 9]]))
    convert(root, tmp_path / "out.json")
    assert "1 objects: leaf 1\nleft out: 3 objects without a pixel, the first: " in capsys.readouterr().out
    assert len(read(tmp_path / "out.json")["a.jpg"]) == 1
    write_shapes(root, shape("leaf", "circle", [[float("nan"), 5], [5, 5]]))
    assert "shape 1: its points are no list of pairs of finite x, y" in complain(capsys, root)


def test_photos_whose_masks_nobody_drew_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    write_yolo(root)
    box, polygon = "0 0.5 0.5 0.2 0.2\n", "0 0.1 0.1 0.5 0.1 0.5 0.5\n"
    texts = {"train/a": box + box, "train/b": polygon + box, "val/c": box}
    for name, text in texts.items():
        (root / "labels" / name).with_suffix(".txt").write_text(text)
    convert(root, tmp_path / "out.json")
    printed = capsys.readouterr().out
    assert not (tmp_path / "out-val.json").exists()
    assert {Path(name).stem: len(objects) for name, objects in read(tmp_path / "out-train.json").items()} == {"b": 1}
    assert "left out: 4 boxes, which have no mask, the first: " in printed
    assert "left out: 2 photos that have such shapes alone, and no mask, the first: " in printed
    assert "1 photos have such shapes beside masks; their objects are background there" in printed


def test_lists_of_voc_are_read_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    write_voc(root)
    for path in list(root.glob("*/a.*")):
        path.rename(path.with_stem("a 1"))
    save_photo(root / "JPEGImages" / "unlabelled.jpg")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(b"\xef\xbb\xbfa 1\r\nb\r\n")
    convert(root, tmp_path / "out.json")
    assert list(read(tmp_path / "out-train.json")) == ["JPEGImages/a 1.jpg", "JPEGImages/b.jpg"]
    printed = capsys.readouterr().out
    assert "classes are named after VOC's 20; where they are others, add labelmap.txt" in printed
    assert "left out: 1 photos without a label image" in printed and "bird 2, tvmonitor 1; 18 classes" in printed
    names = ["__ignore__", "_background_", *(f"class {number}" for number in range(1, 21))]
    (root / "class_names.txt").write_text("\n".join(names))
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject"):
        (root / folder / "cam").mkdir()
        next((root / folder).glob("a 1.*")).rename(
            root / folder / "cam" / f"a 1{'.jpg' if folder[0] == 'J' else '.png'}"
        )
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text('"cam/a 1"\nb\n')
    convert(root, tmp_path / "out.json", "--force")
    found = read(tmp_path / "out-train.json")
    assert list(found) == ["JPEGImages/cam/a 1.jpg", "JPEGImages/b.jpg"]
    assert {name for objects in found.values() for name, _ in objects} == {"class 3", "class 20"}
    (root / "class_names.txt").write_text("leaf\nfruit\n")
    assert "class_names.txt: its first class is 'leaf'; begin it with _background_" in complain(capsys, root)
    (root / "class_names.txt").unlink()
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").rename(lists / "trainval.txt")
    (lists / "val.txt").rename(lists / "test.txt")
    convert(root, tmp_path / "more.json")
    assert len(read(tmp_path / "more-train.json")) == 2 and len(read(tmp_path / "more-test.json")) == 1
    (lists / "train.txt").write_bytes(b"a 1\n\xe9\n")
    assert "train.txt: not a text file in UTF-8" in complain(capsys, root)


def test_files_of_one_name_in_two_subsets_of_roboflow_stay_apart(tmp_path: Path) -> None:
    for seed, subset in enumerate(("train", "valid")):
        save_photo(tmp_path / "root" / subset / "a.jpg", seed)
        content = {"images": [{"id": 0, "file_name": "a.jpg"}], "annotations": [], "categories": []}
        (tmp_path / "root" / subset / "_annotations.coco.json").write_text(json.dumps(content))
    convert(tmp_path / "root", tmp_path / "out.json")
    for subset, part in (("train", "train"), ("valid", "val")):
        assert list(read(tmp_path / f"out-{part}.json")) == [f"{subset}/a.jpg"]


def test_tasks_of_cvat_may_have_photos_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, words = tmp_path / "root", {"Train": "train", "Validation": "val"}
    mask = rle.encode(np.asfortranarray(scene()["train/a"][0][1].astype(np.uint8)))
    image = {"id": 1, "file_name": "a.jpg", "width": W, "height": H}
    one = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 1, "attributes": {"occluded": False}}
    one |= {"segmentation": {"size": [H, W], "counts": mask["counts"].decode()}, "area": int(rle.area(mask))}
    content = {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "leaf"}]}
    images = ""
    for seed, subset in enumerate(words):
        save_photo(root / "images" / subset / "a.jpg", seed)
        (root / f"instances_{subset}.json").write_text(json.dumps(content))
        shape_ = '<polygon label="leaf" points="1,2;9,2;5,11"></polygon>'
        images += f'<image name="a.jpg" subset="{subset}" width="{W}" height="{H}">{shape_}</image>'
    convert(root, tmp_path / "coco.json", "--format", "coco")
    (root / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    convert(root, tmp_path / "cvat.json")
    for tool, (subset, part) in itertools.product(("coco", "cvat"), words.items()):
        assert list(read(tmp_path / f"{tool}-{part}.json")) == [f"images/{subset}/a.jpg"]
    beside = root / "thumbs" / "train" / "images" / "Train" / "a.jpg"
    beside.parent.mkdir(parents=True)
    shutil.copy(root / "images" / "Train" / "a.jpg", beside)
    exact = {**content, "images": [{**image, "file_name": "images/Train/a.jpg"}]}
    (root / "instances_Train.json").write_text(json.dumps(exact))
    convert(root, tmp_path / "coco.json", "--format", "coco", "--force")
    assert list(read(tmp_path / "coco-train.json")) == ["images/Train/a.jpg"], "a path wins over a guess"
    shutil.rmtree(root / "thumbs")
    (root / "instances_Train.json").write_text(json.dumps(content))
    (root / "instances_Train.json").rename(root / "all.json")
    (root / "instances_Validation.json").unlink()
    told = (
        f"its photos may be those of {root}/images/Train or {root}/images/Validation, which have the same names; move"
    )
    assert told in complain(capsys, root, "--format", "coco")


def test_labels_and_photos_that_are_there_twice_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "out.json"
    for folder in ("photos", "for the network"):
        save_photo(root / folder / "a.jpg")
    shapes = [region("circle", {"class": name}, cx=x, cy=9, r=4) for name, x in (("leaf", 9), ("stem", 30))]
    record = {"filename": "a.jpg", "regions": shapes}
    save_json(root / "project.json", {"_via_settings": {}, "_via_img_metadata": {"a.jpg99": record}})
    convert(root, out)
    once = read(out)
    assert [len(objects) for objects in once.values()] == [2] and list(once) == ["for the network/a.jpg"]
    save_json(root / "via_region_data.json", {"a.jpg99": {**record, "regions": shapes[::-1]}})
    capsys.readouterr()
    convert(root, out, "--force")
    assert same(read(out)["for the network/a.jpg"], once["for the network/a.jpg"])
    assert "left out: 1 records of photos that another file has with the same objects" in capsys.readouterr().out
    save_json(root / "via_region_data.json", {"a.jpg99": {**record, "regions": shapes[:1]}})
    assert "two files of labels are of this photo and differ" in complain(capsys, root)
    (root / "via_region_data.json").unlink()
    save_photo(root / "photos" / "a.jpg", seed=1)
    assert "photo a.jpg is missing (it may be for the network/a.jpg or photos/a.jpg)" in complain(capsys, root)


def test_coco_files_of_one_subset_are_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "out.json"
    for name in "abc":
        save_photo(root / "images" / f"{name}.jpg")

    def task(file: str, classes: dict[int, str], **boxes: dict[str, int]) -> None:
        images = [{"id": k, "file_name": f"{name}.jpg", "width": W, "height": H} for k, name in enumerate(boxes)]
        annotations = [
            {"id": 1, "image_id": k, "category_id": category, "segmentation": [[x, 1, x + 4, 1, x + 4, 5, x, 5]]}
            for k, objects in enumerate(boxes.values())
            for category, x in zip(classes, objects.values(), strict=False)
        ]
        categories = [{"id": number, "name": name} for number, name in classes.items()]
        save_json(root / file, {"images": images, "annotations": annotations, "categories": categories})

    task("task_1.json", {1: "leaf", 3: "stem"}, a={"leaf": 2, "stem": 9}, b={"leaf": 5})
    task("task_2.json", {1: "stem", 2: "leaf"}, c={"stem": 7, "leaf": 3})
    convert(root, out, "--format", "coco")
    found = read_boxed(out)
    assert found == {"a": [("leaf", 2), ("stem", 9)], "b": [("leaf", 5)], "c": [("stem", 7), ("leaf", 3)]}
    assert json.loads(out.read_text())["categories"] == [{"id": 1, "name": "leaf"}, {"id": 3, "name": "stem"}]
    task("task_3.json", {7: "leaf", 8: "root"}, b={"leaf": 5})
    capsys.readouterr()
    convert(root, out, "--format", "coco", "--force")
    assert read_boxed(out) == found
    printed = capsys.readouterr().out
    assert "joined: 3 files of one subset" in printed
    assert "1 photos are in several of them with the same objects, the first: images/b.jpg" in printed
    (root / "images" / "a.jpg").rename(root / "images" / "d.jpg")
    convert(root, out, "--format", "coco", "--force")
    assert read_boxed(out) == found
    assert "task_1.json: 1 photos are missing, the first: a.jpg; put them there" in capsys.readouterr().out
    task("task_3.json", {7: "leaf", 8: "root"}, b={"leaf": 6})
    assert "task_3.json: labels images/b.jpg differently than" in complain(capsys, root, "--format", "coco")
    task("task_3.json", {7: "leaf"}, b={"leaf": 5})
    content = json.loads((root / "task_3.json").read_text())
    save_json(root / "task_3.json", {**content, "categories": []})
    assert "task_3.json: annotation 0 is of no image or category" in complain(capsys, root, "--format", "coco")
    save_json(root / "task_3.json", {**content, "images": [{"file_name": "b.jpg"}]})
    assert "task_3.json: image None has no integer as its id" in complain(capsys, root, "--format", "coco")


def read_boxed(path: Path) -> dict[str, list[tuple[str, float]]]:
    """Return class and left edge of the objects of each photo, by its name."""
    content = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    found: dict[int, list[tuple[str, float]]] = {one["id"]: [] for one in content["images"]}
    for one in content["annotations"]:
        found[one["image_id"]].append((names[one["category_id"]], one["segmentation"][0][0]))
    assert len({one["id"] for one in content["annotations"]}) == len(content["annotations"])
    return {Path(one["file_name"]).stem: found[one["id"]] for one in content["images"]}


def test_colours_of_cvat_are_classes(tmp_path: Path) -> None:
    """Write VOC masks as colours, with CVAT's list of the colours of classes."""
    expected = write_voc(tmp_path / "root")
    colours = {"bird": (9, 0, 200), "tvmonitor": (0, 7, 0)}
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{name}:{','.join(map(str, colour))}::" for name, colour in colours.items()]
    (tmp_path / "root" / "labelmap.txt").write_text("\n".join(lines) + "\n")
    for key, objects in expected.items():
        pixels = np.zeros((2, H, W, 3), dtype=np.uint8)
        for number, (name, mask) in enumerate(objects):
            pixels[0][mask], pixels[1][mask] = (128, number, 0), colours[name]
        for folder, values in zip(("SegmentationObject", "SegmentationClass"), pixels, strict=True):
            save_mask(tmp_path / "root" / folder / f"{key.split('/')[1]}.png", values)
    convert(tmp_path / "root", tmp_path / "out.json")
    found = {**read(tmp_path / "out-train.json"), **read(tmp_path / "out-val.json")}
    for objects, truth in zip(found.values(), expected.values(), strict=True):
        assert same(objects, truth)


def test_only_polygons_of_v7_are_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_darwin(tmp_path)
    paths = [tmp_path / "annotations" / f"{key}.json" for key in ("train/a", "train/b", "val/c")]
    first, second, third = (json.loads(path.read_text()) for path in paths)
    box = {"name": "leaf", "bounding_box": {"x": 1, "y": 2, "w": 3, "h": 4}}
    save_json(paths[0], first | {"annotations": [*first["annotations"], box]})
    save_json(paths[1], second | {"annotations": [box]})
    convert(tmp_path, tmp_path / "out.json")
    printed = capsys.readouterr().out
    assert "left out: 2 shapes of V7 that are no polygons" in printed
    assert "1 photos have such shapes beside masks" in printed
    assert list(read(tmp_path / "out-train.json")) == ["images/train/a.jpg"]
    save_json(paths[2], third | {"annotations": []})
    convert(tmp_path, tmp_path / "out.json", "--force")
    assert "left out: 1 photos without an annotation" in capsys.readouterr().out
    for polygon in ({"paths": [[{"x": 1, "y": 2}]]}, {"paths": []}, {"path": [{"x": 1, "y": 2}] * 3}):
        save_json(paths[2], third | {"annotations": [{"name": "leaf", "polygon": polygon}]})
        assert "c.json: annotation 1: a polygon without three points, or without" in complain(capsys, tmp_path)
    save_json(paths[2], third | {"item": {**third["item"], "slots": [{"type": "video"}]}})
    assert "c.json: of a video, or of several images; export single images from V7" in complain(capsys, tmp_path)


def test_leaves_of_cvppp_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Let a foreground and the centres lie beside a photo and its labels; a test set has no labels."""
    values = np.zeros((H, W), dtype=np.uint8)
    values[2:9, 2:9], values[20:30, 5:50] = 1, 2
    for name in ("plant001", "plant002"):
        save_photo(tmp_path / "A1" / f"{name}_rgb.png")
        save_photo(tmp_path / "testing" / "A1" / f"{name}_rgb.png")
        save_mask(tmp_path / "A1" / f"{name}_label.png", values)
        save_mask(tmp_path / "A1" / f"{name}_centers.png", values)
        for folder in ("A1", "testing/A1"):
            save_mask(tmp_path / folder / f"{name}_fg.png", np.asarray(values > 0, dtype=np.uint8) * 255)
    convert(tmp_path, tmp_path / "out.json", "--class-name", "leaf")
    found = read(tmp_path / "out.json")
    assert list(found) == ["A1/plant001_rgb.png", "A1/plant002_rgb.png"]
    assert all(same(one, [("leaf", values == 1), ("leaf", values == 2)]) for one in found.values())
    assert "left out: 2 photos without an image of labels" in capsys.readouterr().out
    save_photo(tmp_path / "A1" / "plant001.png")
    assert "plant001_label.png: its photo may be" in complain(capsys, tmp_path)


def test_cellpose_pairs_and_other_bits_are_read(tmp_path: Path) -> None:
    values = np.zeros((H, W), dtype=np.int32)
    values[3:9, 3:9], values[20:30, 5:50] = 70_000, 2
    for number, (photo, labels) in enumerate((("x_img", "x_masks"), ("y", "y_cp_masks"))):
        save_photo(tmp_path / f"{photo}.png", number)
        Image.fromarray(values).save(tmp_path / f"{labels}.tif")
    save_photo(tmp_path / "unlabelled.png", 3)
    convert(tmp_path, tmp_path / "out.json", "--class-name", "cell")
    found = read(tmp_path / "out.json")
    expected = [("cell", values == 2), ("cell", values == 70_000)]
    assert list(found) == ["x_img.png", "y.png"] and all(same(objects, expected) for objects in found.values())


@pytest.mark.parametrize("format_", ["yolo", "labelme", "masks"])
def test_real_photos_come_back_as_they_were(format_: str, shared_data: Path, tmp_path: Path) -> None:
    """Write the labels of a real set in a format, and convert them back: every mask is the same bit for bit."""
    if not (source := shared_data / "chicken_parts").is_dir():
        pytest.skip(f"no real data: {source} is absent")
    content = json.loads((source / "annotations" / "val.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    expected = {}
    for image in content["images"]:
        name, stem = image["file_name"], Path(image["file_name"]).stem
        objects = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        expected[stem] = [
            (
                "object" if format_ == "masks" else names[one["category_id"]],
                decode_mask(one["segmentation"], (512, 512)),
            )
            for one in objects
        ]
        folder = tmp_path / "root" / (stem if format_ == "masks" else "")
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).symlink_to(source / "val" / name)
        polygons = [one["segmentation"][0] for one in objects]
        if format_ == "yolo":
            rows = [[one["category_id"] - 1, *(value / 512 for value in one["segmentation"][0])] for one in objects]
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{stem}.txt").write_text("\n".join(" ".join(map(repr, row)) for row in rows))
            (folder / "classes.txt").write_text("\n".join(names[number] for number in sorted(names)))
        elif format_ == "labelme":
            pairs = [
                (names[one["category_id"]], np.reshape(polygon, (-1, 2)).tolist())
                for one, polygon in zip(objects, polygons, strict=True)
            ]
            shapes = [shape(label, "polygon", points) for label, points in pairs]
            document = {"imagePath": f"images/{name}", "imageHeight": 512, "imageWidth": 512, "shapes": shapes}
            (folder / f"{stem}.json").write_text(json.dumps(document))
        else:
            for number, (_, mask) in enumerate(expected[stem]):
                save_mask(folder / "masks" / f"{number:03}.png", mask)
    convert(tmp_path / "root", tmp_path / "out.json")
    found = {Path(name).stem: objects for name, objects in read(tmp_path / "out.json").items()}
    assert found.keys() == {stem for stem, objects in expected.items() if objects or format_ != "masks"}
    assert all(same(objects, expected[stem]) for stem, objects in found.items())


def test_shapes_of_via_are_areas_of_the_one_class_attribute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_photo(tmp_path / "via" / "a.jpg")
    ring = region("ellipse", {"kind": "leaf"}, cx=30, cy=20, rx=10, ry=5, theta=np.pi / 2)
    disc = region("circle", {"kind": {"leaf": False, "stem": True}}, cx=10, cy=10, r=4)

    def save(*regions: dict[str, Any]) -> Path:
        content = {"a": {"filename": "a.jpg", "regions": list(regions)}}
        (tmp_path / "via" / "via.json").write_text(json.dumps(content))
        return tmp_path / "via"

    convert(save(ring, disc), tmp_path / "out.json")
    rows, columns = np.mgrid[:H, :W] + 0.5
    upright = ((columns - 30) / 5) ** 2 + ((rows - 20) / 10) ** 2 <= 1
    circle = np.hypot(columns - 10, rows - 10) <= 4
    (found,) = read(tmp_path / "out.json").values()
    assert same(found, [("leaf", upright), ("stem", circle)])
    plain = {**disc, "region_attributes": {}}
    convert(save(plain), tmp_path / "out.json", "--force", "--class-name", "balloon")
    assert read(tmp_path / "out.json")["a.jpg"][0][0] == "balloon"
    assert "region 1: its kind is None, not one class" in complain(capsys, save(plain, ring))
    write_other_files(tmp_path / "via" / "0")
    assert find_format(tmp_path / "via") == "via"
    several = {**ring, "region_attributes": {"kind": "leaf", "colour": "red"}}
    assert "have the attributes colour, kind; name the one of the class 'class'" in complain(capsys, save(several))
    convert(save({**ring, "region_attributes": {"note": "n", "colour": "c", "Class": "leaf"}}), tmp_path / "named.json")
    assert "classes are of the attribute Class; not used: colour, note\n" in capsys.readouterr().out
    unfilled = {"image_quality": {"good": True}, "type": "unknown"}
    for name in ("leaf", "not_defined"):
        convert(save({**ring, "region_attributes": {**unfilled, "name": name}}), tmp_path / f"{name}.json")
        assert [found for found, _ in read(tmp_path / f"{name}.json")["a.jpg"]] == [name]
        assert "classes are of the attribute name; not used: image_quality, type\n" in capsys.readouterr().out
    two = {**unfilled, "name": "leaf", "type": "plant"}
    assert "have the attributes image_quality, name, type; name" in complain(
        capsys, save({**ring, "region_attributes": two})
    )
    convert(save(ring, {**disc, "region_attributes": {"Kind": "stem"}}), tmp_path / "spelt.json")
    assert [name for name, _ in read(tmp_path / "spelt.json")["a.jpg"]] == ["leaf", "stem"]
    both = {**ring, "region_attributes": {"kind": "leaf", "Kind": "stem"}}
    assert "have the attributes Kind, kind; name the one" in complain(capsys, save(both))
    save_photo(tmp_path / "via" / "b.jpg", 1)
    others = {**disc, "region_attributes": {"a": "x", "name": "stem"}}
    more = {"b": {"filename": "b.jpg", "regions": [others]}}
    (tmp_path / "via" / "more.json").write_text(json.dumps(more))
    convert(save(ring), tmp_path / "of_files.json")
    assert "classes are of the attribute kind or name; not used: a\n" in capsys.readouterr().out
    assert [name for objects in read(tmp_path / "of_files.json").values() for name, _ in objects] == ["stem", "leaf"]
    assert "region 1: its attribute of a class is None, not one class" in complain(capsys, save(plain))
    (tmp_path / "via" / "more.json").unlink()
    outline = region("polyline", {"kind": "leaf"}, all_points_x=[4, 30, 30, 4, 4], all_points_y=[4, 4, 24, 24, 5])
    bent = region("polyline", {"kind": "leaf"}, all_points_x=[4, 30, 30, 4], all_points_y=[4, 4, 24, 24])
    convert(save(outline, bent), tmp_path / "lines.json")
    printed = capsys.readouterr().out
    assert "1 photos have lines that end where they begin, which are read as outlines" in printed
    assert "left out: 1 lines, which are no areas" in printed
    (found,) = read(tmp_path / "lines.json").values()
    assert same(found, [("leaf", (columns >= 4) & (columns <= 30) & (rows >= 4) & (rows <= 24))])
    line = region("polygon", all_points_x=[1, 5], all_points_y=[1, 5])
    assert "region 1: a polygon without its numbers" in complain(capsys, save(line))
    (tmp_path / "via" / "a.jpg").unlink()
    assert "via.json: its photo a.jpg is missing" in complain(capsys, save(ring))


@pytest.mark.parametrize("write", [write_via, write_labelme])
def test_a_mask_beside_labels_is_not_their_photo(
    write: Callable[[Path], Masks], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    beside, photos = root / "annotations", root / "photos"
    write(beside)
    save_photo(root / "thumbnails" / "train" / "a.jpg", 5)
    save_photo(photos / "val" / "a.jpg", 6)  # another photo, of another subset
    for key in ("train/b", "val/c"):
        (photos / key).parent.mkdir(exist_ok=True)
        shutil.copy(beside / f"{key}.jpg", photos / f"{key}.jpg")
    convert(root, tmp_path / "out.json")
    assert sorted(read(tmp_path / "out-train.json")) == ["annotations/train/a.jpg", "annotations/train/b.jpg"]
    shutil.copy(beside / "train" / "a.jpg", photos / "train" / "a.jpg")
    for key in scene():
        save_photo(beside / f"{key}.jpg", 9)  # a mask
    convert(root, tmp_path / "out.json", "--force")
    assert sorted(read(tmp_path / "out-train.json")) == ["photos/train/a.jpg", "photos/train/b.jpg"]
    assert sorted(read(tmp_path / "out-val.json")) == ["photos/val/c.jpg"]
    save_photo(root / "images" / "train" / "a.jpg", 8)
    said = complain(capsys, root)
    assert f"a.jpg may be {root}/images/train/a.jpg or {photos}/train/a.jpg; move those that it was not drawn" in said
    if write is write_labelme:
        path = beside / "train" / "a.json"
        path.write_text(path.read_text().replace("..\\\\photos", "C:\\\\me\\\\images\\\\train"))
        convert(root, tmp_path / "out.json", "--force")
        assert sorted(read(tmp_path / "out-train.json")) == ["images/train/a.jpg", "photos/train/b.jpg"]


def test_shapes_of_a_group_of_cvat_are_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "cvat"
    save_photo(root / "images" / "a.jpg")

    def save(shapes: str, width: int = W) -> Path:
        image = f'<image id="0" name="a.jpg" width="{width}" height="{H}">{shapes}</image>'
        (root / "annotations.xml").write_text(f"<annotations>{image}</annotations>")
        return root

    part = '<polygon label="leaf" points="{}" group_id="{}"></polygon>'
    first, second = "1.25,2.5;9.75,2.5;5.1,11.3", "20,20;30,20;30,28"
    ring = '<ellipse label="leaf" cx="40" cy="20" rx="5" ry="5"></ellipse>'
    convert(save(part.format(first, 1) + part.format(second, 1) + part.format(first, 0) + ring), tmp_path / "out.json")
    grouped, alone, disc = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert grouped["segmentation"] == [[1.25, 2.5, 9.75, 2.5, 5.1, 11.3], [20, 20, 30, 20, 30, 28]]
    assert alone["segmentation"] == grouped["segmentation"][:1]
    rows, columns = np.mgrid[:H, :W] + 0.5
    assert np.array_equal(decode_mask(disc["segmentation"], (H, W)), np.hypot(columns - 40, rows - 20) <= 5)
    assert "polygon 1: a polygon without its numbers" in complain(capsys, save(part.format("1,2;3,4", 0)))
    assert f"image a.jpg: {W + 1} x {H} pixels, but its photo" in complain(capsys, save(ring, W + 1))
    mask = '<mask label="leaf" rle="0, 9" left="58" top="0" width="3" height="3"></mask>'
    assert "mask 1: its mask leaves the photo" in complain(capsys, save(mask))
    (root / "images" / "a.jpg").rename(root / "a photo.jpg")
    assert "a.jpg is missing; put it beside" in complain(capsys, save(ring))
    for number, folder in enumerate(("raw", "resized")):
        (root / folder).mkdir()
        save_photo(root / folder / "a.jpg", seed=number)
        if number:
            assert "a.jpg is missing (it may be raw/a.jpg or resized/a.jpg); put" in complain(capsys, root)
        else:
            convert(root, tmp_path / "moved.json")
    (root / "annotations.xml").write_text("<annotations><image ")
    assert "annotations.xml: no valid XML" in complain(capsys, root)


def test_polygons_of_supervisely_have_holes_and_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "project"
    save_photo(root / "ds0" / "img" / "a.jpg")
    (root / "ds0" / "ann").mkdir()

    def save(*objects: dict[str, Any]) -> Path:
        content = {"size": {"height": H, "width": W}, "objects": objects}
        (root / "ds0" / "ann" / "a.jpg.json").write_text(json.dumps(content))
        return root

    def polygon(exterior: list[list[int]], *interior: list[list[int]], **keys: Any) -> dict[str, Any]:
        points = {"exterior": exterior, "interior": list(interior)}
        return {"classTitle": "leaf", "geometryType": "polygon", "points": points, **keys}

    outer = [[4, 5], [30, 5], [30, 25], [4, 25]]
    hole = [[10, 10], [20, 10], [20, 15], [10, 15]]
    far = [[40, 30], [50, 30], [50, 35], [40, 35]]
    convert(save(polygon(outer, hole), polygon(outer, instance="x"), polygon(far, instance="x")), tmp_path / "out.json")
    ring, joined = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert np.array_equal(decode_mask(ring["segmentation"], (H, W)), scene()["train/a"][0][1])
    assert joined["segmentation"] == [[value for point in one for value in point] for one in (outer, far)]
    written = root / "ds0" / "ann" / "a.jpg.json"
    written.write_text(json.dumps({**json.loads(written.read_text()), "size": [H, W]}))
    convert(root, tmp_path / "listed.json")
    assert (tmp_path / "listed.json").read_text() == (tmp_path / "out.json").read_text()
    assert "object 1: a polygon without its numbers" in complain(capsys, save(polygon([[1, 1], [2, 2]])))
    assert "object 1: has no classTitle" in complain(capsys, save({**polygon(outer), "classTitle": ""}))
    (root / "ds0" / "img" / "a.jpg").unlink()
    assert "its photo" in (sentence := complain(capsys, save(polygon(outer)))) and "is missing" in sentence


def test_regions_of_label_studio_are_percents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    save_photo(root / "a b.jpg")

    def save(*results: dict[str, Any], annotations: int = 1, image: str = "s3://bucket/a%20b.jpg") -> Path:
        task = {"id": 7, "data": {"image": image, "text": "x"}, "annotations": [{"result": results}] * annotations}
        (root / "tasks.json").write_text(json.dumps([task]))
        return root

    corner = [[0, 0], [50, 0], [50, 100]]
    ring = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 10, "rotation": 0}
    alone = {**result("polygon", [], points=corner), "id": "one"}
    named = {**result("labels", ["stem"], points=corner), "id": "one"}
    convert(
        save(result("polygonlabels", ["leaf"], points=corner), result("ellipselabels", ["leaf"], **ring)),
        tmp_path / "out.json",
    )
    polygon, disc = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert polygon["segmentation"] == [[0, 0, W / 2, 0, W / 2, H]]
    rows, columns = np.mgrid[:H, :W] + 0.5
    inside = ((columns - W / 2) / (W / 4)) ** 2 + ((rows - H / 2) / (H / 10)) ** 2 <= 1
    assert np.array_equal(decode_mask(disc["segmentation"], (H, W)), inside)
    write_other_files(root / "0")
    assert find_format(root) == "label_studio"
    tasks = json.loads(save(alone, named).joinpath("tasks.json").read_text())
    for data, said in {
        '{"img": "/data/upload/1/0123abcd-a%20b.jpg", "patient": "p1"}': "",
        '{"left": "a b.jpg", "right": "c.jpg"}': "task 7: its data may name its photo by left or right; name the key",
        '{"patient": 5}': "task 7: its data name no photo; name the key of the photo 'image' in this file",
    }.items():
        (root / "tasks.json").write_text(json.dumps([{**tasks[0], "data": json.loads(data)}]))
        if said:
            assert said in complain(capsys, root)
        else:
            convert(root, tmp_path / "img.json")
    convert(save(alone, named), tmp_path / "named.json")
    assert [name for name, _ in read(tmp_path / "named.json")["a b.jpg"]] == ["stem"]
    assert "result 1: its labels are none; give it one" in complain(capsys, save(alone))
    assert "task 7: has 2 annotations; leave the one that counts" in complain(capsys, save(named, annotations=2))
    assert "drawn on a photo that was turned" in complain(capsys, save({**alone, "image_rotation": 90}))
    assert "another.jpg is missing" in complain(capsys, save(alone, image="another.jpg"))
    for number, folder in enumerate("xy"):
        save_photo(root / folder / "0123abcd-c.jpg", seed=number)
    several = "(it may be x/0123abcd-c.jpg or y/0123abcd-c.jpg)"
    assert several in complain(capsys, save(named, alone, image="0123abcd-c.jpg")), "which is not a missing photo"
    assert "result 1: a polygon without its numbers" in complain(capsys, save({"id": "one", "type": "polygon"}, named))
    wide = f"{4 * W * H:032b}{8:05b}" + f"{15:04b}" * 4 + f"100{0:016b}{300:09b}"  # a value of nine bits
    wide_bytes = [int(wide[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(wide), 8)]
    for damaged in (pack(np.ones((H, W)))[:-3], pack(np.ones((H, W - 1))), ["x"], wide_bytes):
        brush = result("brushlabels", ["leaf"], format="rle", rle=damaged)
        assert "result 1: a brush without its numbers" in complain(capsys, save(brush))
    mask, buffer = scene()["train/a"][0][1], io.BytesIO()
    layers = [np.zeros((H, W), dtype=np.uint8)] * 3 + [mask.astype(np.uint8) * 255]  # black on transparency
    Image.fromarray(np.stack(layers, axis=-1)).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    vector = result("vectorlabels", ["leaf"], vertices=[])
    convert(save(result("bitmasklabels", ["leaf"], imageDataURL=url), vector), tmp_path / "bits.json")
    assert same(read(tmp_path / "bits.json")["a b.jpg"], [("leaf", mask)])
    assert "left out: 1 regions of the unknown type vector, the first: " in capsys.readouterr().out
    for value in ({}, {"imageDataURL": url[:60]}):
        sentence = complain(capsys, save(result("bitmasklabels", ["leaf"], **value)))
        assert "result 1: a bitmask without its numbers, or of another size" in sentence


def test_runs_of_a_csv_are_counted_as_the_photos_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "out.json"
    for seed, name in enumerate(("a", "b", "c")):
        save_photo(root / "photos" / f"{name}.png", seed)
    masks = [mask for _, mask in scene()["train/a"]]

    def save(*rows: str, header: str = "ImageId,EncodedPixels", name: str = "labels.csv") -> Path:
        (root / name).write_text("\n".join([header, *rows]) + "\n")
        return root

    save(*(f"photos/a.png,{runs(mask)}" for mask in masks), "b.png,", "c.png,-1")
    assert find_format(root) == "rle_csv"
    convert(root, out)
    assert same(read(out)["photos/a.png"], [("object", mask) for mask in masks]) and read(out)["photos/b.png"] == []
    printed = capsys.readouterr().out
    assert "3 images, 2 of them without an object" in printed
    assert "the pixels of runs are counted by columns, which gives shorter outlines" in printed
    assert "labels.csv: row 2: the run 2399 3 leaves the photo of 60 x 40 pixels" in complain(
        capsys, save("a.png,2399 3")
    )
    assert "the run 0 5 leaves the photo" in complain(capsys, save("a.png,0 5"))
    many = [f"a.png,{number} 2" for number in range(1, 300)]
    assert "row 301: its runs are no pairs of start and length" in complain(capsys, save(*many, "a.png,1 2 3"))
    sized = save("a.png,1 2,50,40", header="ImageId,EncodedPixels,Width,Height")
    assert "50 x 40 pixels, but its photo" in complain(capsys, sized)
    save_photo(root / "raw" / "a.jpg")
    assert "its photo a may be photos/a.png or raw/a.jpg; keep one of them" in complain(capsys, save("a,1 2"))
    save_photo(root / "photos" / "test_plate.png")  # whose name is of no subset
    convert(save("test_plate.png,1 2", "b.png,1 2"), out, "--force")
    assert len(read(out)) == 2
    save("raw/a.jpg,1 2", name="more.csv")
    assert "is in " in complain(capsys, save("raw/a.jpg,1 2"))
    (root / "more.csv").write_bytes(b"\xff\xfe no text")
    Image.new("RGB", (30, 30)).save(root / "photos" / "square.png")
    convert(save("square.png,1 30"), out, "--force")
    printed = capsys.readouterr().out
    assert "counted by columns, as Kaggle's are; square photos do not tell" in printed
    assert "left out: 5 photos without a row" in printed
    assert read(out)["photos/square.png"][0][1][:, 0].all()
    empty = (f"absent{number}.png,{'-1' if number % 2 else ''}" for number in range(250))
    for rows, header in ((["a.png;leaf;1 2"], "ImageId;class;rle"), ([*empty, "a.png,1 2"], "ImageId,rle")):
        convert(save(*rows, header=header, name="labels.csv"), out, "--force")
        assert len(read(out)["photos/a.png"]) == 1
    relative = save("a.png,5 7 2 4")  # each run counted from the end of the one before it
    assert "no labels of a known format" in complain(capsys, relative)


def test_the_column_of_photos_is_not_one_of_other_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    for seed in range(4):
        save_photo(root / f"{seed}.png", seed)

    def save(header: str, *rows: str) -> Path:
        (root / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
        return root

    numbers = ((0, 3), (1, 2), (2, 3))  # of a row, and of its photo
    for header, row in {
        "id,image_id,rle": "{0},{1},1 9",
        ",key,rle": "{0},{1}.png,1 9",
        "class_id,tile,rle": "{0},{1},1 9",
        "id,image_id,file_name,rle": "{0},{1},{1}.png,1 9",
    }.items():
        convert(save(header, *(row.format(*pair) for pair in numbers)), tmp_path / "out.json", "--force")
        found = {name: len(objects) for name, objects in read(tmp_path / "out.json").items()}
        assert found == {"3.png": 2, "2.png": 1}, header
    printed = capsys.readouterr().out
    assert "labels.csv: photos are named in the column 'tile', and classes in 'class_id'\n" in printed
    assert "labels.csv: columns not used: id, image_id; name the one of the class, if any is, 'class'\n" in printed
    assert printed.count("columns not used") == 3
    for header in ("id,tile,rle", "index,image,rle"):  # which names but one of four photos
        absent = "7" if "image" in header else "2"
        said = complain(capsys, save(header, "0,3,1 9", f"1,{absent},1 9", f"2,{absent},1 9"))
        assert "its photos may be those of the column '" in said and "; remove the one of other content" in said


def test_results_of_yolo_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "results.json"
    write_yolo(root)
    convert(root, tmp_path / "gt.json")
    labels, gt = root / "labels" / "train", tmp_path / "gt-train.json"
    arguments = ["import-results", str(labels), "--ground-truth", str(gt), "--out", str(out)]
    arguments += ["--names", str(root / "data.yaml")]
    assert main(arguments) == 2 and not out.exists()
    assert "a.txt: line 1: no confidence after the points; predict with save_conf=True" in capsys.readouterr().err
    for path in labels.iterdir():
        path.write_text("".join(f"{line} 0.75\n" for line in path.read_text().splitlines()))
    (labels / "b.txt").write_text((labels / "b.txt").read_text() + "0 0.1 0.1 0.2 0.2 0.5\n")
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "3 results; 0 of 2 images have no file" in printed and "left out: 1 lines" in printed
    truth, found = json.loads(gt.read_text())["annotations"], json.loads(out.read_text())
    for record, annotation in zip(found, truth, strict=True):
        assert record["score"] == 0.75
        for key in ("image_id", "category_id", "segmentation", "bbox"):
            assert record[key] == annotation[key]
    assert main(["evaluate-file", str(gt), str(out)]) == 0
    assert "AP 100.00" in capsys.readouterr().out
    (labels / "d.txt").write_text("0 0 0 1 0 1 1 0.5")
    assert main(arguments) == 2
    assert "d.txt: no image of the ground truth has this name" in capsys.readouterr().err


def test_every_format_has_a_test() -> None:
    assert set(WRITERS) | {"coco"} >= set(plugins.names("converters"))
