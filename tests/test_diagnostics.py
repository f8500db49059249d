"""Does a logged step tell of its pseudo-labels what they are?"""

from __future__ import annotations

import torch

from pais_bench.diagnostics import SAMPLE, describe
from pais_bench.types import Batch, Instances, Targets, Unlabelled, View


def instances(count: int, shift: int = 0) -> Instances:
    """Give squares of 10 px in a row, 10 px apart, moved to the right."""
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


def unlabelled(truth: Instances | None) -> Unlabelled:
    view = View(torch.zeros(3, 12, 60), torch.eye(3, dtype=torch.float64))
    return Unlabelled(1, view, view, truth)


def test_what_is_known_is_compared_and_what_is_not_is_counted() -> None:
    found = instances(2, shift=2)
    targets = Targets(found, torch.tensor([0.5, 0.75]), torch.tensor([1.0, 2.5]), torch.ones(2), 1.0)
    told = describe([targets, targets], Batch(0, [], [unlabelled(instances(2)), unlabelled(None)]))
    assert (told["kept_per_image"], told["precision"], told["recall"]) == (2, 1, 1), "of the image that has a truth"
    assert told["mask_weight"] == 1.75
    assert told["weights"]["mask_weight"] == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2]
    assert told["score_bins"][7] == [2, 0.75, 1]
    assert told["quality_bins"][5] == [2, 0.55, round(8 / 12, 4)]
    assert told["sample"] == [[0.75, 0.55, 0.5, 1.0, 0.6667], [0.75, 0.55, 0.75, 2.5, 0.6667]]


def test_nothing_kept_is_told_without_a_number() -> None:
    empty = Targets.of_truth(instances(0))
    told = describe([empty], Batch(0, [], [unlabelled(instances(1))]))
    assert told["score"] is told["precision"] is None
    assert told["recall"] == 0
    assert told["sample"] == []


def test_a_sample_is_bounded() -> None:
    many = instances(SAMPLE + 9)
    told = describe([Targets.of_truth(many)], Batch(0, [], [unlabelled(many)]))
    assert len(told["sample"]) == SAMPLE
    assert sum(count for count, _, _ in told["score_bins"]) == SAMPLE + 9
