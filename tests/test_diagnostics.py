"""Check the description of pseudo-labels in a logged step."""

from __future__ import annotations

import torch

from pais_bench.training.diagnostics import SAMPLE, describe
from pais_bench.types import Batch, Instances, Targets, Unlabelled, View


def instances(count: int, shift: int = 0) -> Instances:
    """Return squares of 10 px in a row, 10 px apart, shifted to the right."""
    masks = torch.zeros(count, 12, 20 * count + 20, dtype=torch.bool)
    for number in range(count):
        masks[number, :10, 20 * number + shift : 20 * number + shift + 10] = True
    return Instances(
        torch.zeros(count, 4),
        torch.zeros(count, dtype=torch.int64),
        masks,
        torch.full((count,), 0.75),
        torch.full((count,), 0.55),
    )


def unlabelled(ground_truth: Instances | None) -> Unlabelled:
    view = View(torch.zeros(3, 12, 60), torch.eye(3, dtype=torch.float64))
    return Unlabelled(1, view, view, ground_truth)


def test_every_pseudo_label_is_counted_and_those_with_ground_truth_are_compared() -> None:
    targets = Targets(instances(2, shift=2), torch.tensor([0.5, 0.75]), torch.tensor([1.0, 2.5]), torch.ones(2), 1.0)
    line = describe([targets, targets], Batch(0, [], [unlabelled(instances(2)), unlabelled(None)]))
    assert (line["kept_per_image"], line["precision"], line["recall"]) == (2, 1, 1), "of the image with ground truth"
    assert line["mask_weight"] == 1.75
    assert line["weights"]["mask_weight"] == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2]
    assert line["score_bins"][7] == [2, 0.75, 1]
    assert line["mask_iou_bins"][5] == [2, 0.55, round(8 / 12, 4)]
    assert line["sample"] == [[0.75, 0.55, 0.5, 1.0, 0.6667], [0.75, 0.55, 0.75, 2.5, 0.6667]]


def test_no_pseudo_labels_have_no_mean() -> None:
    empty = Targets.unweighted(instances(0))
    line = describe([empty], Batch(0, [], [unlabelled(instances(1))]))
    assert line["score"] is line["precision"] is None
    assert line["recall"] == 0
    assert line["sample"] == []


def test_a_sample_is_bounded() -> None:
    many = instances(SAMPLE + 9)
    line = describe([Targets.unweighted(many)], Batch(0, [], [unlabelled(many)]))
    assert len(line["sample"]) == SAMPLE
    assert sum(count for count, _, _ in line["score_bins"]) == SAMPLE + 9
