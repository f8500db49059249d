"""List facts about data and machine, and what in the data may be a mistake."""

from __future__ import annotations

from pais_bench.init.device import Device
from pais_bench.init.summary import DataSummary


def list_facts(summary: DataSummary, device: Device) -> list[str]:
    """Return lines about data and device, for the head of the study and the terminal."""
    images = ", ".join(f"{count} {name}" for name, count in summary.images.items())
    ordered = sorted(summary.class_images, key=lambda name: summary.class_images[name])
    rare = ", ".join(f"{name} {summary.class_images[name]}" for name in ordered[:3])
    facts = [
        f"Images: {images}. {summary.objects} training objects of {len(summary.learnable)} classes; training images of "
        f"the rarest: {rare}.",
        f"Colour modes: {', '.join(f'{mode} {count}' for mode, count in summary.modes.items())}. Device: {device}.",
    ]
    if unknown := [name for name in ordered if not summary.class_images[name]]:
        facts.append(f"No training image shows {', '.join(unknown[:5])} ({len(unknown)} such classes).")
    if summary.may_be_boxes:
        facts.append(
            "Every training object is a polygon of four points; where these are boxes, upright or turned, they are no "
            "masks: draw outlines."
        )
    if summary.cornered:
        classes = ", ".join(f"{name} in {count}" for name, count in [*summary.cornered.items()][:5])
        facts.append(
            f"Training photos have an object in all four corners ({classes}); where it is the background, remove it "
            f"from the labels."
        )
    if summary.crowds:
        facts.append(
            f"{summary.crowds} crowd regions are no objects: background in training, passed over in evaluation; give "
            f"those that are single objects iscrowd 0."
        )
    if summary.unannotated:
        count = summary.images["train"] + summary.images["val"]
        facts.append(
            f"{summary.unannotated} of {count} photos have no annotation, and are taken as photos without an object; "
            f"remove from the labels those that nobody has labelled."
        )
    if summary.same_names:
        facts.append(f"Photos of one name in train and val: {summary.same_names}; `pais-bench doctor` compares them.")
    return facts
