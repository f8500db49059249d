"""Measure one GPU with the networks and the recipe of studies/coco.yaml, on photos that are made on the spot.

python benchmarks/gpu.py [--out FOLDER] [--minutes 8] [--workers N] [--views device|cpu] [--scale 1]
    [--networks mask_rcnn knet mmdet/mask_rcnn ...] [--precisions 16-mixed ...] [--only-times]

Prints a table and writes gpu.json: equality of losses with the CPU; images a second of a supervised step beside
torchvision's own training loop, of mean_teacher and pais, of K-Net, in 32-true, 16-mixed and bf16-mixed; the share of
the time that the step waits for its batch; peak memory; and K-Net's first 200 steps in 16-mixed. What does not fit into
the minutes is left out and said. An image is one of the batch: 4 labelled, or 4 labelled and 12 (8) unlabelled. Of the
networks of mmdet and detectron2, with their own configs and the recipe of Mask R-CNN, or of K-Net for Mask2Former,
supervised steps are timed.

Networks are random, so thresholds are set to those that 7 of 100 detections an image pass. On a machine without a
package index the missing packages travel as wheels, of which the first command makes a folder (torch, torchvision,
numpy, pillow, pyarrow, scipy and OpenCV have to be there):

python -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d wheels pydantic pydantic-core
    annotated-types typing-inspection pycocotools lightning-fabric lightning-utilities
python -m pip install --no-index --no-deps --target site wheels/*.whl && PYTHONPATH=site python benchmarks/gpu.py
"""

from __future__ import annotations

import argparse
import json
import pickle
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from lightning_fabric import Fabric
from PIL import Image
from torchvision.models import resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d

from pais_bench import geometry, plugins
from pais_bench.annotations.store import Store
from pais_bench.cli import context
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.splits.draw import draw_split
from pais_bench.study.load import load_study
from pais_bench.study.study import Study
from pais_bench.training.step import train_step
from pais_bench.training.trainer import Trainer
from pais_bench.types import Batch, Instances, Labelled, Targets

PRECISIONS = ("16-mixed", "bf16-mixed", "32-true")
METHODS = ("supervised", "mean_teacher", "pais")
OF_FRAMEWORKS = ("mmdet/mask_rcnn", "mmdet/mask2former", "detectron2/mask_rcnn")
CLASSES, IMAGES, OBJECTS, KEPT, CANDIDATES = 80, 160, 7, 7, 300
"""CANDIDATES: boxes of an image, over all classes, among which the teacher suppresses."""
SECONDS, WARM = 8.0, 10
"""Seconds that each row is timed for, after so many steps."""

Row = dict[str, Any]


class Bench:
    """Hold the prepared photos, the random backbone, and the rows measured so far."""

    def __init__(self, folder: Path, out: Path, deadline: float, workers: int, views: str, scale: float) -> None:
        self.folder, self.out, self.deadline, self.workers, self.views = folder, out, deadline, workers, views
        self.scale = scale
        self.rows: list[Row] = []
        self.left_out: list[str] = []
        make_photos(folder / "photos")
        self.backbone = folder / "resnet50.pth"
        torch.save(random_resnet50().state_dict(), self.backbone)
        self.detectron_backbone = folder / "resnet50.pkl"
        self.detectron_backbone.write_bytes(detectron_weights(random_resnet50()))
        self.study = self._study()
        plugin = plugins.load("datasets", "coco")
        plugin.Dataset(plugin.Options(), folder / "photos").prepare(folder / "store", "coco")
        self.stores = {subset: Store.open(folder / "store", subset) for subset in ("train", "val")}

    def _study(self) -> Study:
        values = load_study("coco").model_dump()
        values["dataset"]["root"] = self.folder / "photos"
        values["split"] |= {"percents": [50], "folds": [1], "family": "stratified"}
        sizes = values["input"]
        # One size: cuDNN plans each shape at its first step (an H100: 0.5 s beside 0.13 s).
        sizes["min_size_train"] = (int(sizes["min_size_train"][1] * self.scale),) * 2
        sizes |= {key: int(sizes[key] * self.scale) for key in ("max_size_train", "min_size_test", "max_size_test")}
        for other in OF_FRAMEWORKS:
            backend, name = other.split("/")
            recipe = values["networks"]["mask_rcnn" if name == "mask_rcnn" else "knet"]
            values["networks"][_key(other)] = {**recipe, "backend": backend, "name": name, "options": {}}
        # What its weights of the model zoo have in their first layer: without it a random network diverges.
        overrides = {"MODEL.PIXEL_STD": [57.375, 57.12, 58.395]}
        values["networks"]["detectron2_mask_rcnn"]["options"] = {"overrides": overrides}
        for network in values["networks"].values():
            backbone = self.detectron_backbone if network["backend"] == "detectron2" else self.backbone
            network["options"] |= {"pretrained_backbone": backbone}
        return Study(**values)

    def trainer(self, network: str, method: str, precision: str, **training: Any) -> Trainer:
        """Build a trainer of the recipe from its first step; its thresholds let KEPT detections an image pass."""
        run = self.study.run(50, 1, _key(network), method)
        training = {"precision": precision, "log_every": 50, "warmup_steps": 1, **training}
        run = run.model_copy(update={"training": run.training.model_copy(update=training)})
        fabric = Fabric(accelerator="auto", devices=1, precision=precision)
        fabric.launch()
        split = draw_split(self.stores["train"], run.dataset, run.split)
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        trainer = Trainer(run, self.stores, split, folder, fabric)
        if trainer.method.uses_unlabelled:
            self._set_thresholds(trainer)
        return trainer

    def _set_thresholds(self, trainer: Trainer) -> None:
        teacher, run = trainer.models.teacher, trainer.run
        images = [image.weak.image for image in next(self.batches(trainer)).unlabelled[:4]]
        if run.network.name == "mask_rcnn":
            heads = teacher.model.roi_heads
            heads.score_thresh, per_image, heads.detections_per_img = 0.0, heads.detections_per_img, CANDIDATES
            candidates = _scores(trainer, images)
            heads.score_thresh, heads.detections_per_img = float(candidates[-1]), per_image
        scores = _scores(trainer, images)
        threshold = float(scores[min(KEPT * len(images), len(scores) - 1)])
        options = {"score_threshold": min(max(threshold, 0.0), 1.0)}
        if run.method.name == "pais":
            options["mask_iou_threshold"] = 0.0
        plugin = plugins.load("methods", run.method.name)
        trainer.method = plugin.Method(plugin.Options(**options))

    def batches(self, trainer: Trainer) -> Iterator[Batch]:
        """Iterate over the batches of a trainer on its device."""
        return trainer.dataset.loader(0, self.workers, trainer.fabric.device, self.views)

    def add(self, row: Row) -> None:
        """Keep and print a row; what was measured is on disk at any moment."""
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        self._write()

    def _write(self) -> None:
        report = {"device": device_name(), "versions": versions(), "rows": self.rows, "left_out": self.left_out}
        (self.out / "gpu.json").write_text(json.dumps(report, indent=1))

    def in_time(self, name: str, seconds: float = 2 * SECONDS) -> bool:
        """Return whether there is time for a row; note its name if not."""
        if time.monotonic() + seconds < self.deadline:
            return True
        self.left_out.append(name)
        self._write()
        return False


def _key(network: str) -> str:
    return network.replace("/", "_")


def _scores(trainer: Trainer, images: list[torch.Tensor]) -> torch.Tensor:
    """Return the scores of the teacher's detections in some images, the highest first."""
    with torch.no_grad(), trainer.fabric.autocast():
        detections = trainer.models.teacher.predict(images)
    return torch.cat([instances.scores for instances in detections]).sort(descending=True).values


def main() -> None:
    """Measure what fits into the minutes, the most important rows first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--workers", type=int, default=max(1, torch.get_num_threads() - 1))
    parser.add_argument("--views", choices=("device", "cpu"), default="device")
    parser.add_argument("--scale", type=float, default=1, help="factor of the views' sizes, for a trial on a CPU")
    networks = ("mask_rcnn", "knet")
    parser.add_argument("--networks", nargs="+", choices=(*networks, *OF_FRAMEWORKS), default=networks)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--only-times", action="store_true", help="without the losses and K-Net's first steps")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    context.quieten_fabric()
    deadline = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.out, deadline, arguments.workers, arguments.views, arguments.scale)
        if not arguments.only_times:
            for network in networks:
                bench.add(compare_losses(bench, network))
            if bench.in_time("K-Net's first 200 steps in 16-mixed", 60):
                bench.add(first_steps(bench, 200))
        for precision in arguments.precisions:
            if "mask_rcnn" in arguments.networks and bench.in_time(f"torchvision's own loop, {precision}"):
                bench.add(time_torchvision(bench, precision))
            for network in arguments.networks:
                for method in METHODS[:1] if network in OF_FRAMEWORKS else METHODS:
                    if bench.in_time(f"{network}, {method}, {precision}"):
                        bench.add(time_steps(bench, network, method, precision))
        print_table(bench)


def compare_losses(bench: Bench, network: str) -> Row:
    """Compare the losses of two labelled images in float32, on this device and on the CPU."""
    trainer = bench.trainer(network, "supervised", "32-true")
    batch = next(bench.batches(trainer))
    images = [image.view.image[:, :256, :256].cpu() for image in batch.labelled[:2]]
    instances = [crop(image, 256) for image in batch.labelled[:2]]
    student, losses = trainer.models.student, []
    for module in student.modules():  # every anchor and region, because the generators of two devices draw differently
        if hasattr(module, "fg_bg_sampler"):
            module.fg_bg_sampler.batch_size_per_image = 10**6
    for device in (torch.device("cpu"), trainer.fabric.device):
        student.to(device)
        targets = [Targets.unweighted(one.to(device)) for one in instances]
        with torch.no_grad():
            terms = student.loss([image.to(device) for image in images], targets, batch_normalizer)
        losses.append({term: float(value) for term, value in terms.items()})
    cpu, device_losses = losses
    difference = {term: abs(cpu[term] - device_losses[term]) / max(abs(cpu[term]), 1e-6) for term in cpu}
    return {"what": "losses against the CPU", "network": network, "relative_difference": difference, "cpu": cpu}


def crop(image: Labelled, side: int) -> Instances:
    """Return the instances of a labelled image inside its upper left square, on the CPU."""
    instances = image.instances.to(torch.device("cpu"))
    masks = instances.masks[:, :side, :side]
    cut = replace(instances, boxes=geometry.masks_to_boxes(masks), masks=masks)
    return cut[masks.flatten(1).any(1)]


def first_steps(bench: Bench, steps: int) -> Row:
    """Train K-Net with its clip and fused AdamW in 16-mixed for some steps; losses and skipped steps are kept."""
    trainer = bench.trainer("knet", "supervised", "16-mixed", warmup_steps=1000)
    losses, begin = [], time.monotonic()
    for _, batch in zip(range(steps), bench.batches(trainer), strict=False):
        record = train_step(trainer.run, trainer.method, trainer.models, batch, trainer.fabric)
        losses.append(record.log_line(trainer.fabric)["loss"]["labelled/class"])
    scale = trainer.fabric.strategy.precision.state_dict().get("scale")
    return {
        "what": "K-Net's first steps in 16-mixed",
        "steps": len(losses),
        "class_loss": [losses[0], losses[len(losses) // 2], losses[-1]],
        "loss_scale": scale,
        "seconds": round(time.monotonic() - begin, 1),
    }


def time_steps(bench: Bench, network: str, method: str, precision: str) -> Row:
    """Time steps of a recipe with its loader."""
    trainer = bench.trainer(network, method, precision, burn_in=0)

    def step(batch: Batch) -> int:
        train_step(trainer.run, trainer.method, trainer.models, batch, trainer.fabric)
        return len(batch.labelled) + len(batch.unlabelled)

    return {"what": network, "method": method, "precision": precision} | timed(bench.batches(trainer), step)


def time_torchvision(bench: Bench, precision: str) -> Row:
    """Time torchvision's own Mask R-CNN, with the loop of its references, on the supervised batches."""
    trainer = bench.trainer("mask_rcnn", "supervised", precision)
    device = trainer.fabric.device
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    body.load_state_dict(torch.load(bench.backbone, weights_only=True), strict=False)
    model = MaskRCNN(_resnet_fpn_extractor(body, 3), CLASSES + 1).to(device).train()
    model.transform.resize = lambda image, target: (image, target)  # the views have their sizes already
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "16-mixed")
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float16

    def step(batch: Batch) -> int:
        images = [image.view.image for image in batch.labelled]
        targets = [
            {"boxes": i.boxes, "labels": i.labels + 1, "masks": i.masks.to(torch.uint8)}
            for i in (image.instances for image in batch.labelled)
        ]
        with torch.autocast(device.type, dtype, enabled=precision != "32-true"):
            loss = sum(model(images, targets).values())
        loss_value = loss.item()  # the references reduce and look at it each step
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return len(images) if loss_value == loss_value else 0

    return {"what": "torchvision's own", "method": "supervised", "precision": precision} | timed(
        bench.batches(trainer), step
    )


def timed(batches: Iterator[Batch], step: Any) -> Row:
    """Return images a second of SECONDS of steps, the share of the time that they wait for batches, and memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM):
        step(next(batches))
    images, steps, waited, begin = 0, 0, 0.0, now()
    while time.perf_counter() - begin < SECONDS:  # as a training does, without a wait for the device after each step
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        images, steps = images + step(batch), steps + 1
    total = now() - begin
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    rates = {"images_per_second": images / total, "ms_per_step": 1000 * total / steps, "waiting": waited / total}
    return {name: round(value, 3) for name, value in {**rates, "peak_gib": peak}.items()}


def now() -> float:
    """Return the time in seconds once the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def make_photos(root: Path) -> None:
    """Write COCO-sized photos with polygons of 80 classes; the same ones each time."""
    rng = np.random.default_rng(0)
    categories = [{"id": number + 1, "name": f"class {number}"} for number in range(CLASSES)]
    for subset, count in (("train", IMAGES), ("val", 8)):
        folder = root / f"{subset}2017"
        folder.mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, count + 1):
            height, width = ((480, 640), (640, 480))[number % 2]
            coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
            noise = rng.integers(-12, 13, (height, width, 3))
            smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
            Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
            images.append({"id": number, "file_name": f"{number}.jpg", "height": height, "width": width})
            for _ in range(OBJECTS):
                record = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0}
                category = 1 + int(rng.integers(CLASSES))
                annotations.append({**record, "category_id": category, **random_polygon(rng, height, width)})
        (root / "annotations").mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{subset}2017.json").write_text(json.dumps(content))


def random_polygon(rng: np.random.Generator, height: int, width: int) -> Row:
    """Return segmentation, bbox and area of a star-shaped polygon of 24 points inside an image."""
    radius = float(np.exp(rng.uniform(np.log(12), np.log(150))))
    centre = rng.uniform(radius, width - radius), rng.uniform(radius, height - radius)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    length = radius * rng.uniform(0.6, 1, 24)
    x, y = centre[0] + length * np.cos(angle), centre[1] + length * np.sin(angle)
    area = 0.5 * abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))))
    box = [float(x.min()), float(y.min()), float(np.ptp(x)), float(np.ptp(y))]
    return {"segmentation": [np.stack((x, y), 1).ravel().round(2).tolist()], "bbox": box, "area": area}


def random_resnet50() -> torch.nn.Module:
    """Return a random ResNet-50 whose activations keep their size behind frozen statistics."""
    torch.manual_seed(0)
    network = resnet50(weights=None)
    for name, module in network.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.2)
    return network


def detectron_weights(network: torch.nn.Module) -> bytes:
    """Return a pickle of a ResNet's weights under the names of detectron2."""
    names = {r"^conv1": "stem.conv1", r"^bn1": "stem.conv1.norm", r"\.bn(\d)": r".conv\1.norm"}
    names |= {r"downsample\.0": "shortcut", r"downsample\.1": "shortcut.norm"}
    names |= {f"^layer{stage}": f"res{stage + 1}" for stage in range(1, 5)}
    model = {}
    for name, value in network.state_dict().items():
        for pattern, other in names.items():
            name = re.sub(pattern, other, name)
        model[name] = value.numpy()
    return pickle.dumps({"model": model, "__author__": "benchmarks/gpu.py", "matching_heuristics": True})


def device_name() -> str:
    """Return the name of the device that is measured."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"


def versions() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "python": platform.python_version()}


def print_table(bench: Bench) -> None:
    """Print the timed rows as a Markdown table."""
    timed_rows: Sequence[Row] = [row for row in bench.rows if "images_per_second" in row]
    print(f"\n{device_name()}, torch {torch.__version__}, {bench.workers} loader processes, views on {bench.views}")
    print("\n| network | method | precision | images/s | ms a step | waiting | GiB |\n|---|---|---|---|---|---|---|")
    for row in timed_rows:
        values = [row["what"], row["method"], row["precision"], f"{row['images_per_second']:.1f}"]
        values += [f"{row['ms_per_step']:.0f}", f"{row['waiting']:.0%}", f"{row['peak_gib']:.1f}"]
        print(f"| {' | '.join(values)} |")
    if bench.left_out:
        print(f"left out for lack of time: {'; '.join(bench.left_out)}")


if __name__ == "__main__":
    main()
