"""Is every broken annotation file refused in one line, or prepared such that every mask can be decoded?"""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import SOUND, Trial, mutated
from pycocotools import mask as rle

from pais_bench.masks import cover


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Give a folder to break files in."""
    return Trial(tmp_path_factory.mktemp("fuzz"))


def test_the_file_that_is_broken_is_sound(trial: Trial) -> None:
    assert trial.run(json.dumps(SOUND).encode(), repair=False) == "prepared"


@pytest.mark.parametrize("seed", [101847, 104532, 104900])
def test_a_name_or_id_with_a_line_break_stays_in_one_line(trial: Trial, seed: int) -> None:
    """Seeds at which benchmarks/fuzz.py once found a message of two lines."""
    assert trial.run(mutated(random.Random(seed)), repair=seed % 2 == 1) == "refused"


@pytest.mark.parametrize("seed", [8012, 15129])
def test_an_rle_without_counts_covers_nothing(trial: Trial, seed: int) -> None:
    """Seeds at which it found counts of "" prepared: pycocotools decodes them into memory that nobody has cleared."""
    assert trial.run(mutated(random.Random(seed)), repair=False) == "refused"
    assert trial.run(mutated(random.Random(seed)), repair=True) == "repaired"


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), repair=st.booleans())
def test_a_broken_file_is_refused_or_sound(trial: Trial, seed: int, repair: bool) -> None:
    trial.run(mutated(random.Random(seed)), repair)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40), other=st.text(max_size=3))
def test_what_pycocotools_packs_covers_and_little_else_does(seed: int, height: int, width: int, other: str) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.random((height, width)) < rng.random()
    text = rle.encode(np.asfortranarray(pixels, dtype=np.uint8))["counts"].decode()
    size = np.array([height * width])
    assert cover([text, text], np.repeat(size, 2))
    assert not cover([text], size + 1)
    assert not cover([text + "P"], size)
    for changed in (other, text + other, text[:-1] + other):
        if changed and cover([changed], size):
            assert rle.decode({"size": [height, width], "counts": changed}).shape == (height, width)


def test_the_largest_runs_that_pycocotools_can_read() -> None:
    side = 2**14
    packed = rle.frPyObjects({"size": [side, side], "counts": [2**28 - 1, 1, 0]}, side, side)["counts"].decode()
    assert cover([packed], np.array([2**28]))
    assert not cover(["oooooooo" + packed], np.array([2**28]))
