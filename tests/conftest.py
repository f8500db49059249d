"""Define the fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from streets import draw_tree

if TYPE_CHECKING:
    from forked import Training

# Two processes of two threads each share two cores: on busy ones test_backends.py took 148 CPU seconds, and takes 26.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).parent.parent
SLOWEST = (
    *("test_tutorials.py", "test_training.py", "test_pretend_device.py", "test_survival.py", "test_end_to_end.py"),
    *("test_ranks.py", "test_cli.py", "test_workflow.py", "test_controllers.py"),
)
"""Files that take about a minute, which no process should begin when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest files."""
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else len(SLOWEST))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real COCO images and published examples that lies beside the project, or skip."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def few_streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a tree of five images in the files of Cityscapes, once; a test that changes it takes a copy."""
    return draw_tree(tmp_path_factory.mktemp("few"), train=3, val=2, size=64)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Train the tiny study without interruption, once."""
    import torch
    from forked import Training

    torch.set_num_threads(1)
    training = Training(tmp_path_factory.mktemp("whole"))
    assert training.train() == 0
    return training
