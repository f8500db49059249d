"""Check that code, studies, commands and links of the README work as printed, and that the reference is complete."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from pydantic import BaseModel
from tiny import instances

from pais_bench import plugins
from pais_bench.cli.main import build_parser
from pais_bench.methods import pais
from pais_bench.methods.base import MethodBase
from pais_bench.reports.external import External
from pais_bench.study.load import load_study
from pais_bench.study.resources import Resources
from pais_bench.study.run import CopyPaste, CutMix, InputOptions, Training
from pais_bench.study.split import LabelNoise, SplitGrid
from pais_bench.study.study import DatasetChoice, Reported, Study, StudyMethod, StudyNetwork
from pais_bench.types import Targets

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
REFERENCE = DOCS / "reference"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_readme_is_short_and_its_weights_are_those_of_pais() -> None:
    assert README.count("\n") <= 130
    detections = instances([[0, 0, 9, 9]] * 4, scores=[0.9, 0.5, 0.4, 0.3], mask_iou=[0.9, 0.7, 0.2, 0.9])
    names = {"detections": detections, "Targets": Targets}
    exec(blocks(README, "python")[0], names)
    method = pais.Method(pais.Options())
    printed, actual = names["targets"], method.assign_weights(detections[method.keep(detections)])
    for name in ("class_weight", "mask_weight", "box_weight"):
        assert torch.equal(getattr(printed, name), getattr(actual, name)), name
    assert len(printed.instances) == 2 and printed.background == actual.background


def test_the_method_of_the_readme_keeps_the_better_half(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("best_half")
    monkeypatch.setitem(sys.modules, "best_half", module)
    exec(blocks(README, "python")[1], module.__dict__)
    method = module.Method(module.Options(unlabelled_weight=0.5))
    assert isinstance(method, MethodBase) and method.unlabelled_weight == 0.5
    targets = method.assign_weights(instances([[0, 0, 9, 9]] * 4, scores=[0.2, 0.9, 0.4, 0.8]))
    assert sorted(targets.instances.scores.tolist()) == pytest.approx([0.8, 0.9])
    assert len(method.assign_weights(instances([])).instances) == 0


STUDY_PAGES = ["README.md", "docs/getting-started/index.md", "docs/how-to/your-data.md", "docs/how-to/cluster.md"]


@pytest.mark.parametrize("page", STUDY_PAGES)
def test_a_printed_study_loads(page: str, tmp_path: Path) -> None:
    printed = blocks((ROOT / page).read_text(), "yaml")
    assert printed
    for block in printed:
        path = tmp_path / "study.yaml"
        path.write_text(block if "base:" in block else f"base: coco\n{block}")
        load_study(path)


def test_the_method_of_the_guide_weights_the_class(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("by_score")
    monkeypatch.setitem(sys.modules, "by_score", module)
    (code,) = blocks((DOCS / "how-to" / "add-a-method.md").read_text(), "python")
    exec(code, module.__dict__)
    method, detections = module.Method(module.Options()), instances([[0, 0, 9, 9]] * 2, scores=[0.9, 0.4])
    targets = method.assign_weights(detections[method.keep(detections)])
    assert targets.class_weight.tolist() == pytest.approx([0.9])


def test_the_description_of_other_predictions_is_valid() -> None:
    (block,) = blocks((DOCS / "how-to" / "predictions.md").read_text(), "yaml")
    assert External(**yaml.safe_load(block)).split_family == "unknown"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "results/README.md"])
def test_every_link_outside_of_docs_exists(page: str) -> None:
    """Check the pages outside of docs/; `make docs` checks those inside."""
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("https://") or (ROOT / page).parent.joinpath(target).exists(), target


MODELS: dict[str, type[BaseModel]] = {
    "The file": Study,
    "dataset": DatasetChoice,
    "split": SplitGrid,
    "split.label_noise": LabelNoise,
    "input": InputOptions,
    "training": Training,
    "{kind: cutmix}": CutMix,
    "{kind: copy_paste}": CopyPaste,
    "networks": StudyNetwork,
    "methods": StudyMethod,
    "report": Reported,
    "resources": Resources,
}
PLUGINS = [(group, name) for group in ("datasets", "methods", "backends") for name in plugins.names(group)]


def documented(section: str) -> dict[str, str]:
    """Return the keys of a section of the reference, each with its default."""
    text = (REFERENCE / "study.md").read_text()
    (body,) = re.findall(rf"^###? `?{re.escape(section)}`?\n(.*?)(?=^##|\Z)", text, flags=re.DOTALL | re.MULTILINE)
    return dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", body, flags=re.MULTILINE))


def defaults(model: type[BaseModel]) -> dict[str, str]:
    """Return the keys of a model, each with its default as the reference prints it."""
    return {
        name: "required" if field.is_required() else as_text(field.default)
        for name, field in model.model_fields.items()
    }


def as_text(value: object) -> str:
    if isinstance(value, BaseModel) or value in ({}, (), ""):
        return "–"
    if isinstance(value, tuple):
        return f"[{', '.join(as_text(part) for part in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("section", MODELS)
def test_the_reference_has_every_key_of_a_study(section: str) -> None:
    assert documented(section) == defaults(MODELS[section])


@pytest.mark.parametrize(("group", "name"), PLUGINS, ids=map("/".join, PLUGINS))
def test_the_reference_has_every_option_of_a_plugin(group: str, name: str) -> None:
    printed = documented(f"{group}/{name}")
    assert set(printed) == plugins.option_names(group, name)
    if name.split("/")[0] not in ("mmdet", "detectron2"):  # of these the sources are read, not the classes
        assert printed == defaults(plugins.load(group, name).Options)


def test_the_reference_has_every_command_and_argument() -> None:
    text = (REFERENCE / "commands.md").read_text()
    commands = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
        arguments = {text for action in command._actions for text in action.option_strings if text.startswith("--")}
        assert set(re.findall(r"--[a-z-]+", section)) == arguments - {"--help"}, name
