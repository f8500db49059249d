"""Share what several tests need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import Training

from pais_bench.datasets import streets

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Give the folder of real COCO images and published examples that lies beside the project, or skip."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def few_streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw a tree of five images in the files of Cityscapes, once; who spoils it takes a copy."""
    folder = tmp_path_factory.mktemp("few")
    streets.Dataset(streets.Options(train=3, val=2, size=64), None).prepare(folder, "streets")
    return folder / "tree"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Train the tiny study without interruption, once."""
    torch.set_num_threads(1)
    training = Training(tmp_path_factory.mktemp("whole"))
    assert training.train() == 0
    return training
