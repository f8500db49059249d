"""Check that torchvision/mask_rcnn is torchvision's Mask R-CNN."""

from __future__ import annotations

import copy
import itertools
import math
import unittest.mock
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from framework import COUNTS, assert_the_mask_iou_loss_has_a_weight, batch
from tiny import NETWORK
from torchvision.models import resnet50
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image, project_masks_on_boxes
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from pais_bench.backends.torchvision import mask_rcnn
from pais_bench.backends.torchvision._frozen_norm import FoldedBatchNorm2d
from pais_bench.backends.torchvision._inputs import IMAGENET
from pais_bench.errors import BenchError
from pais_bench.layers import paste
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.layers.roi_losses import area_outside_roi, boundary_weights, mask_losses

SMALL = mask_rcnn.Options(**NETWORK)
STOCK = {
    "objectness": "loss_objectness",
    "proposal_box": "loss_rpn_box_reg",
    "class": "loss_classifier",
    "box": "loss_box_reg",
    "mask": "loss_mask",
}


class Unresized(GeneralizedRCNNTransform):
    """Normalise and pad as torchvision does; a view has its size already."""

    def resize(self, image: Any, target: Any = None) -> Any:
        return image, target


def pair(options: mask_rcnn.Options) -> tuple[Any, Any]:
    """Return the backend, and the same network with torchvision's own losses."""
    torch.manual_seed(0)
    ours = mask_rcnn.Backend(3, options)
    stock = copy.deepcopy(ours.model)
    stock.rpn.__class__, stock.roi_heads.__class__ = RegionProposalNetwork, RoIHeads
    stock.rpn.anchor_generator.__class__, stock.rpn.proposal_matcher.__class__ = AnchorGenerator, Matcher
    stock.roi_heads.box_roi_pool.__class__ = stock.roi_heads.mask_roi_pool.__class__ = MultiScaleRoIAlign
    for part in (stock.rpn, stock.roi_heads):
        part.fg_bg_sampler.__class__, part.box_coder.__class__ = BalancedPositiveNegativeSampler, BoxCoder
    stock.transform = Unresized(64, 96, *IMAGENET, size_divisible=ours.divisor)
    return ours, stock


@COUNTS
def test_unit_weights_give_the_losses_and_gradients_of_torchvision(counts: tuple[int, ...]) -> None:
    ours, stock = pair(SMALL)
    images, targets = batch(*counts)
    torch.manual_seed(1)
    losses = ours.loss(images, targets, batch_normalizer)
    stock.train()
    torch.manual_seed(1)
    expected = stock(
        images,
        [{"boxes": t.instances.boxes, "labels": t.instances.labels + 1, "masks": t.instances.masks} for t in targets],
    )
    for term, name in STOCK.items():
        torch.testing.assert_close(losses[term], expected[name], rtol=1e-6, atol=1e-8)
    sum(loss for term, loss in losses.items() if term != "mask_iou").backward()
    sum(expected.values()).backward()
    for (name, mine), theirs in zip(ours.model.named_parameters(), stock.parameters(), strict=True):
        if not name.startswith("roi_heads.mask_iou_head"):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_mask_iou_loss_has_a_weight() -> None:
    assert_the_mask_iou_loss_has_a_weight(lambda **options: pair(mask_rcnn.Options(**NETWORK, **options))[0])


def test_predictions_are_those_of_torchvision() -> None:
    ours, stock = pair(SMALL)
    images, _ = batch(0)
    images.append(images[0][:, :50, :70].flip(1))  # two views of different sizes
    maps: list[torch.Tensor] = []
    stock.roi_heads.register_forward_hook(lambda module, inputs, output: maps.extend(one["masks"] for one in output[0]))
    for number, (detections, expected) in enumerate(zip(ours.predict(images), stock.eval()(images), strict=True)):
        assert torch.equal(detections.boxes, expected["boxes"]) and torch.equal(detections.scores, expected["scores"])
        assert torch.equal(detections.labels, expected["labels"] - 1) and len(detections) == 5
        pasted = paste.paste_masks(maps[number][:, 0], expected["boxes"], (64, 80), mask_rcnn.MASK_SHIFT)
        height, width = images[number].shape[1:]
        assert torch.equal(detections.masks, pasted[:, :height, :width])
        assert ((detections.masks != (expected["masks"][:, 0] > 0.5)).flatten(1).float().mean(1) < 0.05).all()


def test_pasted_masks_are_sampled_at_the_centres_of_pixels() -> None:
    """Sampled one by one in numpy, with zeros around the map; boxes leave the view, and one is less than a pixel."""
    generator = np.random.default_rng(3)
    maps = generator.random((4, 28, 28)).astype(np.float32)
    boxes = np.array([[3.3, 2.7, 31.2, 20.1], [-9, -4, 25, 60], [10, 10, 10.4, 10.6], [30, 5, 70.5, 44]], np.float32)
    size = (40, 50)
    expected = np.zeros((4, *size))
    for n, row, column in np.ndindex(expected.shape):
        x0, y0, x1, y1 = boxes[n].astype(np.float64)
        at = ((row + 0.5 - y0) / (y1 - y0) * 28 - 0.5, (column + 0.5 - x0) / (x1 - x0) * 28 - 0.5)
        for i, j in itertools.product(*((math.floor(p), math.floor(p) + 1) for p in at)):
            if 0 <= i < 28 and 0 <= j < 28:
                expected[n, row, column] += maps[n, i, j] * (1 - abs(at[0] - i)) * (1 - abs(at[1] - j))
    for chunk in (paste.CHUNK, 2 * 40 * 50):
        with unittest.mock.patch.object(paste, "CHUNK", chunk):
            masks = paste.paste_masks(torch.from_numpy(maps), torch.from_numpy(boxes), size).numpy()
        clear = np.abs(expected - 0.5) > 1e-4
        assert masks[0].any() and (masks == (expected > 0.5))[clear].all() and clear.mean() > 0.99


def test_pasted_masks_are_torchvisions_but_for_its_whole_pixels() -> None:
    generator = torch.Generator().manual_seed(2)
    low = torch.rand((30, 2), generator=generator) * 120
    boxes = torch.cat((low, low + 50 + torch.rand((30, 2), generator=generator) * 150), 1)  # px
    y, x = torch.meshgrid(torch.linspace(-1, 1, 28), torch.linspace(-1, 1, 28), indexing="ij")
    maps = (8 * (0.8 - (x**2 + y**2).sqrt() + 0.1 * torch.rand((30, 28, 28), generator=generator))).sigmoid()
    ours = paste.paste_masks(maps, boxes, (300, 320))
    stock = paste_masks_in_image(maps[:, None], boxes, (300, 320))[:, 0] > 0.5
    iou = (ours & stock).flatten(1).sum(1) / (ours | stock).flatten(1).sum(1)
    assert iou.mean() > 0.97


def test_boxes_of_a_half_precision_pass_are_decoded_in_full() -> None:
    """In a view of 1024 px a coordinate of bfloat16 is a multiple of 4 px."""
    ours, _ = pair(SMALL)
    image = torch.rand((3, 256, 1024), generator=torch.Generator().manual_seed(4))
    seen: dict[str, torch.Tensor] = {}
    heads = ours.model.roi_heads
    heads.box_predictor.register_forward_hook(lambda module, inputs, output: seen.update(deltas=output[1]))
    ours.model.rpn.register_forward_hook(lambda module, inputs, output: seen.update(proposals=output[0][0]))
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = ours.predict([image])
    assert seen["deltas"].dtype == torch.bfloat16 and found.boxes.dtype == seen["proposals"].dtype == torch.float32
    decoded = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode(seen["deltas"].float(), [seen["proposals"]])[:, 1:].flatten(0, 1)
    decoded = decoded.clamp(min=0).minimum(torch.tensor([1024.0, 256, 1024, 256]))
    assert (found.boxes[:, None] - decoded).abs().amax(2).amin(1).max() < 0.05 and len(found) == 5
    anchors = ours.model.rpn.anchor_generator(
        ImageList(image[None], [(256, 1024)]), [torch.zeros(1, 32, 64, 256).bfloat16()] * 3
    )
    assert anchors[0].dtype == torch.float32


def test_a_folded_norm_is_torchvisions_frozen_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    stock, ours = FrozenBatchNorm2d(6), FoldedBatchNorm2d(6)
    x = torch.randn((2, 6, 8, 8), generator=generator, requires_grad=True)
    assert torch.equal(ours(x), stock(x)), "before the weights are loaded"
    state = {name: torch.rand(6, generator=generator) + 0.5 for name in stock.state_dict()}
    for norm in (stock, ours):
        norm.load_state_dict(state | {"num_batches_tracked": torch.tensor(3)})
    torch.testing.assert_close(ours(x), stock(x), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(norm(x).square().sum(), x)[0] for norm in (ours, stock)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
    assert ours(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(ours.double()(x.double()), stock.double()(x.double()))
    assert ours.state_dict().keys() == stock.state_dict().keys()


def test_the_default_is_r50_fpn_with_a_narrow_mask_iou_head() -> None:
    ours = mask_rcnn.Backend(80, mask_rcnn.Options())
    stock = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    size = {module: sum(p.numel() for p in module.parameters()) for module in (ours, stock)}
    mask_iou = sum(p.numel() for p in ours.model.roi_heads.mask_iou_head.parameters())
    assert size[ours] - mask_iou == size[stock]
    assert 100_000 < mask_iou < 1_000_000  # the release's has 51 M


def test_the_mask_iou_target_counts_the_mask_beyond_the_region() -> None:
    regions = torch.tensor([[0.0, 0.0, 20.0, 40.0]])
    outside = area_outside_roi(torch.tensor([40.0 * 40.0]), regions, torch.ones(1, 28, 28))
    assert outside.item() == pytest.approx(28 * 28)  # the other half of the square


def test_pretrained_weights_load_from_a_file_and_freeze_the_stem(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body = resnet50(weights=None)
    torch.save(body.state_dict(), tmp_path / "resnet50.pth")
    backend = mask_rcnn.Backend(3, mask_rcnn.Options(pretrained_backbone=tmp_path / "resnet50.pth"))
    loaded = backend.model.backbone.body
    assert torch.equal(loaded.layer3[0].conv1.weight, body.layer3[0].conv1.weight)
    learning = {name for name, p in loaded.named_parameters() if p.requires_grad}
    assert "conv1.weight" not in learning and not any(name.startswith("layer1") for name in learning)
    assert any(name.startswith("layer2") for name in learning)


def test_missing_or_foreign_weights_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"absent\.pth: no such file of pretrained weights"):
        mask_rcnn.Backend(3, mask_rcnn.Options(pretrained_backbone=tmp_path / "absent.pth"))
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "foreign.pth")
    with pytest.raises(BenchError, match=r"foreign\.pth: these weights are of another network.*conv1\.weight"):
        mask_rcnn.Backend(3, mask_rcnn.Options(pretrained_backbone=tmp_path / "foreign.pth"))
    for content in (torch.zeros(3), [torch.zeros(3)], {0: torch.zeros(3)}):
        torch.save(content, tmp_path / "unnamed.pth")
        with pytest.raises(BenchError, match=r"unnamed\.pth: cannot be loaded .*, and no weights by name"):
            mask_rcnn.Backend(3, mask_rcnn.Options(pretrained_backbone=tmp_path / "unnamed.pth"))
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(BenchError, match=r"torn\.pth: cannot be loaded"):
        mask_rcnn.Backend(3, mask_rcnn.Options(pretrained_backbone=tmp_path / "torn.pth"))


def test_a_checkpoint_of_the_whole_network_starts_from_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    stock = mask_rcnn.Backend(3, SMALL).model
    state = {name: value for name, value in stock.state_dict().items() if "mask_iou_head" not in name}
    torch.save(state, tmp_path / "stock.pth")
    torch.manual_seed(2)
    ours = mask_rcnn.Backend(3, SMALL.model_copy(update={"checkpoint": tmp_path / "stock.pth"}))
    assert torch.equal(ours.model.rpn.head.cls_logits.weight, stock.rpn.head.cls_logits.weight)


def test_boundary_weights_of_a_block() -> None:
    """A 2x2 block of ones in a 4x4 map of zeros, computed by hand."""
    block = torch.full((1, 4, 4), -40.0)
    block[0, 1:3, 1:3] = 40.0
    weights = boundary_weights(block, 3.0)[0]
    assert [weights[0, 0].item(), weights[0, 1].item(), weights[1, 1].item()] == pytest.approx([1.2, 2.4, 6.0])
    assert weights.mean().item() == pytest.approx(3.0)


def test_the_boundary_map_acts_pixel_by_pixel() -> None:
    """The release multiplies the averaged loss, so that its map is the constant 3."""
    torch.manual_seed(1)
    logits, target, weight = torch.randn(2, 28, 28), (torch.rand(2, 28, 28) > 0.5).float(), torch.ones(2)
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    expected = (plain * boundary_weights(logits, 3.0)).mean()
    actual, _ = mask_losses([logits], target, weight, 3.0, torch.zeros(2), lambda probability: torch.zeros(2), 2)
    torch.testing.assert_close(actual, expected)
    assert abs(expected - 3 * plain.mean()) > 1e-3


@pytest.mark.parametrize("kind", ["ellipse", "ellipse cut by the view", "rectangle"])
def test_masks_lie_where_their_targets_were_cropped(kind: str) -> None:
    """Ground truth that is cropped as a mask target and pasted as a prediction comes back, on small objects too."""
    generator = torch.Generator().manual_seed(5)
    centre = 20 + torch.rand((40, 2), generator=generator) * 60
    radius = 3 + torch.rand((40, 2), generator=generator) * 5  # px: objects of 6 to 16
    if kind == "rectangle":
        centre, radius = centre.round(), radius.round()
    elif kind == "ellipse cut by the view":
        centre[:20, 0] = centre[20:, 1] = 0
    y, x = torch.meshgrid(torch.arange(100) + 0.5, torch.arange(100) + 0.5, indexing="ij")
    across = (x - centre[:, :1, None]).abs() / radius[:, :1, None]
    down = (y - centre[:, 1:, None]).abs() / radius[:, 1:, None]
    masks = (across.maximum(down) if kind == "rectangle" else across**2 + down**2) < 1
    boxes = torch.cat((centre - radius, centre + radius), 1).clamp(min=0)
    crops = project_masks_on_boxes(masks.float(), boxes, torch.arange(40), 28)
    iou = {}
    for shift in (0.0, mask_rcnn.MASK_SHIFT):
        pasted = paste.paste_masks(crops, boxes, (100, 100), shift)
        iou[shift] = ((pasted & masks).flatten(1).sum(1) / (pasted | masks).flatten(1).sum(1)).mean()
    assert iou[mask_rcnn.MASK_SHIFT] > 0.93 > 0.88 > iou[0.0]


def test_a_gpu_that_the_machine_has_beside_it_does_not_change_a_network_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sizes = {"backbone": "resnet50", "anchor_sizes": [32, 64, 128, 256, 512]}
    network = mask_rcnn.Backend(3, mask_rcnn.Options(**NETWORK | sizes)).to("cpu")
    layers = [layer for layer in network.model.backbone.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert layers and all(layer.weight.is_contiguous() for layer in layers)
