"""Does what the README shows work as printed?"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tiny import instances

from pais_bench.config import DatasetChoice
from pais_bench.external import External

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_method_of_the_readme_keeps_the_best_half(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    ranked = ModuleType("ranked")
    monkeypatch.setitem(sys.modules, "ranked", ranked)
    exec(compile("from __future__ import annotations\n" + code, "README.md", "exec"), ranked.__dict__)
    method = ranked.Method(ranked.Options())
    targets = method.weigh(instances([[0, 0, 9, 9]] * 4, scores=[0.2, 0.9, 0.4, 0.8]))
    assert sorted(targets.instances.scores.tolist()) == pytest.approx([0.8, 0.9])
    assert len(method.weigh(instances([])).instances) == 0


def test_the_dataset_of_the_readme_is_valid() -> None:
    block = README[README.index("    dataset:\n") :].split("\n\n")[0]
    assert DatasetChoice(**yaml.safe_load(block)["dataset"]).label == "leaves"


def test_the_description_of_other_predictions_is_valid() -> None:
    block = README[README.index("    name: theirs_10\n") :].split("\n\n")[0]
    assert External(**yaml.safe_load(block)).told["split_family"] == "unknown"


def test_every_link_and_picture_of_the_readme_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
