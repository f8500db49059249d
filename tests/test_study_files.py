"""Check that a study file is read as its author means it, or refused by its name, key and line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import study, write_study

from pais_bench.errors import BenchError
from pais_bench.study.load import load_study
from pais_bench.study.yaml_file import read_yaml


def replaced(folder: Path, *pairs: tuple[str, str]) -> Path:
    """Write the tiny study with texts replaced, and return its path."""
    path = write_study(folder, training={**study()["training"], "grad_clip": 5.0})
    text = path.read_text()
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    return path


REFUSED: list[tuple[tuple[str, str], str]] = [
    (("  - 1\n", "  - 1\n  - 1\n"), "'split.folds': value error, 1 is repeated; give each once"),
    (("  - 10\n", "  - 10\n  - 10.0\n"), "'split.percents': value error, 10 is repeated"),
    (("  - 10\n", "  - 3.3333333\n  - 3.33333333\n"), "3.3333333 and 3.33333333 have the same name"),
    (("  lr: 0.003\n", "  lr: 0.003\n  lr: 0.1\n"), "the key 'lr' is in line 24 and in line 25; remove one"),
    (("  steps: 4\n", "  steps: true\n"), "'training.steps': value error, true and false are no value of it, got true"),
    (("  - 1\n", "  - true\n"), "'split.folds': value error, true and false are no value of it"),
    (("  steps: 4\n", "  steps: 1:30\n"), "'training.steps': input should be a valid integer"),
    (("  lr: 0.003\n", "  lr: .inf\n"), "'training.lr': input should be a finite number"),
    (("  lr: 0.003\n", "  lr: .nan\n"), "'training.lr': input should be"),
    (
        ("  - 56\n  - 72\n", "  - 72\n  - 56\n"),
        "'input.min_size_train': value error, the range is empty",
    ),
    (("  - 56\n  - 72\n", "  - -5\n  - 56\n"), "'input.min_size_train.0': input should be greater than or equal to 16"),
    (("name: tiny\n", "name: tiny\n? [1]\n: 2\n"), "the key in line 2 is a list or a mapping; give a text"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message[:50] for _, message in REFUSED])
def test_what_would_be_read_wrong_is_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(BenchError) as refused:
        load_study(replaced(tmp_path, change))
    assert str(refused.value).startswith(f"{tmp_path / 'tiny.yaml'}: ") and message in str(refused.value)


def test_values_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    texts = {"010": 10, "0o10": 8, "0x1f": 31, "-3": -3, "7e-4": 0.0007, ".5": 0.5, "1.": 1.0, "1e3": 1000.0}
    texts |= {"true": True, "False": False, "~": None, "null": None, "on": "on", "no": "no", "1:30": "1:30"}
    texts |= {"2024-01-05": "2024-01-05", "1_000": "1_000", "0b1": "0b1", "=": "="}
    path = tmp_path / "values.yaml"
    path.write_text("".join(f"- {text}\n" for text in texts) + "-\n")
    values = read_yaml(path)
    assert values == [*texts.values(), None]
    assert [type(value) for value in values[:-1]] == [type(value) for value in texts.values()]
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(path)["b"] == {"x": 1, "y": 3}, "a merge is no repetition"
    path.write_text(yaml.safe_dump(study()))
    assert read_yaml(path) == study()


def test_octal_steps_and_words_are_read_as_written(tmp_path: Path) -> None:
    path = replaced(
        tmp_path, ("  - 1\n", "  - 010\n"), ("name: tiny\n", "name: no\n"), ("  lr: 0.003\n", "  lr: 3e-3\n")
    )
    loaded = load_study(path)
    assert (loaded.split.folds, loaded.name, loaded.training.lr) == ((10,), "no", 0.003)


def command(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = {**os.environ, **environment}
    words = [sys.executable, "-m", "pais_bench", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, env=variables)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_a_study_is_utf_8_whatever_the_locale(tmp_path: Path, encoding: str) -> None:
    text = write_study(tmp_path).read_text().replace("name: tiny\n", "# Größe\nname: tiny\ntitle: Blätter\n", 1)
    path = tmp_path / "tiny.yaml"
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command("plan", path, "--results", tmp_path / "Ergebnisse-ä", **ascii_locale)
    assert b"Traceback" not in done.stderr
    if encoding.startswith("utf-8"):
        assert done.returncode == 0, done.stderr
        assert load_study(path).title == "Blätter"
    else:
        assert done.returncode == 2 and b"tiny.yaml: not UTF-8, in line 1; save it in this encoding" in done.stderr


def test_a_network_trains_with_a_method_once(tmp_path: Path) -> None:
    networks: dict[str, Any] = study()["networks"]
    networks["mask_rcnn"]["methods"] = ["pais", "pais"]
    with pytest.raises(BenchError, match=r"'networks.mask_rcnn.methods': value error, pais is repeated"):
        load_study(write_study(tmp_path, networks=networks))
