"""Check that torchvision/mask_rcnn is torchvision's Mask R-CNN."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import NETWORK, instances
from torchvision.models import resnet50
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pais_bench.backends.torchvision import mask_rcnn
from pais_bench.backends.torchvision._inputs import MEAN, STD
from pais_bench.errors import BenchError
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.layers.roi_losses import area_outside_roi, boundary_weights, mask_losses
from pais_bench.types import Targets

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
    for part in (stock.rpn, stock.roi_heads):
        part.fg_bg_sampler.__class__ = BalancedPositiveNegativeSampler
    stock.transform = Unresized(64, 96, MEAN, STD, size_divisible=ours.divisor)
    return ours, stock


def batch(*counts: int) -> tuple[list[torch.Tensor], list[Targets]]:
    generator = torch.Generator().manual_seed(4)
    images = [torch.rand((3, 64, 80), generator=generator) for _ in counts]
    boxes = [[[4 + 7 * i, 3 + 5 * i, 30 + 8 * i, 28 + 6 * i] for i in range(count)] for count in counts]
    return images, [Targets.unweighted(instances(b, [i % 3 for i in range(len(b))], size=(64, 80))) for b in boxes]


@pytest.mark.parametrize("counts", [(3, 1), (2, 0), (0, 0), (5,)], ids=str)
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


def test_predictions_are_those_of_torchvision() -> None:
    ours, stock = pair(SMALL)
    images, _ = batch(0)
    expected = stock.eval()(images)[0]
    detections = ours.predict(images)[0]
    assert torch.equal(detections.boxes, expected["boxes"]) and torch.equal(detections.scores, expected["scores"])
    assert torch.equal(detections.labels, expected["labels"] - 1)
    assert torch.equal(detections.masks, expected["masks"][:, 0] > 0.5)


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
