"""Check the rules of `init` on summaries of data sets that there might be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pais_bench.init import network, rules, schedule
from pais_bench.init.device import Device, find_weights
from pais_bench.init.summary import LEVELS, PERCENTS, DataSummary
from pais_bench.study.load import load_study

CPU = Device(2)
H100 = Device(16, "H100", 80.0, (9, 0))
SUMMARY = DataSummary(
    images={"train": 200, "val": 50},
    short_sides=(480.0, 480.0, 640.0),
    aspect=1.5,
    most_objects=7,
    object_sides=tuple(LEVELS.tolist()),
    class_images={"cat": 150, "dog": 40},
    class_objects={"cat": 300, "dog": 60},
    unlabelled_classes=dict.fromkeys(PERCENTS, 0),
    modes={"RGB": 200},
)
"""Objects of every size alike, from nothing to the whole of the shorter side."""


def sized(side: float) -> DataSummary:
    """Return the summary with all objects of one size, as a part of the shorter side."""
    return replace(SUMMARY, object_sides=(side,) * len(LEVELS))


@pytest.mark.parametrize(
    ("summary", "device", "side"),
    [
        (sized(0.5), CPU, 128),  # 40 px would be 80
        (sized(0.25), CPU, 160),
        (sized(0.02), CPU, 192),
        (replace(sized(0.02), short_sides=(64.0, 64.0, 64.0)), CPU, 96),  # 1.5 times the photos
        (replace(sized(0.5), short_sides=(64.0, 64.0, 64.0)), CPU, 64),  # objects of 32 px are not tiny
        (replace(sized(0.1), short_sides=(128.0, 128.0, 128.0)), CPU, 160),  # 16 px
        (replace(sized(0.05), short_sides=(128.0, 128.0, 128.0)), CPU, 192),
        (replace(SUMMARY, short_sides=(1080.0, 1080.0, 1080.0)), H100, 800),
        (replace(SUMMARY, short_sides=(300.0, 300.0, 300.0)), H100, 512),  # 1.67 times 300 is 501
        (replace(SUMMARY, short_sides=(1080.0, 1080.0, 1080.0)), Device(8, "T4", 15.0, (7, 5)), 640),
    ],
)
def test_views_have_the_size_of_the_objects_or_of_the_device(summary: DataSummary, device: Device, side: int) -> None:
    values = rules.view_sizes(summary, device).values
    assert values["min_size_test"] == side
    low, high = values["min_size_train"]
    assert low < side < high <= values["max_size_train"]
    assert side * 1.5 <= values["max_size_test"] < side * 1.5 + 32


def test_anchors_are_the_quantiles_of_objects_that_fit_the_strides() -> None:
    assert network.anchors(SUMMARY, 600, "resnet50").values["anchor_sizes"] == [60, 180, 300, 420, 540]
    assert network.anchors(SUMMARY, 192, "small").values["anchor_sizes"] == [32, 96, 160]


@pytest.mark.parametrize("side", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("name", network.STRIDES)
def test_anchors_grow_and_are_two_strides_apart_at_least(side: float, name: str) -> None:
    sizes = network.anchors(sized(side), 160, name).values["anchor_sizes"]
    assert len(sizes) == len(network.STRIDES[name])
    assert all(size >= 2 * stride for size, stride in zip(sizes, network.STRIDES[name], strict=True))
    assert all(large >= round(1.25 * small) for small, large in zip(sizes, sizes[1:], strict=False))


@pytest.mark.parametrize(("most", "detections"), [(1, 20), (10, 20), (11, 25), (44, 90), (500, 100)])
def test_twice_the_objects_of_the_fullest_image_are_detected(most: int, detections: int) -> None:
    summary = replace(SUMMARY, most_objects=most)
    small, usual = network.regions(summary, CPU).values, network.regions(summary, H100).values
    assert small["box_detections_per_img"] == usual["box_detections_per_img"] == detections
    assert small["rpn_post_nms_top_n_test"] >= 2 * detections and "rpn_post_nms_top_n_test" not in usual


def test_percents_are_the_smallest_that_label_every_class() -> None:
    assert rules.percents(SUMMARY, H100).values["percents"] == [5, 10, 20]  # 2 % are 4 photos
    assert rules.percents(SUMMARY, CPU).values["percents"] == [5, 20]
    further = replace(SUMMARY, images={**SUMMARY.images, "unlabelled": 9})
    assert rules.percents(further, H100).values["percents"] == [5, 10, 20, 100]
    assert rules.percents(further, CPU).values["percents"] == [5, 100]
    rare = replace(SUMMARY, unlabelled_classes={**SUMMARY.unlabelled_classes, 5: 1, 10: 1})
    assert rules.percents(rare, H100).values["percents"] == [20, 30, 50]
    small = replace(SUMMARY, images={"train": 8}, unlabelled_classes={**SUMMARY.unlabelled_classes, 20: 1})
    few = rules.percents(small, CPU)
    assert few.values["percents"] == [30, 50] and "2, 4 of 8 photos; fewer than 8" in few.reason
    never = rules.percents(replace(SUMMARY, unlabelled_classes=dict.fromkeys(PERCENTS, 1)), H100)
    assert never.values["percents"] == [20, 30, 50] and "1 of 2 classes have no label at 20 %" in never.reason


def test_rare_classes_are_stratified() -> None:
    assert rules.family(SUMMARY, 10).values == {"family": "stratified"}  # 4 of 40 photos with a dog
    assert rules.family(SUMMARY, 50).values == {"family": "soft_teacher"}
    absent = replace(SUMMARY, class_images={"cat": 150, "dog": 0})
    assert "'cat'" in rules.family(absent, 10).reason, "a class without an image is no reason"


@pytest.mark.parametrize(
    ("images", "device", "batch", "steps"),
    [(200, CPU, 2, 800), (20, CPU, 2, 600), (10**6, CPU, 2, 1500), (200, H100, 4, 2000), (118_287, H100, 4, 180_000)],
)
def test_steps_are_epochs_within_the_bounds_of_the_device(images: int, device: Device, batch: int, steps: int) -> None:
    summary = replace(SUMMARY, images={"train": images, "val": 50})
    assert schedule.steps(summary, device, 20, batch).values["steps"] == steps
    values = schedule.milestones(steps, device, pretrained=False, val_images=30).values
    assert values["warmup_steps"] < values["milestones"][0] < values["milestones"][1] < steps
    assert values["burn_in"] <= min(0.6 * steps, 2000) and 0.98 <= values["ema_decay"] <= 0.999
    assert values["evaluate_images"] == 30


def test_batches_fit_the_device() -> None:
    sizes = {device: schedule.batches(device, "small", (1000, 1664)).values for device in (CPU, H100)}
    assert sizes[CPU] == {"labelled_batch_size": 3, "unlabelled_batch_size": 4}
    assert sizes[H100] == {"labelled_batch_size": 4, "unlabelled_batch_size": 8}
    for capability, labelled in (((7, 5), 1), ((8, 6), 2)):
        little = schedule.batches(Device(8, "small GPU", 8.0, capability), "resnet50", (640, 1066)).values
        assert little == {"labelled_batch_size": labelled, "unlabelled_batch_size": 2 * labelled}


def test_the_precision_is_one_that_the_gpu_has() -> None:
    old = Device(8, "V100", 16.0, (7, 0))
    precision = [schedule.optimiser(device, "", True).values.get("precision") for device in (CPU, old, H100)]
    assert precision == [None, None, "bf16-mixed"]


def test_weights_that_are_at_hand_decide_the_backbone(tmp_path: Path) -> None:
    (tmp_path / "resnet50-0676ba61.pth").touch()
    weights = find_weights([tmp_path / "absent", tmp_path])
    assert network.backbone(weights, H100).values["pretrained_backbone"] == str(tmp_path / "resnet50-0676ba61.pth")
    assert network.backbone(weights, CPU).values == {"backbone": "small"}, "ResNet-50 takes hours on a CPU"
    mobile = network.backbone({"mobilenet_v2": Path("m.pth")}, CPU).values
    assert mobile == {"backbone": "mobilenet_v2", "pretrained_backbone": "m.pth", "fpn_channels": 64}
    assert "`pais-bench fetch weights`" in network.backbone({}, CPU).reason


def test_hours_are_those_of_the_benchmarks() -> None:
    """Compare with the demo, 15 runs in 12 min, and chicken_parts, a split of which takes 1,290 s of a core."""
    for name, splits, side, text in (
        ("demo", 5, 96, "15 runs, about 6 min"),
        ("chicken_parts", 6, 160, "24 runs, about 66 min"),
    ):
        training, methods = load_study(name).training.model_dump(), 3 if name == "demo" else 4
        backbone = "small" if name == "demo" else "mobilenet_v2"
        assert f"{text} for 2 at a time" in schedule.expected_time(CPU, backbone, side**2, training, splits, methods)
    # The recipe of coco.yaml in bf16-mixed on an H100: 131 ms a step of 4 images, 562 of 16.
    training = {"labelled_batch_size": 4, "unlabelled_batch_size": 12, "burn_in": 0, "steps": 180_000}
    hours = 50 * (0.131 + 0.562)
    told = schedule.expected_time(H100, "resnet50", 1000 * 1333, training, 1, 2)
    assert told.startswith("2 runs, about ") and " hours one after another on an H100" in told
    assert float(told.split()[3]) == pytest.approx(hours, rel=0.05)
