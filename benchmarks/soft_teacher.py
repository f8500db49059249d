"""Is our mean-teacher step on mmdet faster than mmdet's own SoftTeacher step? Timed side by side on the same images.

$(python3 envs/build.py mmdet) benchmarks/soft_teacher.py [--backbone resnet50] [--size 128] [--warm 150] [--rounds 20]

Theirs is the model of mmdet's config for SoftTeacher, a Faster R-CNN, driven by mmengine's train_step and mmdet's
MeanTeacherHook; it knows boxes alone. Ours is the loop of pais_bench on mmdet/mask_rcnn: as it is, with masks and their
quality, and with its mask head taken off, which is the same work. All start from the weights that ours has after --warm
supervised steps, and have the same backbone, heads for boxes, preprocessing, test settings and optimiser, the same
views of the same images, and as pseudo-labels the --boxes best of an unlabelled image. Whatever the networks have
learnt, 100 pairs of region and class an image pass the threshold on the score. A step is pseudo-labels, loss, backward
pass, optimiser and running average; loading is not counted. Steps of the three alternate, so that a busy machine slows
all; medians of one thread's CPU seconds are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from mmdet.engine.hooks import MeanTeacherHook
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor

from pais_bench import engine, plugins
from pais_bench.backends.mmdet import _networks, mask_rcnn
from pais_bench.config import Study
from pais_bench.splits import draw_split
from pais_bench.store import Store
from pais_bench.types import Batch, Instances, Targets, View

CONFIG = _networks.SHIPPED / "soft_teacher" / "soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
SGD = {"lr": 0.001, "weight_decay": 1e-4}
OURS, MASKS = "ours, boxes alone", "ours, masks and quality"
PASSING = 100
"""Pairs of region and class of an image that pass the threshold on the score."""


class BoxesAlone(mask_rcnn.Backend):
    """Offer the two verbs over the same network without its mask head; a pseudo-label's mask is its box."""

    @classmethod
    def take_over(cls, network: mask_rcnn.Backend) -> None:
        """Take the mask head and its branch from a network, in place."""
        network.__class__ = cls
        network.model.roi_head.mask_head = network.model.roi_head.quality_head = None

    def loss(self, images: Sequence[Tensor], targets: Sequence[Targets]) -> dict[str, Tensor]:
        """Give the losses of boxes."""
        self.train()
        losses = self.model.loss(*_networks.inputs(self.model, images, targets))
        return {term: mask_rcnn._total(losses[name]) for name, term in mask_rcnn._TERMS.items() if name in losses}

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[Instances]:
        """Give boxes."""
        mode = self.training
        self.eval()
        samples = self.model.predict(*_networks.inputs(self.model, images), rescale=False)
        self.train(mode)
        return [filled(sample.pred_instances, image) for sample, image in zip(samples, images, strict=True)]


def filled(found: Any, image: Tensor) -> Instances:
    """Give boxes as instances whose masks fill them."""
    masks = torch.zeros((len(found), *image.shape[-2:]), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, found.bboxes.round().int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(found.bboxes, found.labels, masks, found.scores, found.scores)


def main() -> None:
    """Warm our network up, give its weights to mmdet's SoftTeacher and to ours without masks, and time rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=["small", "resnet50"], default="small")
    parser.add_argument("--size", type=int, default=128, help="short side of a view, px (default: 128)")
    parser.add_argument("--labelled", type=int, default=1, help="labelled images of a step (default: 1, the config's)")
    parser.add_argument("--unlabelled", type=int, default=4, help="unlabelled images (default: 4, the config's)")
    parser.add_argument("--boxes", type=int, default=5, help="pseudo-labels of an image (default: 5)")
    parser.add_argument("--warm", type=int, default=150, help="supervised steps before the first round (default: 150)")
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        whole, boxes = trainer(given, Path(folder, "whole")), trainer(given, Path(folder, "boxes"))
        for number in range(given.warm):
            our_step(whole, whole.stream[number])
        set_threshold(whole.teacher.model, whole.stream[given.warm])
        for mine, source in ((boxes.student, whole.student), (boxes.teacher, whole.teacher)):
            mine.load_state_dict(source.state_dict())
            mine.model.roi_head.test_cfg.score_thr = whole.teacher.model.roi_head.test_cfg.score_thr
            BoxesAlone.take_over(mine)
        theirs = soft_teacher(given, whole)
        batches = [whole.stream[given.warm + number] for number in range(given.rounds + 1)]
        compare(whole, boxes, theirs, batches)


def trainer(given: argparse.Namespace, folder: Path) -> engine.Trainer:
    """Build our loop on the embedded data."""
    size = given.size
    options = {"backbone": given.backbone, "overrides": {"test_cfg.rcnn.max_per_img": given.boxes}}
    study = Study(
        name="step",
        dataset={"name": "shapes", "options": {"train": 60, "val": 2, "size": size}},
        split={"percents": [50], "folds": [1]},
        views={"short": [size, size], "long": 2 * size, "test_short": size, "test_long": 2 * size},
        training={
            **{"steps": 10**6, "burn_in": given.warm},
            **{"labelled_batch": given.labelled, "unlabelled_batch": given.unlabelled},
            **{"optimizer": "sgd", **SGD, "backbone_lr_factor": 1.0, "warmup_steps": 1, "clip": None, "ema": 0.999},
        },
        networks={"mask_rcnn": {"backend": "mmdet", "options": options}},
        methods={"mean_teacher": {"options": {"score_threshold": 0.0}}},
    )
    (run,) = study.runs()
    folder.mkdir()
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(**run.dataset_options), None).prepare(folder, run.dataset)
    stores = {part: Store.open(folder, part) for part in ("train", "val")}
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return engine.Trainer(run, stores, draw_split(stores["train"], run.dataset, run.split), folder, fabric)


@torch.no_grad()
def set_threshold(model: Any, batch: Batch) -> None:
    """Set the threshold on the score such that PASSING pairs of region and class of an image are above it."""
    padded, samples = _networks.inputs(model.eval(), [one.weak.image for one in batch.unlabelled])
    features, places = model.extract_feat(padded), [sample.metainfo for sample in samples]
    regions = model.rpn_head.predict(features, samples, rescale=False)
    found = model.roi_head.predict_bbox(features, places, regions, rcnn_test_cfg=None)
    scores = torch.cat([one.scores[:, :-1].flatten() for one in found])
    model.roi_head.test_cfg.score_thr = scores.topk(PASSING * len(samples)).values[-1].item()


def soft_teacher(given: argparse.Namespace, ours: engine.Trainer) -> Any:
    """Build mmdet's SoftTeacher with our backbone, heads for boxes, preprocessing, test settings and weights."""
    plain = Config.fromfile(_networks.SHIPPED / mask_rcnn.Options().config).model
    preprocessing = {key: plain.data_preprocessor[key] for key in ("mean", "std", "bgr_to_rgb")}
    small = {key: value for key, value in mask_rcnn.SMALL.items() if "mask" not in key}
    detector = {
        **_networks.RANDOM_BACKBONE,
        **(small if given.backbone == "small" else {}),
        "backbone.style": plain.backbone.style,
        "roi_head.bbox_head.num_classes": ours.student.model.roi_head.bbox_head.num_classes,
        "test_cfg.rcnn.score_thr": ours.teacher.model.roi_head.test_cfg.score_thr,
        "test_cfg.rcnn.max_per_img": given.boxes,
    }
    everything = {"pseudo_label_initial_score_thr": 0.0, "rpn_pseudo_thr": 0.0, "cls_pseudo_thr": 0.0}
    read = Config.fromfile(CONFIG)
    read.merge_from_dict(
        {f"model.detector.{key}": value for key, value in detector.items()}
        | {f"model.data_preprocessor.data_preprocessor.{key}": value for key, value in preprocessing.items()}
        | {f"model.semi_train_cfg.{key}": value for key, value in (everything | {"reg_pseudo_thr": 1e9}).items()}
    )
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(read.model)
    for network, source in ((model.student, ours.student.model), (model.teacher, ours.teacher.model)):
        missing, _ = network.load_state_dict(source.state_dict(), strict=False)
        assert not missing, missing
    return model


def compare(whole: engine.Trainer, boxes: engine.Trainer, theirs: Any, batches: Sequence[Batch]) -> None:
    """Alternate the three steps and print their medians, and how many pseudo-labels each had."""
    optimizer = OptimWrapper(torch.optim.SGD(theirs.student.parameters(), momentum=0.9, **SGD))
    hook = MeanTeacherHook(momentum=0.001)

    def their_step(data: dict[str, Any]) -> None:
        theirs.train_step(data, optimizer)
        hook.momentum_update(theirs, hook.momentum)

    seconds: dict[str, list[float]] = defaultdict(list)
    for number, batch in enumerate(batches):
        data = mmdet_data(whole, batch)
        took = {
            "SoftTeacher": timed(their_step, data),
            OURS: timed(our_step, boxes, batch),
            MASKS: timed(our_step, whole, batch),
        }
        for name, one in took.items() if number else ():  # the first round warms up
            seconds[name].append(one)
    weak = [one.weak.image for one in batches[-1].unlabelled]
    labels = {
        "SoftTeacher": pseudo_boxes(theirs, mmdet_data(whole, batches[-1])),
        OURS: sum(map(len, boxes.teacher.predict(weak))),
        MASKS: sum(map(len, whole.teacher.predict(weak))),
    }
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        ratio = medians["SoftTeacher"] / median
        print(f"{name:24} {1000 * median:8.1f} ms, {ratio:.3f} times as fast as SoftTeacher, ", end="")
        print(f"{labels[name] / len(weak):.2f} pseudo-labels an image")


def pseudo_boxes(theirs: Any, data: dict[str, Any]) -> int:
    """Give the number of boxes that mmdet's teacher makes of a batch."""
    ready = theirs.data_preprocessor(data, True)
    samples, _ = theirs.get_pseudo_instances(*(ready[key]["unsup_teacher"] for key in ("inputs", "data_samples")))
    return sum(len(one.gt_instances) for one in samples)


def our_step(ours: engine.Trainer, batch: Batch) -> None:
    """Do a step of our loop."""
    ours.step = batch.step
    ours._train_step(batch)


def timed(step: Callable[..., None], *arguments: Any) -> float:
    """Give the CPU seconds of a step."""
    begun = time.process_time()
    step(*arguments)
    return time.process_time() - begun


def mmdet_data(ours: engine.Trainer, batch: Batch) -> dict[str, Any]:
    """Give a batch as mmdet's loader does: uint8 BGR, with the matrices of the views."""
    views = {
        "sup": [(one.view, one.instances) for one in batch.labelled],
        "unsup_teacher": [(one.weak, None) for one in batch.unlabelled],
        "unsup_student": [(one.strong, None) for one in batch.unlabelled],
    }
    original = ours.stream.store.size(batch.labelled[0].image_id)
    return {
        "inputs": {name: [(255 * view.image.flip(0)).byte() for view, _ in some] for name, some in views.items()},
        "data_samples": {name: [sample(*one, original) for one in some] for name, some in views.items()},
    }


def sample(view: View, truth: Instances | None, original: tuple[int, int]) -> DetDataSample:
    """Give what mmdet knows of a view."""
    matrix = view.matrix.float().numpy()
    found = DetDataSample(metainfo={"img_shape": view.size, "ori_shape": original, "homography_matrix": matrix})
    found.set_metainfo({"scale_factor": (1.0, 1.0)})
    if truth is not None:
        found.gt_instances = InstanceData(bboxes=truth.boxes, labels=truth.labels)
    return found


if __name__ == "__main__":
    main()
