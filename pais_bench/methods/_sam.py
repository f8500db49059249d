"""Segment what boxes or points name by SAM or SAM 2 of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pais_bench.methods._sam_folder import describe_cost, load_sam
from pais_bench.methods.base import MethodBase
from pais_bench.types import Instances, Size

if TYPE_CHECKING:
    from torch import Tensor

PROMPTS = 16
"""Prompts that are decoded at once: 134 MB for each map of 32 features that SAM makes of 1024 px."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Sam:
    """Hold a frozen SAM [arXiv 2304.02643] or SAM 2 [arXiv 2408.00714].

    Views are prepared, and masks brought back, as by the processors of transformers: for SAM the longer side has the
    size of the input and the rest is padded, for SAM 2 both sides have it.
    """

    def __init__(self, folder: Path) -> None:
        """Load the network; raise BenchError where transformers, a file or a weight is missing."""
        self.network = load_sam(folder)
        self.side: int = self.network.config.prompt_encoder_config.image_size
        self.pads = self.network.config.model_type == "sam"

    def refine(self, image: Tensor, detections: Instances, prompts: Tensor, keep_below: float = 0.0) -> Instances:
        """Return the detections in a view f32[3,H,W] with SAM's masks and its estimates of their IoU, in 0..1.

        prompts: one for each detection, see segment. The teacher's mask and mask IoU stay where SAM finds nothing,
        where the teacher's mask is empty, and where the IoU of both masks is less than keep_below.
        """
        masks, estimates = self.segment(image, prompts)
        both = (masks & detections.masks).flatten(1).sum(1)
        either = (masks | detections.masks).flatten(1).sum(1)
        found = masks.flatten(1).any(1) & detections.masks.flatten(1).any(1) & (both >= keep_below * either)
        return replace(
            detections,
            masks=masks.where(found[:, None, None], detections.masks),
            mask_iou=estimates.to(detections.mask_iou).where(found, detections.mask_iou),
            soft_masks=None,
        )

    def segment(self, image: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mask bool[N,H,W] and the estimated IoU f32[N] in 0..1 of each prompt in a view f32[3,H,W] in 0..1.

        prompts, in pixels of the view: boxes f32[N,4], or points f32[N,P,2] inside of the object. Of SAM's three masks
        it is the one whose estimated IoU is the highest. The view is encoded once, in the precision of the training.
        """
        import torch

        height, width = image.shape[-2:]
        if not len(prompts):
            return image.new_zeros((0, height, width), dtype=torch.bool), image.new_zeros(0)
        self.network = self.network.to(image.device)
        inner = self.input_size((height, width))
        embeddings = self.network.get_image_embeddings(self.pixels(image))
        with torch.autocast(image.device.type, enabled=False):  # half of the precision would lose the pixel
            maps = [one.float() for one in embeddings] if isinstance(embeddings, list) else embeddings.float()
            ratio = prompts.new_tensor([inner[1] / width, inner[0] / height])
            scaled = (prompts.reshape(len(prompts), -1, 2) * ratio).reshape(prompts.shape).float()
            parts = [self._decode(maps, part, (height, width), inner) for part in torch.split(scaled, PROMPTS)]
        masks, estimates = zip(*parts, strict=True)
        return torch.cat(masks), torch.cat(estimates)

    def input_size(self, size: Size) -> Size:
        """Return the size (h, w) that a view of size (H, W) has in the input, without its padding."""
        if not self.pads:
            return self.side, self.side
        height, width = (int(length * self.side / max(size) + 0.5) for length in size)
        return height, width

    def pixels(self, image: Tensor) -> Tensor:
        """Return the input f32[1,3,S,S] of a view f32[3,H,W] in 0..1."""
        from torch.nn import functional as F

        height, width = inner = self.input_size((image.shape[-2], image.shape[-1]))
        resized = F.interpolate(image.float()[None], inner, mode="bilinear", antialias=True)
        mean, std = (resized.new_tensor(values)[:, None, None] for values in (MEAN, STD))
        return F.pad((resized - mean) / std, (0, self.side - width, 0, self.side - height))

    def _decode(self, embeddings: Any, prompts: Tensor, size: Size, inner: Size) -> tuple[Tensor, Tensor]:
        """Return masks bool[n,*size] and estimates f32[n] of prompts in pixels of the input."""
        from torch.nn import functional as F

        kind = "input_boxes" if prompts.dim() == 2 else "input_points"
        output = self.network(image_embeddings=embeddings, multimask_output=True, **{kind: prompts[None]})
        estimates, best = output.iou_scores[0].max(1)
        maps = output.pred_masks[0].take_along_dim(best[:, None, None, None], 1)
        if self.pads:
            maps = F.interpolate(maps, (self.side, self.side), mode="bilinear")[..., : inner[0], : inner[1]]
        return F.interpolate(maps, size, mode="bilinear")[:, 0] > 0, estimates.clamp(0, 1)


class SamRefinement(MethodBase):
    """Load the SAM that the option `sam` names, and tell its cost; a method derives from it before its other base."""

    refines = True
    calibration_images = 0
    options: Any

    def describe_cost(self, images: int) -> str:
        """Tell the weights of SAM, and how many images it encodes."""
        return describe_cost(self.options.sam, images)

    def prepare(
        self, detections: Sequence[Instances], ground_truth: Sequence[Instances], class_names: Sequence[str]
    ) -> None:
        """Load SAM."""
        self.sam = Sam(self.options.sam)


def draw_points(detections: Instances, number: int) -> Tensor:
    """Draw points f32[N,number,2], (x, y) px, from the soft mask of each detection in the view that it was made in.

    They are centres of cells, drawn without replacement by the softmax over the logits of all cells [S4M]. A logit with
    exponential noise has that law; all masks share the noise, so that no draw depends on the other detections.
    """
    import torch

    maps = detections.soft_masks
    assert maps is not None
    height, width = maps.values.shape[1:]
    logits = maps.values.float().logit(eps=1e-6).flatten(1)
    noise = logits.new_empty(height * width).exponential_()
    cells = (logits - noise.log()).topk(number, 1).indices
    x0, y0, x1, y1 = maps.boxes[:, :, None].unbind(1)
    x = x0 + (x1 - x0) * (cells % width + 0.5) / width
    y = y0 + (y1 - y0) * (cells // width + 0.5) / height
    return torch.stack((x, y), -1)
