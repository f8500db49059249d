"""Check by value what the network sees of every mode, depth and orientation, and how files are found and compared."""

from __future__ import annotations

import json
import re
import struct
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFile, ImageOps

from pais_bench.annotations.store import Store
from pais_bench.cli.main import main
from pais_bench.data.read import read_file, read_image
from pais_bench.datasets.coco import Dataset, Options
from pais_bench.errors import BenchError
from pais_bench.images import similar
from pais_bench.images.files import ImageFolder, image_subsets
from pais_bench.images.pixels import PLAIN, TURNS, read_header, read_pixels, verify
from pais_bench.images.similar import find_similar

COLOURS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = np.array([[0, 1, 128, 200, 254, 255]], dtype=np.uint8)
DEEP = np.array([[0, 257, 128, 129, 51400, 65535]], dtype=np.uint16)
DEEP_AS_8 = np.array([[0, 1, 0, 1, 200, 255]])
SHOWN = np.stack([GREY] * 3, axis=-1)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def alpha(mode: str) -> Image.Image:
    """Return the greys with an alpha channel, transparent on the left."""
    image = Image.fromarray(GREY).convert(mode)
    image.putalpha(Image.fromarray(np.array([[0, 0, 90, 255, 255, 255]], dtype=np.uint8)))
    return image


def palette(**options: Any) -> Image.Image:
    """Return the greys as indices 0..5 of a palette."""
    image = Image.fromarray(np.arange(6, dtype=np.uint8)[None]).convert("L")
    image.putpalette([value for grey in GREY[0] for value in [grey] * 3])
    return image


BINARY = np.where(GREY > 127, 255, 0)
MODES: list[tuple[str, str, Image.Image, dict[str, Any], np.ndarray]] = [
    ("1", "png", Image.fromarray(GREY).convert("1", dither=Image.Dither.NONE), {}, BINARY),
    ("L", "png", Image.fromarray(GREY), {}, GREY),
    ("L", "tif", Image.fromarray(GREY), {}, GREY),
    ("LA", "png", alpha("L"), {}, GREY),
    ("RGBA", "png", alpha("RGB"), {}, GREY),
    ("P", "png", palette(), {}, GREY),
    ("P", "png", palette(), {"transparency": b"\0\x80\xff"}, GREY),
    ("P", "gif", palette(), {"transparency": 3}, GREY),
    ("PA", "tif", palette().convert("PA"), {}, GREY),
    ("CMYK", "tif", Image.merge("CMYK", [Image.fromarray(0 * GREY)] * 3 + [Image.fromarray(255 - GREY)]), {}, GREY),
    ("YCbCr", "tif", Image.fromarray(GREY).convert("RGB").convert("YCbCr"), {}, GREY),
    ("I;16", "png", Image.fromarray(DEEP), {}, DEEP_AS_8),
    ("I;16", "tif", Image.fromarray(DEEP), {}, DEEP_AS_8),
    ("I;16", "tif", Image.fromarray(DEEP), {"tiffinfo": {262: 0}}, 255 - DEEP_AS_8),
    ("I;16B", "tif", Image.frombytes("I;16B", (6, 1), DEEP.astype(">u2").tobytes()), {}, DEEP_AS_8),
    ("I", "pgm", Image.fromarray(DEEP), {}, DEEP_AS_8),
    ("F", "tif", Image.fromarray(np.array([[0, 1 / 255, 0.5, 0.501, 0.999, 1]], np.float32)), {}, None),
]


@pytest.mark.parametrize(
    ("mode", "suffix", "image", "options", "expected"), MODES, ids=[f"{mode}-{suffix}" for mode, suffix, *_ in MODES]
)
def test_every_mode_by_value(
    mode: str, suffix: str, image: Image.Image, options: dict[str, Any], expected: np.ndarray | None, tmp_path: Path
) -> None:
    path = save(tmp_path / f"a.{suffix}", image, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(path).mode == mode
        pixels = read_pixels(path)
    grey = np.array([[0, 1, 128, 128, 255, 255]]) if expected is None else expected
    assert pixels.dtype == np.uint8 and pixels.shape == (1, 6, 3)
    assert pixels.tolist() == np.stack([grey] * 3, axis=-1).tolist()
    verify(path)


def test_colours_keep_their_order(tmp_path: Path) -> None:
    for path in (tmp_path / "a.png", tmp_path / "a.tif", tmp_path / "a.bmp"):
        assert np.array_equal(read_pixels(save(path, Image.fromarray(COLOURS))), COLOURS)
    hsv = save(tmp_path / "palette.gif", Image.fromarray(COLOURS).quantize(24))
    assert np.abs(read_pixels(hsv).astype(int) - COLOURS).max() <= 2


def test_modes_that_no_file_here_has_convert_too() -> None:
    for mode in PLAIN:
        assert Image.new(mode, (2, 1)).convert("RGB").mode == "RGB"


def png_of_16_bits(colours: np.ndarray) -> bytes:
    """Encode u16[H,W,3] as a PNG, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width, _ = colours.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_colour_of_16_bits_is_its_high_byte(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_of_16_bits(COLOURS.astype(np.uint16) * 257))
    assert np.array_equal(read_pixels(tmp_path / "a.png"), COLOURS)


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """Encode values u16[1,W] below 4096, of an even W, as a TIFF of 12 bits, which Pillow cannot write."""
    width = values.shape[1]
    packed = b"".join(bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255]) for a, b in values.reshape(-1, 2).tolist())
    tags = {256: width, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(packed)}
    start = 8 + len(packed) + len(packed) % 2
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = struct.pack("<2sHI", b"II", 42, start) + packed.ljust(start - 8, b"\0")
    return content + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_12_bits_are_scaled_by_their_own_white(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_of_12_bits(np.array([[0, 16, 2048, 4095]], dtype=np.uint16)))
    assert read_pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.array([[0, 70000]], np.int32)), "32-bit integers .* no agreed white; save it as 8 bits"),
        (Image.fromarray(np.array([[0, 200.0]], np.float32)), "floats from 0 to 200; scale them to 0..1"),
        (Image.fromarray(np.array([[0, -0.5]], np.float32)), "floats from -0.5 to 0; scale"),
        (Image.fromarray(np.array([[0, np.nan]], np.float32)), "floats from nan to nan; scale"),
        (Image.new("LAB", (2, 1)), "mode LAB; save it as RGB"),
    ],
    ids=["int32", "0..255", "negative", "nan", "LAB"],
)
def test_a_range_that_is_not_known_is_refused(image: Image.Image, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", image)
    with pytest.raises(BenchError, match=rf"a\.tif: .*{message}"):
        read_pixels(path)
    with pytest.raises(BenchError, match=message):
        verify(path)


FORMATS: dict[str, Callable[[Path, Image.Image, int], object]] = {
    "png": lambda path, image, tag: image.save(path, exif=exif(tag)),
    "webp": lambda path, image, tag: image.save(path, exif=exif(tag), lossless=True),
    "tif": lambda path, image, tag: image.save(path, tiffinfo={0x0112: tag}),
    "tiff": lambda path, image, tag: image.save(path, tiffinfo={0x0112: tag}, compression="tiff_lzw"),
    "jpg": lambda path, image, tag: image.save(path, exif=exif(tag), quality=100, subsampling=0),
}


def exif(tag: int) -> Image.Exif:
    content = Image.Exif()
    content[0x0112] = tag
    return content


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("tag", TURNS)
def test_the_size_of_the_record_decides_whether_an_image_is_turned(tag: int, suffix: str, tmp_path: Path) -> None:
    """Compare with Pillow's own transposition of a PNG."""
    path, reference = tmp_path / f"a.{suffix}", tmp_path / "reference.png"
    smooth = Image.fromarray(COLOURS).resize((48, 32), Image.Resampling.NEAREST)  # JPEG keeps blocks of 8
    FORMATS[suffix](path, smooth, tag)
    FORMATS["png"](reference, smooth, tag)
    stored = np.asarray(smooth)
    with Image.open(reference) as file:
        upright = np.asarray(ImageOps.exif_transpose(file))
    margin = 12 if suffix == "jpg" else 0
    header = read_header(path)
    assert (header.stored, header.upright, header.orientation) == ((32, 48), upright.shape[:2], tag)
    assert np.abs(read_pixels(path).astype(int) - upright).max() <= margin
    assert np.abs(read_pixels(path, upright.shape[:2]).astype(int) - upright).max() <= margin
    if tag >= 5:
        assert np.abs(read_pixels(path, (32, 48)).astype(int) - stored).max() <= margin
    with pytest.raises(BenchError, match=r"pixels.*, but image 7 is 9 x 8 in the annotations; replace the file, or"):
        read_pixels(path, (8, 9), "image 7")


def test_a_damaged_orientation_is_none(tmp_path: Path) -> None:
    for content in (b"Exif\0\0MM\0*\0\0\0", b"Exif\0\0garbage", exif(9).tobytes()):
        path = save(tmp_path / "a.jpg", Image.fromarray(COLOURS), exif=content)
        assert read_header(path).orientation == 1


def test_the_tensor_is_the_decoded_memory(tmp_path: Path) -> None:
    image = read_file(save(tmp_path / "a.png", Image.fromarray(COLOURS)))
    assert image.dtype == torch.uint8 and image.shape == (3, 4, 6) and image.stride() == (1, 18, 3)


def jpeg(path: Path) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return save(path, Image.fromarray(noise)).read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp", "gif"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_a_truncated_file_is_found_also_where_a_library_tolerates_it(
    suffix: str, tolerant: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    content = jpeg(path)
    verify(path)
    path.write_bytes(content[: len(content) * 2 // 3])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    for read in (verify, read_pixels):
        with pytest.raises(BenchError, match=r"a\.\w+: unreadable image \(.*\); replace the file"):
            read(path)


def test_a_jpeg_whose_end_is_zeros_is_found(tmp_path: Path) -> None:
    content = jpeg(tmp_path / "a.jpg")
    half = len(content) // 2
    (tmp_path / "a.jpg").write_bytes(content[:half] + bytes(len(content) - half))
    with pytest.raises(BenchError, match=r"a\.jpg: unreadable image"):
        verify(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(content + bytes(3000))
    verify(tmp_path / "a.jpg")


def test_a_hundred_megapixels_need_no_option(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("1", (20_000, 10_000)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_header(path).stored == (10_000, 20_000)


NAMES = {
    "dot": ("./1.png", "1.png"),
    "parent": ("../train/1.png", "1.png"),
    "backslash": ("deep\\2.png", "deep/2.png"),
    "address": ("https://example.org/train/1.png", "1.png"),
    "percent": ("a%20b.png", "a b.png"),
    "folder in front": ("train/1.png", "1.png"),
    "other machine": ("/home/me/set/deep/2.png", "deep/2.png"),
    "Windows": ("C:\\set\\train\\1.png", "1.png"),
    "folder left out": ("2.png", "deep/2.png"),
    "case": ("DEEP/2.PNG", "deep/2.png"),
    "composed": (unicodedata.normalize("NFC", "é.png"), unicodedata.normalize("NFD", "é.png")),
    "linked": ("linked/3.png", "linked/3.png"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with a sub-folder, a link to one, and a loop of links."""
    (tmp_path / "train" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "3.png").touch()
    (tmp_path / "train" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train")
    for name in ("1.png", "deep/2.png", "a b.png", unicodedata.normalize("NFD", "é.png")):
        (tmp_path / "train" / name).touch()
    return tmp_path / "train"


@pytest.mark.parametrize(("name", "file"), NAMES.values(), ids=NAMES)
def test_a_name_is_found_however_it_is_spelt(name: str, file: str, folder: Path) -> None:
    assert ImageFolder(folder).find([name]) == [file]


def test_absolute_names_and_files_outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = folder.parent / "elsewhere" / "3.png"
    names = [str(folder / "1.png"), str(outside), "../elsewhere/3.png"]
    assert ImageFolder(folder).find(names) == ["1.png", str(outside), str(outside)]
    monkeypatch.chdir(folder.parent)
    assert ImageFolder(Path("train")).find(names) == ["1.png", str(outside), str(outside)]


def test_a_guess_takes_no_file_of_another_image(folder: Path) -> None:
    images = ImageFolder(folder)
    assert images.find(["1.png", "other/1.png"]) == ["1.png", None]
    assert images.find(["x/1.png", "y/1.png"]) == [None, None], "both may be the file"
    assert images.find(["./1.png", "./1.png"]) == ["1.png", "1.png"], "two records of one file are reported elsewhere"
    (folder / "1.PNG").touch()
    assert ImageFolder(folder).find(["1.Png"]) == [None]
    assert ImageFolder(folder).hint("1.Png") == "it may be 1.PNG or 1.png"
    assert images.hint("b/2.png") == "deep/2.png has its name in another folder"
    assert images.hint("9.png") == ""


def square(number: int, image: int) -> dict[str, Any]:
    box = [1, 1, 3, 2]
    polygon = [1, 1, 4, 1, 4, 3, 1, 3]
    ids = {"id": number, "image_id": image, "category_id": 1}
    return {**ids, "iscrowd": 0, "area": 6, "bbox": box, "segmentation": [polygon]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a dataset of three training and two validation images of noise, 6 x 4 pixels."""
    rng = np.random.default_rng(0)
    for part, ids in (("train", (1, 2, 3)), ("val", (4, 5))):
        (tmp_path / part).mkdir()
        for number in ids:
            pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            save(tmp_path / part / f"{number}.png", Image.fromarray(pixels))
        images = [{"id": number, "file_name": f"{number}.png", "height": 4, "width": 6} for number in ids]
        annotations = [square(number, number) for number in ids]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "leaf"}]}
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    return tmp_path


def change(root: Path, part: str, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit an annotation file."""
    content = json.loads((root / f"{part}.json").read_text())
    edit(content)
    (root / f"{part}.json").write_text(json.dumps(content))


def prepare(root: Path, verify_images: bool | None = None, repair: bool = False, **options: Any) -> list[str]:
    """Prepare the dataset and return its lines of progress."""
    lines: list[str] = []
    paths = {f"{part}_{kind}": part + end for part in ("train", "val") for kind, end in KINDS.items()}
    Dataset(Options(**paths, **options), root).prepare(root / "out", "mine", repair, lines.append, verify_images)
    return lines


KINDS = {"annotations": ".json", "images": ""}


def test_names_in_other_spellings_are_kept_as_those_of_the_files(root: Path) -> None:
    change(root, "train", lambda content: content["images"][1].update(file_name=".\\2.png"))
    lines = prepare(root)
    assert any("1 of 3 file names" in line and ".\\2.png is 2.png" in line for line in lines)
    store = Store.open(root / "out", "train")
    assert store.path(2) == root / "train" / "2.png" and read_image(store, 2).shape == (3, 4, 6)


def test_a_missing_image_is_told_with_what_was_found(root: Path) -> None:
    change(root, "train", lambda content: content["images"][1].update(file_name="deep/1.png"))
    with pytest.raises(BenchError, match=r"the first: deep/1\.png \(1\.png is the file of another image\); put them"):
        prepare(root)


def test_damaged_images_are_counted_before_the_training(root: Path) -> None:
    for part, number in (("train", 1), ("train", 3)):
        path = root / part / f"{number}.png"
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(
        BenchError, match=r"train/1\.png: unreadable.*; .*train/3\.png: unre.*\(2 of 3 images have such"
    ):
        prepare(root)
    prepare(root, verify_images=False)
    assert len(Store.open(root / "out", "train").image_ids) == 3
    prepare(root, repair=True)
    assert Store.open(root / "out", "train").image_ids == (2,)


def test_an_image_above_the_limit_is_refused(root: Path) -> None:
    with pytest.raises(BenchError, match=r"1\.png: 0 megapixels, more than 2e-05; .*raise dataset\.options\.max_meg"):
        prepare(root, max_megapixels=0.00002, repair=True)


def tag_image(path: Path, tag: int, size: tuple[int, int] = (6, 4)) -> None:
    save(path, Image.fromarray(COLOURS).resize(size), exif=exif(tag))


def test_orientations_that_the_size_does_not_show_are_told_or_refused(root: Path) -> None:
    tag_image(root / "train" / "1.png", 3)
    (line,) = [line for line in prepare(root) if "EXIF" in line]
    assert "1 images are turned" in line and "of 1 the size does not show" in line and line.endswith("1.png")
    tag_image(root / "train" / "2.png", 6)
    with pytest.raises(BenchError, match=r"1\.png: EXIF orientation 3, .*while those of .*2\.png are not \(1 such"):
        prepare(root)
    tag_image(root / "train" / "2.png", 6, size=(4, 6))
    prepare(root)
    store = Store.open(root / "out", "train")
    turned = Image.fromarray(COLOURS).resize((4, 6)).rotate(-90, expand=True)
    assert np.array_equal(read_image(store, 2).permute(1, 2, 0).numpy(), np.asarray(turned))


def test_eight_bits_in_files_of_sixteen_are_refused_and_dark_ones_told(root: Path) -> None:
    grey = np.arange(24, dtype=np.uint16).reshape(4, 6)
    for factor, fault in ((10, True), (150, False)):
        for number in (1, 2, 3):
            save(root / "train" / f"{number}.png", Image.fromarray(grey * factor))
        if fault:
            with pytest.raises(BenchError, match=r"1\.png: one of 3 images of 16 bits, none of which .*save them as 8"):
                prepare(root)
        else:
            assert any("3 images of 16 bits reach 5% of white at most" in line for line in prepare(root))


def test_pages_behind_the_first_are_told(root: Path) -> None:
    pages = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    save(root / "train" / "1.tif", pages[0], save_all=True, append_images=pages[1:])
    change(root, "train", lambda content: content["images"][0].update(file_name="1.tif"))
    assert any(
        "1 images have several pages or frames, of which the first is used: 1.tif" in line for line in prepare(root)
    )


def test_copies_are_told(root: Path) -> None:
    assert not [line for line in prepare(root) if "byte for byte" in line or "twice" in line]
    for copy in ("val/5.png", "train/3.png"):
        (root / copy).write_bytes((root / "train" / "2.png").read_bytes())
    twice = {"id": 9, "file_name": "1.png", "height": 4, "width": 6}
    change(root, "train", lambda content: content["images"].append(twice))
    change(root, "val", lambda content: content["annotations"].append(square(70, 4)))
    lines = prepare(root)
    assert any("val.json: objects that are there twice" in line and "annotation 70 = 4" in line for line in lines)
    between, within = [line for line in lines if "byte for byte" in line]
    assert f"in train and val, byte for byte: 1, the first: {root}/train/2.png = {root}/val/5.png" in between
    assert f"more than once in train, byte for byte: 1, the first: {root}/train/2.png = {root}/train/3.png" in within
    (records,) = [line for line in lines if "several image records of train name" in line]
    assert f": 1, the first: {root}/train/1.png; give the annotations of all records of a file one image_id" in records


def photo(rng: np.random.Generator, side: int = 160) -> Image.Image:
    """Draw smooth noise of a few scales, as photos have."""
    layers = []
    for size in (3, 6, 12, 40):
        noise = Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        layers.append(noise.resize((side, side), Image.Resampling.BICUBIC))
    weights = (0.4, 0.3, 0.2, 0.1)
    mean = sum(weight * np.asarray(layer, np.float64) for weight, layer in zip(weights, layers, strict=True))
    return Image.fromarray(np.asarray(mean).round().astype(np.uint8))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda image: image.resize((80, 80)),
    "stretched": lambda image: image.resize((200, 120)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "grey": lambda image: image.convert("L"),
}


def test_planted_copies_and_no_others_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
    photos = [photo(rng) for _ in range(40)]
    for index, image in enumerate(photos):
        save(tmp_path / ("train" if index < 30 else "val") / f"{index}.png", image)
    for flat in range(3):
        save(tmp_path / ("train" if flat else "val") / f"flat_{flat}.png", Image.new("RGB", (50, 50), (flat, 0, 0)))
    assert main(["doctor", str(tmp_path)]) == 0
    for index, (name, edit) in enumerate(COPIES.items()):
        save(tmp_path / "val" / f"{name}.jpg", edit(photos[index]), quality=40)
    save(tmp_path / "val" / "turned.jpg", photos[9].transpose(Image.Transpose.ROTATE_90), exif=exif(6))
    save(tmp_path / "train" / "again.webp", photos[20])
    (tmp_path / "val" / "torn.jpg").write_bytes(b"torn")
    capsys.readouterr()
    assert main(["doctor", str(tmp_path / "train"), str(tmp_path / "val")]) == 1
    out, err = capsys.readouterr()
    assert f"{tmp_path}/val: 6 of 18 images look like one of {tmp_path}/train" in out
    assert f"{tmp_path}/train: 1 of 33 images look like an earlier one" in out
    pairs = {tuple(Path(path).name for path in line.split()[:2]) for line in out.splitlines() if "correlation" in line}
    planted = {(f"{index}.png", f"{name}.jpg") for index, name in enumerate(COPIES)}
    assert pairs == planted | {("9.png", "turned.jpg"), ("20.png", "again.webp")}
    assert "1 of 18 images left out, the first:" in err and "torn.jpg: unreadable image" in err


def test_the_search_compares_every_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare blocks of every shape with one comparison of all."""
    monkeypatch.setattr(similar, "ROWS", 3)
    monkeypatch.setattr(similar, "COLUMNS", 4)
    hashes = np.random.default_rng(0).integers(0, 2**12, 11).astype(np.uint64)
    others = hashes[:7] ^ np.uint64(2**40 - 1)
    for first, second, same in ((hashes, hashes, True), (hashes, others, False)):
        blocks = [
            pair
            for start in range(0, len(first), 3)
            for rows, columns in similar._close_hashes(first, second, same, start)
            for pair in zip(rows.tolist(), columns.tolist(), strict=True)
        ]
        expected = [
            (row, column)
            for row, a in enumerate(first.tolist())
            for column, b in enumerate(second.tolist())
            if (a ^ b).bit_count() <= similar.MAX_BITS and (row < column or not same)
        ]
        assert sorted(blocks) == expected


def test_the_real_sets(shared_data: Path) -> None:
    subsets = image_subsets(shared_data / "coco_mini")
    assert {name: len(paths) for name, paths in subsets.items()} == {"train2017": 89, "val2017": 49}
    (found,) = [result for result in find_similar(subsets, print) if result.subsets == ("train2017", "val2017")]
    assert found.images == 1 and found.pairs[0].first.name == found.pairs[0].second.name == "000000397133.jpg"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere: there is no such backend; choose one of .*, or give one study or folders"),
        (["mmdet", "demo"], "demo: give either backends or data"),
        (["demo", "--results", "{}"], "not a prepared dataset"),
        (["{}"], "holds no image"),
    ],
)
def test_data_that_doctor_cannot_check(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *(word.format(tmp_path) for word in words)]) == 2
    assert re.search(message, capsys.readouterr().err)
