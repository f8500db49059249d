"""Time our mean-teacher step on mmdet beside mmdet's own SoftTeacher step, on the same images.

$(python3 envs/build.py mmdet) benchmarks/soft_teacher.py [--backbone resnet50] [--size 128] [--warm 150] [--rounds 20]

Theirs is the model of mmdet's config for SoftTeacher, a Faster R-CNN, driven by mmengine's train_step and mmdet's
MeanTeacherHook; it predicts boxes alone. Ours is the training step of pais_bench on mmdet/mask_rcnn: as it is, with
masks and their IoU, and without its mask heads, which is the same work. All start from the weights that ours has after
--warm supervised steps, and have the same backbone, heads for boxes, preprocessing, test settings and optimiser, the
same views of the same images, and as pseudo-labels the --boxes best of an unlabelled image. Whatever the networks have
learnt, 100 pairs of region and class an image pass the threshold on the score. A step is pseudo-labels, loss, backward
pass, optimiser and EMA; loading is not counted. Steps of the three alternate, so that a busy machine slows all; medians
of one thread's CPU seconds are printed.
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
from torch import Tensor, nn

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.backends.mmdet import _config, _samples, mask_rcnn
from pais_bench.layers.modes import ensure_train_mode, eval_mode
from pais_bench.splits.draw import draw_split
from pais_bench.study.study import Study
from pais_bench.training.models import Models
from pais_bench.training.optim import build_optimizer
from pais_bench.training.step import train_step
from pais_bench.training.student import StudentLosses
from pais_bench.training.trainer import Trainer
from pais_bench.types import Batch, Instances, Keep, Losses, LossNormalizer, Size, Targets, View

CONFIG = _config.SHIPPED / "soft_teacher" / "soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py"
SGD = {"lr": 0.001, "weight_decay": 1e-4}
OURS, MASKS = "ours, boxes alone", "ours, masks and mask IoU"
PASSING = 100
"""Pairs of region and class of an image that pass the threshold on the score."""


class BoxesAlone(nn.Module):
    """Compute losses and predictions with a network without its mask heads; a pseudo-label's mask is its box."""

    def __init__(self, network: mask_rcnn.Backend) -> None:
        """Take the model out of a network, and the mask heads off it."""
        super().__init__()
        self.model = network.model
        self.model.roi_head.mask_head = self.model.roi_head.mask_iou_head = None

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that have the backbone's learning rate."""
        return list(self.model.backbone.parameters())

    def loss(
        self, images: Sequence[Tensor], targets: Sequence[Targets], normalizer: LossNormalizer, pad_to: Size
    ) -> Losses:
        """Return objectness, proposal_box, class and box."""
        ensure_train_mode(self)
        self.model.rpn_head.normalizer = self.model.roi_head.bbox_head.normalizer = normalizer
        losses = self.model.loss(*_samples.to_batch(self.model, images, targets, pad_to))
        return {term: mask_rcnn.total(losses[name]) for name, term in mask_rcnn.TERMS.items() if name in losses}

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor], pad_to: Size = (0, 0), keep: Keep | None = None) -> list[Instances]:
        """Return each view's boxes as instances; the test settings keep the best, so keep is not asked."""
        with eval_mode(self):
            samples = self.model.predict(*_samples.to_batch(self.model, images, pad_to=pad_to), rescale=False)
            return [filled(sample.pred_instances, image) for sample, image in zip(samples, images, strict=True)]


def filled(predictions: Any, image: Tensor) -> Instances:
    """Return boxes as instances whose masks fill them."""
    masks = torch.zeros((len(predictions), *image.shape[-2:]), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, predictions.bboxes.round().int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances(predictions.bboxes, predictions.labels, masks, predictions.scores, predictions.scores)


def main() -> None:
    """Train our network for some steps, give its weights to mmdet's SoftTeacher and to ours without masks, and time."""
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
        for step in range(given.warm):
            our_step(whole, whole.dataset[step])
        set_threshold(whole.models.teacher.model, whole.dataset[given.warm])
        take_over(boxes, whole)
        theirs = soft_teacher(given, whole)
        batches = [whole.dataset[given.warm + step] for step in range(given.rounds + 1)]
        compare(whole, boxes, theirs, batches)


def take_over(boxes: Trainer, whole: Trainer) -> None:
    """Replace a trainer's networks by those of another without their mask heads, with an optimiser of their own."""
    networks = []
    for own, source in ((boxes.models.student, whole.models.student), (boxes.models.teacher, whole.models.teacher)):
        own.load_state_dict(source.state_dict())
        own.model.roi_head.test_cfg.score_thr = whole.models.teacher.model.roi_head.test_cfg.score_thr
        networks.append(BoxesAlone(own))
    student, teacher = networks
    losses = StudentLosses(student)
    rank_losses, optimizer = boxes.fabric.setup(losses, build_optimizer(student, boxes.run.training))
    boxes.models = Models(student, teacher.eval(), losses, rank_losses, optimizer)


def trainer(given: argparse.Namespace, folder: Path) -> Trainer:
    """Build our trainer on the synthetic data."""
    size = given.size
    options = {"backbone": given.backbone, "overrides": {"test_cfg.rcnn.max_per_img": given.boxes}}
    study = Study(
        name="step",
        dataset={"name": "shapes", "options": {"train": 60, "val": 2, "size": size}},
        split={"percents": [50], "folds": [1]},
        input={
            "min_size_train": [size, size],
            "max_size_train": 2 * size,
            "min_size_test": size,
            "max_size_test": 2 * size,
        },
        training={
            **{"steps": 10**6, "burn_in": given.warm},
            **{"labelled_batch_size": given.labelled, "unlabelled_batch_size": given.unlabelled},
            **{"optimizer": "sgd", **SGD, "backbone_lr_factor": 1.0, "warmup_steps": 1},
            **{"grad_clip": None, "ema_decay": 0.999},
        },
        networks={"mask_rcnn": {"backend": "mmdet", "options": options}},
        methods={"mean_teacher": {"options": {"score_threshold": 0.0}}},
    )
    (run,) = study.runs()
    folder.mkdir()
    plugin = plugins.load("datasets", "shapes")
    plugin.Dataset(plugin.Options(**run.dataset_options), None).prepare(folder, run.dataset)
    stores = {subset: Store.open(folder, subset) for subset in ("train", "val")}
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    return Trainer(run, stores, draw_split(stores["train"], run.dataset, run.split), folder, fabric)


@torch.no_grad()
def set_threshold(model: Any, batch: Batch) -> None:
    """Set the threshold on the score such that PASSING pairs of region and class of an image are above it."""
    padded, samples = _samples.to_batch(model.eval(), [image.weak.image for image in batch.unlabelled])
    features, metas = model.extract_feat(padded), [sample.metainfo for sample in samples]
    regions = model.rpn_head.predict(features, samples, rescale=False)
    predictions = model.roi_head.predict_bbox(features, metas, regions, rcnn_test_cfg=None)
    scores = torch.cat([image.scores[:, :-1].flatten() for image in predictions])
    model.roi_head.test_cfg.score_thr = scores.topk(PASSING * len(samples)).values[-1].item()


def soft_teacher(given: argparse.Namespace, ours: Trainer) -> Any:
    """Build mmdet's SoftTeacher with our backbone, heads for boxes, preprocessing, test settings and weights."""
    plain = Config.fromfile(_config.SHIPPED / mask_rcnn.Options().config).model
    preprocessing = {key: plain.data_preprocessor[key] for key in ("mean", "std", "bgr_to_rgb")}
    small = {key: value for key, value in mask_rcnn.SMALL.items() if "mask" not in key}
    detector = {
        "backbone.init_cfg": None,
        **_config.UNFROZEN,
        **(small if given.backbone == "small" else {}),
        "backbone.style": plain.backbone.style,
        "roi_head.bbox_head.num_classes": ours.models.student.model.roi_head.bbox_head.num_classes,
        "test_cfg.rcnn.score_thr": ours.models.teacher.model.roi_head.test_cfg.score_thr,
        "test_cfg.rcnn.max_per_img": given.boxes,
    }
    everything = {"pseudo_label_initial_score_thr": 0.0, "rpn_pseudo_thr": 0.0, "cls_pseudo_thr": 0.0}
    content = Config.fromfile(CONFIG)
    content.merge_from_dict(
        {f"model.detector.{key}": value for key, value in detector.items()}
        | {f"model.data_preprocessor.data_preprocessor.{key}": value for key, value in preprocessing.items()}
        | {f"model.semi_train_cfg.{key}": value for key, value in (everything | {"reg_pseudo_thr": 1e9}).items()}
    )
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(content.model)
    for network, source in ((model.student, ours.models.student.model), (model.teacher, ours.models.teacher.model)):
        missing, _ = network.load_state_dict(source.state_dict(), strict=False)
        assert not missing, missing
    return model


def compare(whole: Trainer, boxes: Trainer, theirs: Any, batches: Sequence[Batch]) -> None:
    """Alternate the three steps and print their medians, and how many pseudo-labels each had."""
    optimizer = OptimWrapper(torch.optim.SGD(theirs.student.parameters(), momentum=0.9, **SGD))
    hook = MeanTeacherHook(momentum=0.001)

    def their_step(data: dict[str, Any]) -> None:
        theirs.train_step(data, optimizer)
        hook.momentum_update(theirs, hook.momentum)

    seconds: dict[str, list[float]] = defaultdict(list)
    for index, batch in enumerate(batches):
        data = mmdet_data(whole, batch)
        durations = {
            "SoftTeacher": timed(their_step, data),
            OURS: timed(our_step, boxes, batch),
            MASKS: timed(our_step, whole, batch),
        }
        for name, duration in durations.items() if index else ():  # the first round warms up
            seconds[name].append(duration)
    weak = [image.weak.image for image in batches[-1].unlabelled]
    labels = {
        "SoftTeacher": pseudo_boxes(theirs, mmdet_data(whole, batches[-1])),
        OURS: sum(map(len, boxes.models.teacher.predict(weak))),
        MASKS: sum(map(len, whole.models.teacher.predict(weak))),
    }
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        ratio = medians["SoftTeacher"] / median
        print(f"{name:24} {1000 * median:8.1f} ms, {ratio:.3f} times as fast as SoftTeacher, ", end="")
        print(f"{labels[name] / len(weak):.2f} pseudo-labels an image")


def pseudo_boxes(theirs: Any, data: dict[str, Any]) -> int:
    """Return the number of boxes that mmdet's teacher predicts on a batch."""
    prepared = theirs.data_preprocessor(data, True)
    samples, _ = theirs.get_pseudo_instances(*(prepared[key]["unsup_teacher"] for key in ("inputs", "data_samples")))
    return sum(len(image.gt_instances) for image in samples)


def our_step(ours: Trainer, batch: Batch) -> None:
    """Do a training step of ours."""
    train_step(ours.run, ours.method, ours.models, batch, ours.fabric)


def timed(step: Callable[..., None], *arguments: Any) -> float:
    """Return the CPU seconds of a step."""
    begin = time.process_time()
    step(*arguments)
    return time.process_time() - begin


def mmdet_data(ours: Trainer, batch: Batch) -> dict[str, Any]:
    """Return a batch as mmdet's loader does: uint8 BGR, with the matrices of the views."""
    views = {
        "sup": [(image.view, image.instances) for image in batch.labelled],
        "unsup_teacher": [(image.weak, None) for image in batch.unlabelled],
        "unsup_student": [(image.strong, None) for image in batch.unlabelled],
    }
    original = ours.dataset.store.size(batch.labelled[0].image_id)
    return {
        "inputs": {name: [(255 * view.image.flip(0)).byte() for view, _ in images] for name, images in views.items()},
        "data_samples": {name: [sample(*image, original) for image in images] for name, images in views.items()},
    }


def sample(view: View, ground_truth: Instances | None, original: Size) -> DetDataSample:
    """Return mmdet's description of a view of an image of original size (H, W)."""
    matrix = view.matrix.float().numpy()
    result = DetDataSample(metainfo={"img_shape": view.size, "ori_shape": original, "homography_matrix": matrix})
    result.set_metainfo({"scale_factor": (1.0, 1.0)})
    if ground_truth is not None:
        result.gt_instances = InstanceData(bboxes=ground_truth.boxes, labels=ground_truth.labels)
    return result


if __name__ == "__main__":
    main()
