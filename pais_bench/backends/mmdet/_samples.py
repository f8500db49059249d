"""Hand views and targets to mmdet as its own samples, and take its predictions back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from pais_bench.layers.padding import padding_image
from pais_bench.types import Instances, Size, Targets


class DeviceMasks(BitmapMasks):
    """Hold masks bool[N,H,W] where they are; what asks for mmdet's own array of numbers copies them to the host."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.height, self.width = tensor.shape[-2:]

    @property
    def masks(self) -> np.ndarray:
        """Return mmdet's own u8[N,H,W]."""
        return self.tensor.cpu().numpy().astype(np.uint8)

    def __len__(self) -> int:
        return len(self.tensor)

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceMasks:
        """Return the same masks, which nothing changes; mmdet copies its samples for the RPN."""
        return self

    def pad(self, out_shape, pad_val=0):
        """Return masks padded at the right and below to out_shape (H, W)."""
        padding = (0, out_shape[1] - self.width, 0, out_shape[0] - self.height)
        return DeviceMasks(F.pad(self.tensor, padding, value=bool(pad_val)))

    def to_tensor(self, dtype, device):
        """Return the masks as a tensor."""
        return self.tensor.to(device, dtype)


def to_batch(
    model: Any, images: Sequence[Tensor], targets: Sequence[Targets] | None = None, pad_to: Size = (0, 0)
) -> tuple[Tensor, list]:
    """Return the batch f32[B,3,H,W] of views f32[3,h,w] in 0..1, normalised and padded, and mmdet's samples."""
    samples = []
    for index, image in enumerate(images):
        size = tuple(image.shape[-2:])
        sample = DetDataSample(metainfo={"img_shape": size, "ori_shape": size, "scale_factor": (1.0, 1.0)})
        if targets is not None:
            sample.gt_instances = _ground_truth(targets[index])
        samples.append(sample)
    # mmdet's pipelines load BGR in 0..255.
    loaded = [255 * image.flip(0) for image in images] + padding_image(images, pad_to)
    # The preprocessor keeps a device of its own, which does not follow that of the model around it.
    prepare = model.data_preprocessor.to(images[0].device)
    batch = prepare({"inputs": loaded, "data_samples": samples}, training=targets is not None)
    return batch["inputs"][: len(images)], batch["data_samples"]


def _ground_truth(target: Targets) -> InstanceData:
    """Return an image's instances in mmdet's form, with the weights, the background and the seed of its targets."""
    instances = target.instances
    result = InstanceData(
        bboxes=instances.boxes,
        labels=instances.labels,
        masks=DeviceMasks(instances.masks),
        area=instances.masks.flatten(1).sum(1).float(),
        class_weight=target.class_weight,
        mask_weight=target.mask_weight,
        box_weight=target.box_weight,
    )
    result.set_metainfo({"background": target.background, "seed": target.seed})
    if target.pixel_weight is not None:
        result.pixel_values, result.pixel_boxes = target.pixel_weight.values, target.pixel_weight.boxes
        result.set_metainfo({"pixel_matrix": target.pixel_weight.matrix})
    return result


def to_instances(predictions: InstanceData) -> Instances:
    """Return mmdet's predictions for a view, with the mask IoU that our heads add; masks bool[N,0,0] before pasting."""
    boxes = predictions.bboxes.float()
    return Instances(
        boxes=boxes,
        labels=predictions.labels,
        masks=predictions.masks if "masks" in predictions else boxes.new_zeros((len(boxes), 0, 0), dtype=torch.bool),
        scores=predictions.scores.float(),
        mask_iou=predictions.mask_iou.float(),
    )
