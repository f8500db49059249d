"""Apply the rules to a summary, and write the study as YAML with the reason of every choice as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pais_bench.init import network, rules, schedule
from pais_bench.init.device import Device
from pais_bench.init.rules import Choice
from pais_bench.init.summary import DataSummary
from pais_bench.study.yaml_file import to_flow

WIDTH = 110


@dataclass(frozen=True)
class Proposal:
    """Hold the choices of each section of a study, its methods and resources, and in words how long it takes."""

    split: Sequence[Choice]
    input: Sequence[Choice]
    training: Sequence[Choice]
    network: Sequence[Choice]
    methods: Choice
    resources: Sequence[Choice]
    time: str

    def values(self, section: str) -> dict[str, Any]:
        """Return all values of a section: split, input, training or network."""
        return {key: value for choice in getattr(self, section) for key, value in choice.values.items()}


def propose(summary: DataSummary, device: Device, weights: Mapping[str, Path]) -> Proposal:
    """Return what the rules choose for the data, the device, and the weights of backbones that are at hand."""
    percents, folds = rules.percents(summary, device), rules.folds(device)
    smallest, largest = percents.values["percents"][0], percents.values["percents"][-1]
    views = rules.view_sizes(summary, device)
    backbone = network.backbone(weights, device)
    name, pretrained = backbone.values["backbone"], "pretrained_backbone" in backbone.values
    sides = views.values["min_size_train"][1], views.values["max_size_train"]
    batches = schedule.batches(device, name, sides)
    steps = schedule.steps(summary, device, largest, batches.values["labelled_batch_size"])
    count = steps.values["steps"]
    methods = schedule.methods(pretrained, percents.values["percents"])
    training = [
        steps,
        batches,
        schedule.optimiser(device, name, pretrained),
        schedule.milestones(count, device, pretrained, summary.images["val"]),
    ]
    values = {key: value for choice in training for key, value in choice.values.items()}
    pixels = views.values["min_size_test"] * views.values["max_size_test"]
    splits = len(percents.values["percents"]) * len(folds.values["folds"])
    return Proposal(
        split=[rules.family(summary, smallest), percents, folds],
        input=[views],
        training=training,
        network=[
            choice
            for choice in (
                backbone,
                network.anchors(summary, views.values["min_size_test"], name),
                network.regions(summary, device),
                network.heads(device),
            )
            if choice
        ],
        methods=methods,
        resources=schedule.resources(device),
        time=schedule.expected_time(device, name, pixels, values, splits, len(methods.values)),
    )


def to_yaml(name: str, dataset: Mapping[str, Any], found: Sequence[str], proposal: Proposal) -> str:
    """Return the text of a study file. found are lines about the data, dataset the values of its section."""
    lines = [*_comment(f"Written by `pais-bench init`; docs/reference/data.md has the rules. {proposal.time}.")]
    lines += [line for fact in found for line in _comment(fact)]
    lines += ["", f"name: {to_flow(name)}", f"title: {to_flow(name)}", "", "dataset:"]
    lines += [f"  {key}: {to_flow(value)}" for key, value in dataset.items()]
    for section in ("split", "input", "training"):
        lines += ["", f"{section}:", *_section(getattr(proposal, section), "  ")]
    lines += ["", "networks:", "  mask_rcnn:", "    backend: torchvision", "    options:"]
    lines += [*_section(proposal.network, "      "), "", "methods:"]
    lines += _section([proposal.methods], "  ")
    if proposal.resources:
        lines += ["", "resources:", *_section(proposal.resources, "  ")]
    return "\n".join(lines) + "\n"


def _section(choices: Sequence[Choice], indent: str) -> Iterator[str]:
    for choice in choices:
        yield from _comment(choice.reason, indent)
        for key, value in choice.values.items():
            yield f"{indent}{key}: {to_flow(value)}"


def _comment(text: str, indent: str = "") -> list[str]:
    """Return a text as comment lines."""
    wrapper = textwrap.TextWrapper(WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in wrapper.wrap(text)]
