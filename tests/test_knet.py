"""Check that torchvision/knet is the K-Net of the PAIS release, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import KNET, instances, project
from torch import Tensor, distributed
from torchvision.models import resnet50

from pais_bench import geometry, plugins
from pais_bench.annotations.rle import describe_mask
from pais_bench.annotations.store import Store
from pais_bench.backends.torchvision import _kernel_update, _matching, _painting, _semantic_fpn, _set_losses, knet
from pais_bench.data.labels import read_instances
from pais_bench.data.read import read_image
from pais_bench.errors import BenchError
from pais_bench.evaluation.metrics import coco
from pais_bench.layers.losses import mask_iou_loss, soft_mask_iou
from pais_bench.layers.normalizers import RankNormalizer, batch_normalizer
from pais_bench.study.base import parse
from pais_bench.types import Instances, Targets


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(classes: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    return knet.Backend(classes, knet.Options(**{**KNET, **options}))


def close(actual: Tensor, expected: Any) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1.5e-6)


def test_the_default_has_the_parameters_of_the_paper() -> None:
    ours = knet.Backend(80, knet.Options())

    def size(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert size(ours.backbone.fpn) == 3_344_384
    assert size(ours.semantic_fpn) == 4_264_448
    assert size(ours.kernel_head) == 178_256
    for stage in ours.stages:
        assert size(stage.mask_iou) == 66_305 and size(stage) == 2_062_416 + 66_305
    assert size(ours) - size(ours.backbone.body) == 14_173_251


# Computed by hand from the release's formulas.
MASKS = torch.tensor([[[2.0, -2.0], [0.0, 1.0]], [[-1.0, 3.0], [0.5, -0.5]]])
SOFT = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.5, 0.25]]])
ONE, PAIS = torch.ones(2), 2.5 * torch.tensor([0.9, 0.6]) ** 4


def test_the_mask_losses_are_those_of_the_release() -> None:
    for n, expected in enumerate((0.315066, 0.421251)):
        close(_set_losses.mask_loss(MASKS[n : n + 1], SOFT[n : n + 1], ONE[:1]), expected)
    close(_set_losses.mask_loss(MASKS, SOFT, ONE), 0.368158)
    close(_set_losses.mask_loss(MASKS, SOFT, PAIS), 0.326636)
    for n, expected in enumerate((0.098631, 0.038185)):
        close(_set_losses.dice_loss(MASKS[n : n + 1], SOFT[n : n + 1], ONE[:1]) / 4, expected)
    close(_set_losses.dice_loss(MASKS, SOFT, ONE), 0.273630)
    close(_set_losses.dice_loss(MASKS, SOFT, PAIS), 0.348301)


def test_the_mask_iou_and_its_loss_are_those_of_the_release() -> None:
    iou = soft_mask_iou(MASKS >= 0, SOFT)
    close(iou, [0.666667, 0.666667])
    close(mask_iou_loss(torch.tensor([1.0, -0.5]), iou), 0.727003)


def test_the_class_loss_is_that_of_the_release() -> None:
    logits, labels = torch.tensor([[2.0, -1.0], [0.0, 0.0], [-3.0, 1.0]]), torch.tensor([1, 2, 0])
    rows = [_set_losses.class_loss(logits[n : n + 1], labels[n : n + 1], ONE[:1], 1) / 2 for n in range(3)]
    close(torch.stack(rows), [1.413026, 0.259930, 1.217971])
    close(_set_losses.class_loss(logits, labels, torch.ones(3), 2), 2.890927)
    close(_set_losses.class_loss(logits, labels, torch.tensor([0.3072, 0.1225, 0.75]), 2), 1.379402)


def test_costs_and_match_are_those_of_the_release() -> None:
    masks = torch.tensor([[[4.0, -4.0], [-4.0, -4.0]], [[-4.0, -4.0], [4.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    ground_truth = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]]])
    logits, labels = torch.tensor([[1.0, -2.0], [-1.0, 2.0], [0.0, 0.0]]), torch.tensor([1, 0])
    close(
        _matching.class_cost(logits, labels),
        [[0.411167, -0.520737], [-1.237107, 0.158474], [-0.086643, -0.086643]],
    )
    p, t = masks.sigmoid().flatten(1), ground_truth.flatten(1)
    close(_matching.mask_cost(p, t, p @ t.T), [[-0.258993, -0.982014], [-0.982014, -0.258993], [-0.5, -0.5]])
    close(
        _matching.dice_cost(p, t, p @ t.T),
        [[-0.024246, -0.998326], [-0.999162, -0.012272], [-0.666223, -0.499500]],
    )
    total = _matching.matching_cost(masks, ground_truth, logits, labels)
    close(total / 10, [[0.0466358, -0.6016790], [-0.7452877, 0.0008867], [-0.3338177, -0.2671289]])
    matches = _matching.match(total[None, None], [2])
    assert dict(zip(*(column[0].tolist() for column in (matches.query, matches.instance)), strict=True)) == {1: 0, 0: 1}


def test_a_match_counts_images_and_instances_over_the_batch() -> None:
    costs = torch.rand((3, 4, 5), generator=torch.Generator().manual_seed(0))
    costs[0, 3, 0] = costs[0, 2, 1] = -1
    costs[0, :, 2:] = costs[1] = -9  # columns after an image's 2, 0 and 5 instances
    matches = _matching.match(torch.stack((costs, -costs)), [2, 0, 5])
    assert matches.image.tolist() == [[0, 0, 2, 2, 2, 2]] * 2  # four queries answer for four of five instances
    first, second = (set(zip(q.tolist(), i.tolist(), strict=True)) for q, i in zip(*matches[1:], strict=True))
    assert {(3, 0), (2, 1)} < first and set(matches.instance[0, 2:].tolist()) < {2, 3, 4, 5, 6}
    assert first != second


def test_a_cost_that_is_not_finite_is_matched_last() -> None:
    cost = torch.tensor([[float("nan"), 1.0], [float("-inf"), 0.0], [5.0, float("inf")]])
    matches = _matching.match(cost[None, None], [2])
    assert set(zip(*(column[0].tolist() for column in matches[1:]), strict=True)) == {(2, 0), (1, 1)}


def test_the_focal_loss_of_the_semantic_map_is_divided_by_the_cells_of_objects() -> None:
    logits, labels = torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 2, 1]]])
    negative, positive = 0.129965, 0.129965 / 3  # at a logit of 0
    close(_set_losses.semantic_loss(logits, labels, batch_normalizer), (4 * negative + 2 * positive) / 2)


def test_later_instances_are_painted_over_earlier_ones() -> None:
    masks = instances([[0, 0, 2, 2], [1, 0, 3, 2]], size=(2, 4)).masks.float()
    painted = _painting.paint(_painting.by_image(masks, [2, 0]), _painting.by_image(torch.tensor([2, 0]), [2, 0]), 3)
    assert painted.tolist() == [[[2, 0, 0, 3]] * 2, [[3, 3, 3, 3]] * 2]
    none = _painting.paint(
        _painting.by_image(masks[:0], [0]), _painting.by_image(torch.tensor([], dtype=torch.int64), [0]), 3
    )
    assert none.tolist() == [[[3, 3, 3, 3]] * 2]


def test_the_map_is_painted_in_the_order_of_instances_whichever_queries_take_them() -> None:
    """The release paints in the order of queries: 3 lies on top where query 0 takes the second instance."""
    masks, labels = torch.zeros(1, 2, 8, 8), torch.tensor([[3, 5]])
    masks[0, 0, :6], masks[0, 1, 2:] = 1, 1
    by_query = {order: (masks[:, order], labels[:, order]) for order in ((0, 1), (1, 0))}
    assert [_painting.paint(*by_query[order], 6)[0, 2:6].unique().tolist() for order in by_query] == [[5], [3]]
    net = network(stride=8)
    overlapping = Targets.unweighted(instances([[0, 0, 48, 64], [16, 0, 64, 64]], labels=[0, 1], size=(64, 64)))
    image = torch.rand((3, 64, 64), generator=torch.Generator().manual_seed(1))
    losses = []
    for _ in range(2):
        losses.append(net.loss([image], [overlapping], batch_normalizer))
        net.kernel_head.kernels.data = net.kernel_head.kernels.flip(0)  # each instance is taken by another query
    assert torch.equal(losses[0]["semantic"], losses[1]["semantic"])
    torch.testing.assert_close(losses[0]["mask"], losses[1]["mask"])


@pytest.mark.parametrize("backbone", ["small", "resnet50"])
def test_start_values_of_the_release_are_drawn_after_all_others(backbone: str) -> None:
    """Standard deviations measured on the release: 0.088 and 0.051, 0.040, 0.029 (laterals of ResNet-50)."""
    wide = {"backbone": backbone, "channels": 256, "heads": 8, "groups": 32}
    default, released = network(**wide).state_dict(), network(**wide, release_init=True).state_dict()
    transforms = {f"stages.{stage}.transform.weight" for stage in range(2)}
    biases = {name.replace("weight", "bias") for name in transforms}
    laterals = {name for name in default if "inner_blocks" in name and name.endswith("weight")}
    changed = {name for name in default if not torch.equal(default[name], released[name])}
    assert changed == {*transforms, *biases, *laterals, "semantic_fpn.location.0.weight"}
    assert all(default[name].abs().max() > 0 and not released[name].any() for name in biases)
    deviations = [released[name].std().item() for name in sorted(transforms) + ["semantic_fpn.location.0.weight"]]
    assert deviations == pytest.approx([0.0884] * 3, abs=1e-3)
    if backbone == "resnet50":
        deviations = [released[name].std().item() for name in sorted(laterals)]
        assert deviations == pytest.approx([0.0625, 0.0510, 0.0395, 0.0295], abs=5e-4)


def test_masks_are_brought_to_half_the_stride_and_soft_at_borders() -> None:
    masks = instances([[0, 0, 6, 8]], size=(8, 12)).masks
    assert network(stride=8)._resample([masks], (16, 16)).tolist() == [[[1, 0.5, 0, 0]] * 2 + [[0, 0, 0, 0]] * 2]
    noise = [torch.rand((count, 13, 21), generator=torch.Generator().manual_seed(count)) > 0.5 for count in (2, 0, 1)]
    for stride in (2, 4, 8):
        padded = torch.nn.functional.pad(torch.cat(noise).float(), (0, 11, 0, 19))[None]
        expected = torch.nn.functional.interpolate(padded, scale_factor=2 / stride, mode="bilinear")[0]
        assert torch.equal(network(stride=stride)._resample(noise, (32, 32)), expected)


def test_a_kernel_gathers_the_sum_of_what_its_mask_covers() -> None:
    features = torch.arange(8.0).reshape(1, 2, 2, 2).requires_grad_()
    masks = torch.tensor([[[[1.0, -1.0], [0.0, 3.0]]]], requires_grad=True)
    gathered = _kernel_update.gather(masks, features)
    assert gathered.tolist() == [[[0 + 3, 4 + 7]]]
    gathered.sum().backward()
    assert features.grad is not None and features.grad.sum() == 4 and masks.grad is None


def test_position_encodings_differ_from_cell_to_cell_and_rows_come_first() -> None:
    positions = _semantic_fpn.sine_positions(torch.zeros(1, 8, 3, 5))
    assert positions.shape == (8, 3, 5) and positions.abs().max() <= 1
    assert (positions[:4].diff(dim=2) == 0).all() and (positions[4:].diff(dim=1) == 0).all()
    assert len(positions.flatten(1).T.unique(dim=0)) == 15


def test_padding_changes_no_mask_size_and_predictions_lie_in_their_view() -> None:
    small, large = torch.rand(3, 40, 48), torch.rand(3, 64, 80)
    detections = network().predict([small, large])
    assert [image.masks.shape[1:] for image in detections] == [(40, 48), (64, 80)]
    assert all(image.masks.flatten(1).any(1).all() for image in detections)
    assert torch.equal(detections[0].boxes, geometry.masks_to_boxes(detections[0].masks))


def test_detections_that_are_not_kept_are_not_rasterised(monkeypatch: pytest.MonkeyPatch) -> None:
    views, both = [torch.rand(3, 40, 48), torch.rand(3, 64, 80)], network(kernels=8, detections_per_img=20)
    monkeypatch.setattr(knet, "AT_ONCE", 3)  # several rounds, across images
    everything, counts, rasterise = both.predict(views), list[int](), both._rasterise

    def count(maps: Tensor, inside: Tensor) -> Tensor:
        counts.append(len(maps))
        return rasterise(maps, inside)

    monkeypatch.setattr(both, "_rasterise", count)
    middle = torch.cat([one.scores for one in everything]).median()
    kept = both.predict(views, keep=lambda one: (one.scores > middle) & (one.masks.flatten(1).sum(1) == 0))
    for some, one in zip(kept, everything, strict=True):
        expected = one[one.scores > middle]
        values = {name: value for name, value in vars(expected).items() if value is not None}
        assert len(values) == 5 and all(torch.equal(getattr(some, name), value) for name, value in values.items())
    assert max(counts) == 3 and sum(map(len, kept)) <= sum(counts) < sum(map(len, everything))
    assert [len(one) for one in both.predict(views, keep=lambda one: one.scores > 1)] == [0, 0]


def test_more_instances_than_kernels_train() -> None:
    crowd = instances([[x, x, x + 20, x + 20] for x in range(0, 40, 2)])
    losses = network(kernels=4).loss([torch.rand(3, 64, 64)], [Targets.unweighted(crowd)], batch_normalizer)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_a_network_that_diverged_gives_losses_that_are_not_finite() -> None:
    broken = network()
    torch.nn.init.constant_(broken.stages[0].transform.bias, float("nan"))
    losses = broken.loss([torch.rand(3, 64, 64)], [Targets.unweighted(instances([[4, 4, 40, 40]]))], batch_normalizer)
    assert not torch.isfinite(losses["mask"])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forked because a spawned rank imports torch again
def test_the_number_of_matched_queries_is_averaged_over_ranks(tmp_path: Path) -> None:
    assert batch_normalizer(3) == 3
    torch.multiprocessing.start_processes(_rank, (tmp_path / "rendezvous",), nprocs=2, start_method="fork")


def _rank(rank: int, rendezvous: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    assert RankNormalizer(torch.device("cpu"))((1, 4)[rank]) == 2.5
    distributed.destroy_process_group()


def test_pretrained_weights_freeze_the_stem(tmp_path: Path) -> None:
    torch.save(resnet50(weights=None).state_dict(), tmp_path / "resnet50.pth")
    body = knet.Backend(3, knet.Options(pretrained_backbone=tmp_path / "resnet50.pth")).backbone.body
    learning = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    assert learning == {"layer2", "layer3", "layer4"}


def test_channels_that_do_not_divide_are_one_clear_error() -> None:
    with pytest.raises(BenchError, match=r"10 channels are no multiple of 4 heads and 5 groups"):
        parse(knet.Options, {"channels": 10, "heads": 4, "groups": 5}, "networks.knet.options")


def test_the_network_overfits_eight_images(tmp_path: Path) -> None:
    shapes = plugins.load("datasets", "shapes")
    shapes.Dataset(shapes.Options(train=8, val=1, size=64), None).prepare(tmp_path, "shapes")
    store, same = Store.open(tmp_path, "train"), torch.eye(3, dtype=torch.float64)
    pictures = [read_image(store, i).float() / 255 for i in store.image_ids]
    images = [geometry.warp(picture, same, (64, 64)) for picture in pictures]
    ground_truth = [project(read_instances(store, i), same, (64, 64))[0] for i in store.image_ids]
    targets = [Targets.unweighted(image) for image in ground_truth]
    student = network(8, channels=32, kernels=8, heads=4, ffn=64, groups=8, stride=2, detections_per_img=20)
    optimizer = torch.optim.AdamW(student.parameters(), lr=STEEP)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, STEEP, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        sum(student.loss(images, targets, batch_normalizer).values()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        plan.step()
    expected = {
        "images": [{"id": k, "height": 64, "width": 64} for k in range(8)],
        "categories": [{"id": c, "name": str(c)} for c in range(8)],
        "annotations": [
            {**record, "id": number, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1.0}
            for number, record in enumerate(records(ground_truth), start=1)
        ],
    }
    assert coco.Metric().evaluate(expected, records(student.predict(images)))["segm"]["AP"] > 0.9  # type: ignore[operator]


STEPS, STEEP = 120, 0.004


def records(detections: list[Instances]) -> list[dict[str, Any]]:
    return [
        {
            "image_id": k,
            "category_id": label,
            "segmentation": describe_mask(mask.numpy())["segmentation"],
            "score": score,
        }
        for k, image in enumerate(detections)
        for label, mask, score in zip(image.labels.tolist(), image.masks, image.scores.tolist(), strict=True)
    ]
