"""Check mixed strong views: every pixel of a mask shows its source, weights stay, and nothing depends on neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import instances, study, with_soft, write_study
from torch import Tensor
from torch.nn import functional as F

from pais_bench import geometry
from pais_bench.cli.main import main
from pais_bench.errors import BenchError
from pais_bench.study.base import parse
from pais_bench.study.run import CopyPaste, CutMix, Mix, Training
from pais_bench.study.study import Study
from pais_bench.training import mixing
from pais_bench.training.mixing import mix_views
from pais_bench.types import InstanceMaps, Instances, Targets, Unlabelled, View

SIZES = (48, 64), (60, 52)
EYE = torch.eye(3, dtype=torch.float64)
CUT = CutMix(kind="cutmix", prob=1.0)
IN_PLACE = CopyPaste(kind="copy_paste", prob=1.0, min_pixels=60)
SCALED = CopyPaste(kind="copy_paste", prob=1.0, min_pixels=60, scale=(0.8, 1.2))
KINDS = pytest.mark.parametrize("mix", [CUT, IN_PLACE, SCALED], ids=["cutmix", "in_place", "scaled"])


def coded(index: int, seed: int) -> Unlabelled:
    """Return an image whose strong view shows at each pixel the image's number, the row and the column."""
    height, width = SIZES[index % 2]
    rows, columns = torch.arange(height)[:, None].expand(-1, width), torch.arange(width).expand(height, -1)
    view = View(torch.stack((torch.full((height, width), index), rows, columns)).float(), EYE)
    return Unlabelled(index, view, view, None, seed)


def drawn(index: int, seed: int, count: int = 5) -> Targets:
    """Return targets of overlapping ellipses, whose labels and weights tell one from all others of all images."""
    height, width = SIZES[index % 2]
    rng = torch.Generator().manual_seed(seed)
    ranges = torch.tensor([height, width, 14, 14])[:, None, None, None]
    y, x, down, across = (torch.rand((4, count, 1, 1), generator=rng) * ranges).unbind()
    rows, columns = torch.arange(height)[:, None] + 0.5, torch.arange(width) + 0.5
    masks = ((rows - y) / (down + 4)) ** 2 + ((columns - x) / (across + 4)) ** 2 < 1
    labels = 100 * index + torch.arange(count)
    scores = torch.linspace(0.9, 0.1, count)
    found = Instances(geometry.masks_to_boxes(masks), labels, masks, scores, scores)
    return Targets(found, labels + 0.1, labels + 0.2, labels + 0.3, background=0.4)


def batch(seed: int, count: int = 2) -> tuple[list[Unlabelled], list[Targets]]:
    return [coded(i, seed + i) for i in range(count)], [drawn(i, seed + i) for i in range(count)]


def mixed(seed: int, mix: Mix, count: int = 2) -> tuple[Sequence[Unlabelled], Sequence[Targets]]:
    return mix_views(*batch(seed, count), mix)


def shown(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of the image, the row and the column that each pixel of a view comes from."""
    number, row, column = view.image.unbind(0)
    return number.round().long(), row, column


def by_label(targets: Targets) -> dict[int, Targets]:
    return {int(label): targets[torch.tensor([i])] for i, label in enumerate(targets.instances.labels)}


@pytest.mark.parametrize("mix", [CUT, IN_PLACE], ids=["cutmix", "in_place"])
def test_every_pixel_of_a_mask_shows_the_pixel_of_its_source_and_no_pixel_is_lost(mix: Mix) -> None:
    pasted = 0
    for seed in range(20):
        _, before = batch(seed)
        images, after = mixed(seed, mix)
        sources = {label: one for targets in before for label, one in by_label(targets).items()}
        for index, (image, targets) in enumerate(zip(images, after, strict=True)):
            number, row, column = shown(image.strong)
            left, claimed = by_label(targets), torch.zeros_like(number)
            for label, source in sources.items():
                height, width = source.instances.masks.shape[-2:]
                inside = (row < height) & (column < width) & (number == label // 100)
                at = row.long().clamp(max=height - 1), column.long().clamp(max=width - 1)
                expected = inside & source.instances.masks[0][at]
                mask = left[label].instances.masks[0] if label in left else torch.zeros_like(expected)
                if mix is CUT or label // 100 == index:
                    assert torch.equal(mask, expected)
                else:
                    assert not (mask & ~expected).any()
                    claimed += mask
                if label in left:
                    assert_same_instance(left[label], source)
            assert left.keys() <= sources.keys() and all(one.instances.masks.any() for one in left.values())
            if mix is IN_PLACE:
                assert torch.equal(claimed, (number != index).long()), "a pasted pixel is in one pasted mask"
            pasted += int((number != index).sum())
    assert pasted > 20 * 100


def assert_same_instance(one: Targets, source: Targets) -> None:
    for name in ("class_weight", "mask_weight", "box_weight"):
        assert torch.equal(getattr(one, name), getattr(source, name)), name
    assert torch.equal(one.instances.scores, source.instances.scores)
    assert one.background == source.background
    assert torch.equal(one.instances.boxes, geometry.masks_to_boxes(one.instances.masks)), "drawn boxes are tight"


def test_a_scaled_instance_lies_where_its_matrix_maps_its_box_and_shows_what_lay_there() -> None:
    checked = 0
    for seed in range(20):
        _, before = batch(seed)
        images, after = mixed(seed, SCALED)
        for index, (image, targets) in enumerate(zip(images, after, strict=True)):
            number, row, column = shown(image.strong)
            theirs = targets[(targets.instances.labels // 100 != index).nonzero()[:, 0]]
            assert torch.equal(theirs.instances.masks.sum(0), (number != index).long()), "pasted masks do not overlap"
            for label, one in list(by_label(theirs).items())[:1]:  # the surest lies on top
                source = by_label(before[1 - index])[label].instances
                box, mask = one.instances.boxes[0].double(), one.instances.masks[0]
                (x0, y0, x1, y1), (u0, v0, u1, v1) = box.tolist(), source.boxes[0].tolist()
                resize = geometry.scale((x1 - x0) / (u1 - u0), (y1 - y0) / (v1 - v0))
                matrix = geometry.shift(x0, y0) @ resize @ geometry.shift(-u0, -v0)
                whole = geometry.warp_masks(source.masks, matrix, mask.shape)[0]
                assert 0.75 < (x1 - x0) / (u1 - u0) < 1.25 and 0.75 < (y1 - y0) / (v1 - v0) < 1.25
                assert (mask & whole).sum() > 0.95 * (mask | whole).sum()
                ys, xs = (mask & inner(box, mask.shape)).nonzero().unbind(1)
                points = torch.stack((xs + 0.5, ys + 0.5, torch.ones_like(xs)), 0).double()
                x, y, _ = torch.linalg.inv(matrix) @ points
                torch.testing.assert_close(column[ys, xs].double() + 0.5, x, atol=1e-3, rtol=0)
                torch.testing.assert_close(row[ys, xs].double() + 0.5, y, atol=1e-3, rtol=0)
                checked += 1
    assert checked > 30


def inner(box: Tensor, size: Sequence[int]) -> Tensor:
    """Return bool[H,W]: pixels inside of a box and not within a pixel of its border, where a crop ends."""
    inside = torch.zeros(tuple(size), dtype=torch.bool)
    x0, y0, x1, y1 = (int(side) for side in box)
    inside[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
    return inside


@KINDS
def test_a_mix_depends_on_the_seed_of_the_image_and_the_pair_alone(mix: Mix) -> None:
    first, second = mixed(3, mix, count=4), mixed(3, mix, count=4)
    images, targets = batch(3, 4)
    parts = [mix_views(images[start : start + 2], targets[start : start + 2], mix) for start in (0, 2)]
    parted = [*parts[0][0], *parts[1][0]], [*parts[0][1], *parts[1][1]]
    for other in (second, parted):
        for image, same in zip(first[0], other[0], strict=True):
            assert torch.equal(image.strong.image, same.strong.image)
            assert torch.equal(image.strong.matrix, same.strong.matrix) and image.weak is image.weak
        for one, same_targets in zip(first[1], other[1], strict=True):
            assert_equal(one, same_targets)
    other_seeds = mix_views([replace(image, seed=image.seed + 50) for image in images], targets, mix)[0]
    assert mix is IN_PLACE or any(
        not torch.equal(a.strong.image, b.strong.image) for a, b in zip(first[0], other_seeds, strict=True)
    )
    for given, image in zip(batch(3, 4)[0], images, strict=True):
        assert torch.equal(given.strong.image, image.strong.image), "what is given does not change"


def assert_equal(one: Targets, other: Targets) -> None:
    for name in ("class_weight", "mask_weight", "box_weight"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    for field in fields(Instances):
        values = getattr(one.instances, field.name), getattr(other.instances, field.name)
        assert values == (None, None) or torch.equal(*values), field.name


@KINDS
def test_without_a_draw_or_without_mixing_views_and_targets_are_those_given(mix: Mix) -> None:
    images, targets = batch(0, 4)
    for never in (None, mix.model_copy(update={"prob": 0.0})):
        same_images, same_targets = mix_views(images, targets, never)
        assert all(one is other for one, other in zip(same_images, images, strict=True))
        assert all(one is other for one, other in zip(same_targets, targets, strict=True))
    assert mix_views([], [], mix) == ([], [])


@KINDS
def test_half_of_the_views_receive_at_the_published_probability(mix: Mix) -> None:
    images = [coded(i, i) for i in range(400)]
    targets = [drawn(i % 2, i, count=1) for i in range(400)]
    after, _ = mix_views(images, targets, mix.model_copy(update={"prob": 0.5}))
    received = sum(one is not other for one, other in zip(after, images, strict=True))
    assert 160 < received < 240


def test_stuff_of_both_images_is_one_instance_and_is_never_pasted() -> None:
    size, joined = (40, 40), 0
    view = View(torch.zeros(3, *size), EYE)
    for seed in range(10):
        images = [
            Unlabelled(i, replace(view, image=view.image + i), replace(view, image=view.image + i), None, seed)
            for i in (0, 1)
        ]
        sky = Targets.unweighted(instances([[0, 0, 40, 20], [5, 5, 9, 9]], labels=[7, 1], size=size))
        other = Targets.unweighted(instances([[0, 10, 40, 40], [30, 30, 39, 39]], labels=[7, 1], size=size))
        other = replace(other, class_weight=other.class_weight * 3)
        (image, _), (after, _) = mix_views(images, [sky, other], CUT, stuff=[7])
        theirs = shown(image.strong)[0] == 1
        expected = torch.where(theirs, other.instances.masks[0], sky.instances.masks[0])
        (mine,) = (after.instances.labels == 7).nonzero()[:, 0]
        assert torch.equal(after.instances.masks[mine], expected)
        assert torch.equal(after.instances.boxes[mine], geometry.masks_to_boxes(expected[None])[0])
        share = float((theirs & other.instances.masks[0]).sum() / expected.sum())
        assert after.class_weight[mine] == pytest.approx(1 + 2 * share)
        joined += 0 < share < 1
        _, (pasted, _) = mix_views(images, [sky, other], replace_pixels(IN_PLACE, 10), stuff=[7])
        assert pasted.instances.labels.tolist() == [7, 1, 1]
    assert joined > 5


@pytest.mark.parametrize("mix", [IN_PLACE, SCALED], ids=["in_place", "scaled"])
def test_the_surest_instance_is_pasted_on_top_whatever_the_order(mix: Mix) -> None:
    """A method that corrects scores, such as PL-DC, leaves the instances in the teacher's order."""
    images, targets = batch(4)
    _, expected = mix_views(images, targets, mix)
    order = torch.tensor([3, 0, 4, 2, 1])
    _, after = mix_views(images, [target[order] for target in targets], mix)
    for mine, sorted_by_score in zip(after, expected, strict=True):
        first, second = by_label(mine), by_label(sorted_by_score)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[label].instances.masks, second[label].instances.masks) for label in first)


@KINDS
def test_views_without_instances_are_mixed(mix: Mix) -> None:
    images, (targets, empty) = batch(1)[0], (drawn(0, 1), drawn(1, 1, count=0))
    (first, second), (own, received) = mix_views(images, [targets, empty], mix)
    assert (own.instances.labels < 100).all() and (received.instances.labels < 100).all()
    assert torch.equal(shown(first.strong)[0] == 1, torch.zeros(SIZES[0], dtype=torch.bool)) or mix is CUT
    assert received.instances.masks.shape[1:] == second.strong.size


def test_instances_of_few_pixels_are_not_pasted_and_the_boxes_of_what_is_cut_are_tight() -> None:
    size = (40, 40)
    view = View(torch.zeros(3, *size), EYE)
    images = [Unlabelled(i, view, view, None, i) for i in (0, 1)]
    own = Targets.unweighted(instances([[0, 0, 20, 20], [30, 30, 40, 40]], labels=[0, 1], size=size))
    own = replace(own, instances=replace(own.instances, boxes=own.instances.boxes + 0.25))
    other = Targets.unweighted(instances([[10, 0, 20, 20], [22, 22, 25, 25]], labels=[2, 3], size=size))
    _, (after, _) = mix_views(images, [own, other], replace_pixels(IN_PLACE, 10))
    assert after.instances.labels.tolist() == [0, 1, 2], "of 9 pixels"
    assert after.instances.boxes.tolist() == [[0, 0, 10, 20], [30.25, 30.25, 40.25, 40.25], [10, 0, 20, 20]]
    covering = Targets.unweighted(instances([[0, 0, 40, 30]], labels=[4], size=size))
    _, (after, _) = mix_views(images, [own, covering], IN_PLACE)
    assert after.instances.labels.tolist() == [1, 4], "an instance without a pixel is dropped"


def replace_pixels(mix: CopyPaste, pixels: int) -> CopyPaste:
    return mix.model_copy(update={"min_pixels": pixels})


@KINDS
def test_the_rectangle_and_the_place_reach_every_pixel_of_views_of_different_sizes(mix: Mix) -> None:
    """Sizes are also of extreme aspect, and a partner may be smaller, or larger, than the view."""
    reached = [torch.zeros(SIZES[0]), torch.zeros(SIZES[1])]
    for seed in range(150):
        images, _ = mixed(seed, mix)
        for index, image in enumerate(images):
            reached[index] += shown(image.strong)[0] != index
    middle = (slice(None), slice(6, -6)), (slice(6, -6), slice(None))  # what a smaller partner in place can reach
    for counts, part in zip(reached, middle, strict=True):
        assert ((counts if mix is not IN_PLACE else counts[part]) > 0).float().mean() > 0.95
        assert mix is not IN_PLACE or counts.sum() == counts[part].sum()
    for sizes in (((3, 400), (400, 3)), ((1, 1), (90, 90))):
        views = [View(torch.zeros(3, *size), EYE) for size in sizes]
        full = [Targets.unweighted(instances([[0, 0, w, h]], size=(h, w))) for h, w in sizes]
        images = [Unlabelled(i, view, view, None, i) for i, view in enumerate(views)]
        _, after = mix_views(images, full, mix)
        assert [one.instances.masks.shape[1:] for one in after] == [view.size for view in views]


def test_the_area_of_a_rectangle_is_that_of_the_option() -> None:
    views = [View(torch.full((3, *SIZES[0]), index % 2), EYE) for index in range(200)]
    images = [Unlabelled(index, view, view, None, seed=index) for index, view in enumerate(views)]
    after, _ = mix_views(images, [drawn(0, index, count=0) for index in range(200)], CUT)
    pairs = zip(after, images, strict=True)
    shares = torch.stack([(one.strong.image != other.strong.image)[0].float().mean() for one, other in pairs])
    assert 0.01 < shares.min() < 0.05 and 0.3 < shares.max() < 0.42
    assert shares.mean() == pytest.approx(0.21, abs=0.03), "less than that where a long rectangle is cut to the view"


@KINDS
def test_pixel_weights_go_with_their_pixels_and_are_1_where_another_image_shows(mix: Mix) -> None:
    ramp = torch.arange(4).expand(4, -1) / 4
    seen: set[tuple[int, int]] = set()
    for seed in (4, 5, 6):
        images, targets = batch(seed)
        weighted = [pixel_weighted(target, 10.0 * (index + 1) + ramp) for index, target in enumerate(targets)]
        mixed_images, after = mix_views(images, weighted, mix)
        _, constant = mix_views(images, [pixel_weighted(target, torch.full((4, 4), 2.0)) for target in targets], mix)
        for image, mine, flat in zip(mixed_images, after, constant, strict=True):
            number, row, column = shown(image.strong)
            points = torch.stack((column + 0.5, row + 0.5), -1)[None]
            flat_by_label = by_label(flat)
            for label, one in by_label(mine).items():
                origin, mask = label // 100, one.instances.masks[0]
                certain = (pixel_map(flat_by_label[label]) - 2).abs() < 1e-4  # all cells around the pixel are shown
                inside = certain & mask
                expected = geometry.pixel_weights_at(by_label(weighted[origin])[label], points, slice(None))[0]
                torch.testing.assert_close(pixel_map(one)[inside], expected[inside], atol=0.03, rtol=0)
                assert not (certain & (number != origin) & ~grown(number == origin)).any()
                if inside.sum() > 20:
                    seen.add((origin, image.image_id))
    assert len(seen) == 4, "own and received instances, in both views"


@KINDS
def test_pixel_weights_of_one_image_alone_stay_those_of_its_instances(mix: Mix) -> None:
    images, (first, second) = batch(4)
    _, expected = mix_views(images, [pixel_weighted(one, torch.full((4, 4), 2.0)) for one in (first, second)], mix)
    _, after = mix_views(images, [pixel_weighted(first, torch.full((4, 4), 2.0)), second], mix)
    for mine, both in zip(after, expected, strict=True):
        of_both = by_label(both)
        assert {label // 100 for label in of_both} == {0, 1}
        for label, one in by_label(mine).items():
            weights = pixel_map(of_both[label]) if label < 100 else torch.ones(one.instances.masks.shape[1:])
            torch.testing.assert_close(pixel_map(one), weights, atol=0.03, rtol=0)


def pixel_weighted(targets: Targets, values: Tensor) -> Targets:
    """Return targets with pixel weights f32[4,4] on the boxes of a view that was flipped and shifted into this one."""
    found = with_soft(targets.instances, classes=300).soft_masks
    assert found is not None
    matrix = geometry.shift(4, 0) @ geometry.flip(targets.instances.masks.shape[-1])
    boxes = geometry.move_boxes(found.boxes, torch.linalg.inv(matrix))
    maps = replace(found, values=values.expand_as(found.values).clone(), boxes=boxes, matrix=matrix)
    return replace(targets, pixel_weight=maps)


def pixel_map(targets: Targets) -> Tensor:
    """Return the pixel weights f32[H,W] of the only instance, pixel by pixel."""
    height, width = targets.instances.masks.shape[-2:]
    view = torch.tensor([[0.0, 0, width, height]])
    return geometry.pixel_weights_at(targets, geometry.cell_centres(view, (height, width)), slice(None))[0]


def grown(mask: Tensor, pixels: int = 6) -> Tensor:
    """Return a mask that is wider by about half a cell of a map."""
    return F.max_pool2d(mask[None].float(), 2 * pixels + 1, 1, pixels)[0] > 0


def test_the_background_of_cutmix_is_that_of_each_image_by_its_share_of_a_box() -> None:
    images, targets = batch(2)
    callable_targets = [
        replace(target, background=lambda boxes, value=value: boxes[:, 0] * 0 + value)
        for target, value in zip(targets, (0.0, 1.0), strict=True)
    ]
    (first, _), (own, _) = mix_views(images, callable_targets, CUT)
    theirs = shown(first.strong)[0] == 1
    boxes = torch.tensor([[3.0, 5, 40, 30], [0, 0, 64, 48], [10, 10, 11, 11]])
    expected = [theirs[int(y0) : int(y1), int(x0) : int(x1)].float().mean() for x0, y0, x1, y1 in boxes.tolist()]
    torch.testing.assert_close(own.background(boxes), torch.stack(expected))
    _, (pasted, _) = mix_views(images, callable_targets, IN_PLACE)
    assert pasted.background is callable_targets[0].background
    _, (constant, _) = mix_views(images, targets, CUT)
    assert constant.background == 0.4


def test_a_batch_that_is_not_of_pairs_is_refused_and_a_plan_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BenchError, match="'unlabelled_mix': .* unlabelled_batch_size is 3; give an even one"):
        parse(Training, {"unlabelled_batch_size": 3, "unlabelled_mix": {"kind": "cutmix"}}, "a study")
    with pytest.raises(BenchError, match="'unlabelled_mix': give kind: cutmix, or kind: copy_paste"):
        parse(Training, {"unlabelled_mix": {"kind": "mixup"}}, "a study")
    training = study()["training"] | {"unlabelled_batch_size": 4, "labelled_batch_size": 4}
    values: dict[str, Any] = {"resources": {"train": {"gpus": 4}}}
    path = write_study(tmp_path, training=training | {"unlabelled_mix": {"kind": "cutmix"}}, **values)
    assert main(["plan", str(path), "--results", str(tmp_path / "results")])
    message = "a batch of 4 images cannot be shared by 4 devices; training.unlabelled_mix keeps pairs together"
    assert message in capsys.readouterr().err
    write_study(tmp_path, training=training, **values)
    assert not main(["plan", str(path), "--results", str(tmp_path / "results")])


def test_mixing_is_another_run_with_the_same_burn_in_and_none_is_the_run_of_before() -> None:
    values = study()
    runs = []
    for mix in (
        {},
        {"unlabelled_mix": None},
        {"unlabelled_mix": {"kind": "cutmix"}},
        {"unlabelled_mix": {"kind": "copy_paste"}},
    ):
        values["training"] = study()["training"] | {"burn_in": 2} | mix
        runs.append(Study(**values).run(10, 1, "mask_rcnn", "pais"))
    assert runs[0].digest == runs[1].digest and all(one.digest != other.digest for one, other in pairwise(runs[1:]))
    assert len({run.burn_in.digest for run in runs if run.burn_in}) == 1


def test_pixel_weights_of_views_of_two_sizes_are_joined_cell_by_cell() -> None:
    values, boxes = torch.rand(2, 3, 5), torch.tensor([[0.0, 0, 10, 6], [2, 4, 12, 10]])
    larger = mixing._enlarged(InstanceMaps(values, boxes, torch.eye(3)), 4, 7)
    assert torch.equal(larger.values[:, :3, :5], values) and (larger.values == 1).sum() == 2 * (4 * 7 - 15)
    cells = (larger.boxes[:, 2:] - larger.boxes[:, :2]) / torch.tensor([7.0, 4.0])
    torch.testing.assert_close(cells, (boxes[:, 2:] - boxes[:, :2]) / torch.tensor([5.0, 3.0]))
