"""Check how networks learn stuff: kernels of its own in K-Net, one pseudo-label of a class, things alone elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tiny import KNET, NETWORK, instances, study, with_soft

from pais_bench import plugins
from pais_bench.annotations.store import Store
from pais_bench.backends.torchvision import _matching, _painting, _set_losses, _stuff_kernels, knet
from pais_bench.data.loader import BatchDataset
from pais_bench.layers.normalizers import batch_normalizer
from pais_bench.methods import mean_teacher
from pais_bench.splits.draw import draw_split
from pais_bench.study.base import parse
from pais_bench.study.study import Study
from pais_bench.training.pseudo_labels import merge_stuff
from pais_bench.training.trainer import Trainer
from pais_bench.types import Instances, Targets

NETWORKS = {
    "knet": {"backend": "torchvision", "options": KNET},
    "mask_rcnn": {"backend": "torchvision", "options": NETWORK},
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder, shapes = tmp_path_factory.mktemp("shapes"), plugins.load("datasets", "shapes")
    shapes.Dataset(shapes.Options(train=40, val=2, size=64, stuff=True), None).prepare(folder, "shapes")
    return {subset: Store.open(folder, subset) for subset in ("train", "val")}


def network(stuff: list[int], **options: Any) -> Any:
    torch.manual_seed(0)
    return knet.Backend(5, knet.Options(**{**KNET, **options}), stuff)


def test_the_rank_loss_is_a_cross_entropy_over_kernels_in_covered_cells() -> None:
    """By hand: log(1 + e^-2), log(1 + e^1), and a cell without a kernel, over four cells."""
    masks = torch.tensor([[[[2.0, 0.0, 9.0, 5.0]], [[0.0, 1.0, -9.0, 5.0]]]])
    kernels = torch.tensor([[[0, 0, _set_losses.NO_KERNEL, _set_losses.NO_KERNEL]]])
    weights = torch.tensor([[[1.0, 0.5, 1.0, 1.0]]])
    loss = _set_losses.rank_loss(masks, kernels, weights, 4)
    assert loss.item() == pytest.approx(0.1 * (0.126928 + 0.5 * 1.313262) / 4, abs=1e-6)


def test_proposals_and_stages_are_ranked_by_the_match_that_supervises_them() -> None:
    """Two cells: a thing, which changes its kernel at the second stage, and stuff, which proposals do not rank."""
    kernels = _stuff_kernels.StuffKernels(things=2, classes=2, stuff=[1])
    both = torch.tensor([[0, 0]] * 2)
    matches = _matching.Match(both, torch.tensor([[0, 2], [1, 2]]), torch.tensor([[0, 1]] * 2))
    logits = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 3.0]]]])
    maps = [logits[:, :2], logits, logits]
    loss = kernels.rank(maps, matches, torch.tensor([[[0, 1]]]), torch.tensor([1.0, 2.0]), batch_normalizer)
    rows = -logits.log_softmax(1)[0, :, 0]
    things = [-logits[:, :2].log_softmax(1)[0, 0, 0, 0], rows[0, 0], rows[1, 0]]
    assert loss.item() == pytest.approx(0.1 * (sum(things) + 2 * 2 * rows[2, 1]).item() / 2)
    assert kernels.weigh_proposals(torch.ones(3, 2), matches, 2, batch_normalizer).tolist() == [[2, 0], [1, 1], [1, 1]]


def test_stuff_has_the_kernel_of_its_class_whatever_it_costs() -> None:
    costs = torch.tensor([[[[0.0, 9.0, 1.0], [0.0, 9.0, 3.0]], [[5.0, 0.0, 0.0], [1.0, 0.0, 0.0]]]])
    matched = _matching.match(costs, [3, 1], torch.tensor([7, -1, -1, -1]))
    assert torch.stack(matched)[:, 0].T.tolist() == [[0, 0, 2], [0, 1, 1], [0, 7, 0], [1, 1, 3]]


def test_things_are_painted_over_stuff() -> None:
    masks = instances([[0, 0, 2, 1], [0, 0, 4, 1], [1, 0, 3, 1]], size=(1, 5)).masks[None].float()
    labels, beneath = torch.tensor([[4, 7, 5]]), torch.tensor([[False, True, False]])
    assert _painting.paint(masks, labels, 9, beneath).tolist() == [[[4, 5, 5, 7, 9]]]


@pytest.mark.parametrize("stuff", [[1], [4, 0]])
def test_a_kernel_of_stuff_finds_its_class_once_and_no_other_kernel_does(stuff: list[int]) -> None:
    net, views = network(stuff, detections_per_img=7), [torch.rand(3, 40, 48), torch.rand(3, 64, 80)]
    with torch.no_grad():
        last = net.eval()._forward(torch.rand(2, 3, 64, 64))[1][-1]
    found, queries = net._rank(last)
    for one, query in zip(found, queries, strict=True):
        assert len(one) == 7 + len(stuff) and (one.scores.diff() <= 0).all()
        of_stuff = {(int(k), int(label)) for k, label in zip(query, one.labels, strict=True) if int(label) in stuff}
        assert of_stuff == {(KNET["kernels"] + place, label) for place, label in enumerate(stuff)}
        assert (query >= KNET["kernels"]).sum() == len(stuff) and one.scores.min() > 0
    for one in net.predict_soft(views):
        torch.testing.assert_close(one.class_probs[torch.arange(len(one)), one.labels], one.scores)


def test_a_class_of_stuff_teaches_its_kernel_alone_and_is_background_where_it_is_absent() -> None:
    net = network([1])
    sky = Targets.unweighted(instances([[0, 0, 64, 30]], labels=[1]))
    net.loss([torch.rand(3, 64, 64)], [sky], batch_normalizer)["class"].backward()
    rows = net.stages[0].logits[-1].bias.grad
    assert rows[1] < 0 and (rows[[0, 2, 3, 4]] > 0).all(), "present: its logit rises, those of things fall"
    net, none = network([1]), Targets.unweighted(sky.instances[:0])
    net.loss([torch.rand(3, 64, 64)], [none], batch_normalizer)["class"].backward()
    assert (net.stages[0].logits[-1].bias.grad > 0).all()


def test_without_stuff_a_network_has_the_same_weights_and_no_rank_loss() -> None:
    plain, with_stuff = network([]).state_dict(), network([2]).state_dict()
    assert with_stuff.keys() - plain.keys() == {"stuff_kernels.kernel_of", "stuff_kernels.unknown"}
    assert all(torch.equal(with_stuff[name], value) for name, value in plain.items())
    target = Targets.unweighted(instances([[4, 4, 40, 40]]))
    assert "rank" not in network([]).loss([torch.rand(3, 64, 64)], [target], batch_normalizer)
    with pytest.raises(RuntimeError, match="stuff_kernels"):
        network([]).load_state_dict(with_stuff)


def drawn(rng: torch.Generator) -> Instances:
    """Draw up to 12 detections of 5 classes, with soft masks."""
    count = int(torch.randint(13, (), generator=rng))
    corners = torch.randint(24, (count, 2), generator=rng)
    boxes = torch.cat((corners, corners + torch.randint(1, 9, (count, 2), generator=rng)), 1).tolist()
    scores, iou = (torch.rand(count, generator=rng).tolist() for _ in range(2))
    labels = torch.randint(5, (count,), generator=rng).tolist()
    certainty = torch.rand(count, generator=rng).tolist()
    return with_soft(instances(boxes, labels, sorted(scores, reverse=True), iou, (32, 32)), certainty, classes=5)


def test_a_view_has_one_pseudo_label_of_a_class_of_stuff() -> None:
    rng, stuff = torch.Generator().manual_seed(0), (1, 3)
    views = [drawn(rng) for _ in range(40)]
    assert merge_stuff(views, ()) is views
    for before, after in zip(views, merge_stuff(views, stuff), strict=True):
        assert after.soft_masks is not None and before.soft_masks is not None
        for label in range(5):
            old, new = before[before.labels == label], after[after.labels == label]
            assert old.soft_masks is not None and new.soft_masks is not None
            if label not in stuff or len(old) < 2:
                assert all(torch.equal(getattr(old, name), getattr(new, name)) for name in ("boxes", "masks", "scores"))
                continue
            assert len(new) == 1 and torch.equal(new.masks[0], old.masks.any(0))
            assert (new.scores[0], new.mask_iou[0]) == (old.scores.max(), old.mask_iou.max())
            low, high = old.boxes[:, :2].amin(0), old.boxes[:, 2:].amax(0)
            assert new.boxes[0].tolist() == [*low.tolist(), *high.tolist()]
            assert torch.equal(new.soft_masks.values[0], old.soft_masks.values.amax(0))
        assert (after.scores.diff() <= 0).all()


def test_detections_without_soft_masks_and_out_of_order_are_merged_in_the_place_of_the_best() -> None:
    view = instances([[0, 0, 4, 4], [8, 8, 12, 12], [20, 20, 24, 24]], [2, 0, 2], [0.3, 0.9, 0.8], [0.6, 1, 0.4])
    (merged,) = merge_stuff([view], [2])
    assert merged.labels.tolist() == [0, 2] and merged.scores.tolist() == pytest.approx([0.9, 0.8])
    assert merged.mask_iou[1].item() == pytest.approx(0.6) and merged.boxes[1].tolist() == [0, 0, 24, 24]
    assert merged.soft_masks is None and view.boxes[2].tolist() == [20, 20, 24, 24], "the detections are not changed"


class AllSky(mean_teacher.Method):
    """Take every detection for sky, and record what is weighted."""

    refines = True

    def refine(self, image: torch.Tensor, detections: Instances, progress: float) -> Instances:
        """Return the detections as sky."""
        return replace(detections, labels=torch.full_like(detections.labels, 8))

    def assign_weights(self, detections: Instances) -> Targets:
        """Record the labels."""
        self.seen = [*getattr(self, "seen", []), detections.labels.tolist()]
        return super().assign_weights(detections)


def test_the_loop_merges_stuff_after_a_method_has_changed_the_labels(stores: dict[str, Store], tmp_path: Path) -> None:
    run = parse(Study, study(networks=NETWORKS), "tiny").run(10, 1, "knet", "mean_teacher")
    split = draw_split(stores["train"], run.dataset, run.split)
    trainer = Trainer(run, stores, split, tmp_path, Fabric(accelerator="cpu", devices=1))
    trainer.method = AllSky(mean_teacher.Options(score_threshold=0.0))
    trainer.fit()
    assert trainer.method.seen == [[8]] * 8, "four steps of two images"


def test_a_network_of_boxes_sees_things_alone(stores: dict[str, Store]) -> None:
    store, parsed, seen = stores["train"], parse(Study, study(networks=NETWORKS), "tiny"), {}
    for label in NETWORKS:
        run = parsed.run(10, 1, label, "mean_teacher")
        dataset = BatchDataset(run, store, draw_split(store, run.dataset, run.split))
        batch = dataset[0]
        views = [image.instances for image in batch.labelled] + [image.ground_truth for image in batch.unlabelled]
        seen[label] = [len([one for one in view.labels.tolist() if one >= 8]) for view in views if view is not None]
        assert any(one.labels.max() >= 8 for one in dataset.labels()) == (label == "knet")
    assert sum(seen["knet"]) > 0 and sum(seen["mask_rcnn"]) == 0 and len(seen["knet"]) == 4
    of_things = {name for name in plugins.names("backends") if not plugins.learns_stuff(name)}
    assert {"detectron2/mask_rcnn", "mmdet/mask_rcnn", "torchvision/mask_rcnn"} <= of_things
    assert not of_things & {"mmdet/mask2former", "torchvision/knet"}
