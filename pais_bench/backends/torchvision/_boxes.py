"""Match, code, suppress and pool boxes as torchvision does, in full precision and without needless waits of the host.

Results are torchvision's to the last digit in single precision. Under autocast torchvision brings anchors and boxes to
half precision, which moves them by pixels: bfloat16 has 8 digits, so that 1001 is 1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher, encode_boxes
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign, boxes, roi_align

from pais_bench.layers.precision import to_full_precision


class FullPrecisionAnchors(AnchorGenerator):
    """Generate anchors in full precision whatever the features have, once for all views of a batch."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return for each view the same anchors f32[n,4], level by level."""
        first, (height, width) = feature_maps[0], image_list.tensors.shape[-2:]
        self.set_cell_anchors(torch.promote_types(first.dtype, torch.float32), first.device)
        sizes = [list(level.shape[-2:]) for level in feature_maps]
        strides: list[list[int]] = [[height // h, width // w] for h, w in sizes]
        anchors = torch.cat(self.grid_anchors(sizes, strides))
        return [anchors] * len(image_list.image_sizes)


class FullPrecisionBoxCoder(BoxCoder):
    """Encode and decode boxes in full precision, with weights that are numbers of the host."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the deltas f32[n,4] from proposals f32[n,4] to reference boxes f32[n,4]."""
        deltas: Tensor = encode_boxes(to_full_precision(reference_boxes), to_full_precision(proposals), self.weights)
        return deltas

    def decode(self, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Return the boxes f32[n,k,4] that deltas [n,4k] lead to from boxes f32[n_i,4] of each view, also for n = 0."""
        decoded = self.decode_single(rel_codes, torch.cat(list(boxes)))
        return decoded.reshape(len(decoded), decoded.shape[1] // 4, 4)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes f32[n,4k] that deltas [n,4k] of any precision lead to from boxes f32[n,4]."""
        codes, boxes = to_full_precision(rel_codes), to_full_precision(boxes)
        dx, dy, dw, dh = (codes[:, i::4] / weight for i, weight in enumerate(self.weights))
        corner, extent = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
        (x, y), (width, height) = (corner + 0.5 * extent).split(1, 1), extent.split(1, 1)
        x, y = dx * width + x, dy * height + y
        half_width = 0.5 * (dw.clamp(max=self.bbox_xform_clip).exp() * width)
        half_height = 0.5 * (dh.clamp(max=self.bbox_xform_clip).exp() * height)
        return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), 2).flatten(1)


class AnchorMatcher(Matcher):
    """Match anchors as torchvision does, the best anchors of an instance without a wait of the host."""

    def set_low_quality_matches_(self, matches: Tensor, all_matches: Tensor, match_quality_matrix: Tensor) -> None:
        """Give anchors i64[n] that overlap an instance most, ties included, the instance that they overlap most."""
        best = (match_quality_matrix == match_quality_matrix.amax(1, keepdim=True)).any(0)
        matches.copy_(torch.where(best, all_matches, matches))


class LevelRoIAlign(MultiScaleRoIAlign):
    """Pool regions from the levels of a pyramid, sorted by level: the host waits once, not once a level."""

    scales: list[float]

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: Sequence[tuple[int, int]]) -> Tensor:
        """Return the features [n,C,size,size] of boxes f32[n_i,4] of each view, in their order."""
        levels = self.map_levels(boxes)
        if len(boxes) == 1 and levels.device.type != "cpu":
            return self._pool_everywhere(x, boxes[0], levels)
        counts = (levels[:, None] == torch.arange(len(self.scales), device=levels.device)).sum(0).tolist()
        order = levels.sort(stable=True).indices
        view = torch.cat([torch.full_like(one[:, :1], index) for index, one in enumerate(boxes)])
        rois = torch.cat((view, torch.cat(boxes)), 1)[order].split(counts)
        maps = [
            roi_align(x[name], part, self.output_size, scale, self.sampling_ratio)
            for name, part, scale in zip(self.featmap_names, rois, self.scales, strict=True)
        ]
        return torch.cat(maps)[order.sort().indices]

    def _pool_everywhere(self, x: dict[str, Tensor], boxes: Tensor, levels: Tensor) -> Tensor:
        """Pool the boxes of one view from every level and keep those of their own: no wait, at the cost of memory."""
        rois = torch.cat((torch.zeros_like(boxes[:, :1]), boxes), 1)
        maps = [
            roi_align(x[name], rois, self.output_size, scale, self.sampling_ratio)
            for name, scale in zip(self.featmap_names, self.scales, strict=True)
        ]
        return torch.stack(maps)[levels, torch.arange(len(levels), device=levels.device)]


def clip_to_views(regions: Tensor, sizes: Sequence[tuple[int, int]]) -> None:
    """Clip regions f32[B,...,4] of views of sizes (H, W), in place."""
    for one, (height, width) in zip(regions, sizes, strict=True):
        one[..., 0::2].clamp_(0, width)
        one[..., 1::2].clamp_(0, height)


def suppress(regions: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Return the indices i64[k] of regions f32[n,4] that non-maximum suppression within groups i64[n] leaves.

    Sorted by falling score. torchvision's own but on a device with at most 25,000 regions, where torchvision does the
    same and copies a number to the device at each call.
    """
    if regions.device.type == "cpu" or regions.numel() > 100_000 or len(regions) == 0:
        return boxes.batched_nms(regions, scores, groups, threshold)
    offsets = groups.to(regions) * (regions.max() + 1)
    return boxes.nms(regions + offsets[:, None], scores, threshold)
