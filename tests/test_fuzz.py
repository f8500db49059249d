"""Check that mutated inputs of every kind are refused in one line, or accepted so that nothing of them is lost.

benchmarks/fuzz.py runs any number of them.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import VALID, mutate
from pycocotools import mask as rle
from trials import TRIALS, Annotations, Trial

from pais_bench.annotations.rle_columns import counts_cover

SEEDS = {"annotations": 200, "images": 100, "results": 100, "lists": 30, "studies": 40, "streets": 30}


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Annotations:
    """Return a folder for mutated annotation files."""
    return Annotations(tmp_path_factory.mktemp("fuzz") / "annotations")


def test_the_original_file_is_accepted(annotations: Annotations) -> None:
    assert annotations.run_file(json.dumps(VALID).encode(), repair=False) == "accepted"


@pytest.mark.parametrize("seed", [101847, 104532, 104900])
def test_a_name_or_id_with_a_line_break_stays_in_one_line(annotations: Annotations, seed: int) -> None:
    """Run seeds at which benchmarks/fuzz.py found a message of two lines."""
    assert annotations.run_file(mutate(random.Random(seed)), repair=seed % 2 == 1) == "refused"


@pytest.mark.parametrize("seed", [8012, 15129])
def test_an_rle_with_empty_counts_is_invalid(annotations: Annotations, seed: int) -> None:
    """Run seeds at which it found counts of "" prepared: pycocotools decodes them into uninitialised memory."""
    assert annotations.run_file(mutate(random.Random(seed)), repair=False) == "refused"
    assert annotations.run_file(mutate(random.Random(seed)), repair=True) == "repaired"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", TRIALS)
def test_mutated_inputs_are_refused_or_keep_every_object(kind: str, tmp_path: Path) -> None:
    trial = TRIALS[kind](tmp_path / kind)
    outcomes = {trial.run(seed) for seed in range(SEEDS[kind])}
    assert {"accepted", "refused"} <= outcomes


class Deadly(Trial):
    """Hang, die or raise at some seeds, as inputs of native code can."""

    def run(self, seed: int) -> str:
        """Accept all seeds but three."""
        if seed == 3:
            time.sleep(60)
        if seed == 7:
            faulthandler.disable()  # whose trace would look like a crash of the tests
            os.kill(os.getpid(), signal.SIGSEGV)
        if seed == 5:
            raise AssertionError("an object is lost")
        return "accepted"


def test_the_benchmark_survives_every_input_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    fuzz = importlib.import_module("fuzz")
    monkeypatch.setitem(fuzz.TRIALS, "deadly", Deadly)
    options = ["deadly", "--log", str(tmp_path / "log.jsonl"), "--timeout", "0.5", "--inputs"]
    expected = ["seed 3: hangs", "seed 5: AssertionError: an object is lost", "seed 7: dies of signal 11"]
    for inputs in (fuzz.BLOCK, fuzz.BLOCK + 4):
        monkeypatch.setattr(sys, "argv", ["fuzz.py", *options, str(inputs)])
        assert fuzz.main() == 1
        first, *findings = capsys.readouterr().out.splitlines()
        assert first.startswith(f"deadly: {{'accepted': {inputs - 3}, 'finding': 3}}")
        assert [line.strip().split("\n")[0] for line in findings] == expected
    blocks = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(block["start"], block["stop"]) for block in blocks] == [(0, fuzz.BLOCK), (fuzz.BLOCK, fuzz.BLOCK + 4)]


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
