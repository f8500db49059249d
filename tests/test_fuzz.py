"""Check that every mutated annotation file is refused in one line, or prepared so that every mask can be decoded."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import VALID, Trial, mutate
from pycocotools import mask as rle

from pais_bench.annotations.rle_columns import counts_cover


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Return a folder for mutated files."""
    return Trial(tmp_path_factory.mktemp("fuzz"))


def test_the_original_file_is_valid(trial: Trial) -> None:
    assert trial.run(json.dumps(VALID).encode(), repair=False) == "prepared"


@pytest.mark.parametrize("seed", [101847, 104532, 104900])
def test_a_name_or_id_with_a_line_break_stays_in_one_line(trial: Trial, seed: int) -> None:
    """Run seeds at which benchmarks/fuzz.py found a message of two lines."""
    assert trial.run(mutate(random.Random(seed)), repair=seed % 2 == 1) == "refused"


@pytest.mark.parametrize("seed", [8012, 15129])
def test_an_rle_with_empty_counts_is_invalid(trial: Trial, seed: int) -> None:
    """Run seeds at which it found counts of "" prepared: pycocotools decodes them into uninitialised memory."""
    assert trial.run(mutate(random.Random(seed)), repair=False) == "refused"
    assert trial.run(mutate(random.Random(seed)), repair=True) == "repaired"


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32), repair=st.booleans())
def test_a_mutated_file_is_refused_or_prepared(trial: Trial, seed: int, repair: bool) -> None:
    trial.run(mutate(random.Random(seed)), repair)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40), other=st.text(max_size=3))
def test_counts_cover_exactly_what_pycocotools_encodes(seed: int, height: int, width: int, other: str) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.random()
    text = rle.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    pixels = np.array([height * width])
    assert counts_cover([text, text], np.repeat(pixels, 2))
    assert not counts_cover([text], pixels + 1)
    assert not counts_cover([text + "P"], pixels)
    for changed in (other, text + other, text[:-1] + other):
        if changed and counts_cover([changed], pixels):
            assert rle.decode({"size": [height, width], "counts": changed}).shape == (height, width)


def test_the_largest_counts_that_pycocotools_can_read() -> None:
    side = 2**14
    counts = rle.frPyObjects({"size": [side, side], "counts": [2**28 - 1, 1, 0]}, side, side)["counts"].decode()
    assert counts_cover([counts], np.array([2**28]))
    assert not counts_cover(["oooooooo" + counts], np.array([2**28]))
