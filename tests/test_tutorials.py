"""Run the tutorials as they are written: their files, their commands, and the output that they show.

Shown output is compared number by number, unless its title tells the reader that his numbers differ.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
METHOD = ROOT / "docs" / "tutorials" / "method-author.md"
PROJECT = ("Snakefile", "envs", "pais_bench", "profiles", "rules", "tests")
"""What a clone has of use here; a method is written into it."""
BLOCK = re.compile(r"^```(\w+)(?: title=\"(.*?)\")?\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
VARYING = "Your numbers will differ"
"""The title of output that holds times or numbers of a training."""
PYTHON = '#!/bin/sh\nexec {python} "$@"\n'
COMMAND = """#!/bin/sh
case "$1 $*" in
  run*" -n"*) exec {python} -m pais_bench "$@" -- --config python={python} ;;
  run*) exec {python} -m pais_bench "$@" -- --cores 2 --config python={python} ;;
  *) exec {python} -m pais_bench "$@" ;;
esac
"""
"""The command of the page, which trains in this Python in place of an environment that it would build."""


class Followed(NamedTuple):
    """Hold the clone in which a page was followed, its environment variables, and what each command of the page did."""

    clone: Path
    environment: dict[str, str]
    done: dict[str, subprocess.CompletedProcess[str]]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page in the clone."""
        words = ["bash", "-e", "-c", command]
        done = subprocess.run(words, cwd=self.clone, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done


def follow(page: Path, folder: Path) -> Followed:
    """Do what a page says in a copy of the project, and compare the output of its commands with what it shows."""
    clone, programs, home = (folder / name for name in ("clone", "bin", "home"))
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        clone.mkdir(exist_ok=True)
        copy(ROOT / name, clone / name)
    programs.mkdir()
    home.mkdir()
    for name, script in (("python", PYTHON), ("pais-bench", COMMAND)):
        (programs / name).write_text(script.format(python=sys.executable))
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(clone)}
    followed = Followed(clone, environment | {"HOME": str(home), "OMP_NUM_THREADS": "1"}, {})
    output, blocks = "", BLOCK.findall(page.read_text())
    assert 2 * len(blocks) == page.read_text().count("```"), "a block that this test does not read"
    assert {title for _, title, _ in blocks} <= {"", VARYING}
    for language, title, text in blocks:
        if language == "bash":
            followed.done[text.strip()] = followed.run(text)
            output = followed.done[text.strip()].stdout
        elif language == "text":
            pattern = pattern_of(text, exact=title != VARYING)
            assert re.search(pattern, output, re.MULTILINE), f"{page.name} shows\n{text}\nand it is\n{output}"
        else:
            (clone / text.split()[1]).write_text(text)
    return followed


@pytest.mark.parametrize("page", [page for page in PAGES if page != METHOD], ids=lambda page: page.stem)
def test_a_tutorial_runs_as_written(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path)


def test_a_study_is_run_end_to_end_and_a_second_time_does_nothing(tmp_path: Path) -> None:
    """Follow the tutorial of a method, whose study has runs that share a burn-in, and look at all that it leaves."""
    followed = follow(METHOD, tmp_path)
    done, results = followed.done["pais-bench run mine.yaml"], followed.clone / "results"
    assert done.stdout.splitlines()[:2] == [
        "mine: 3 runs; 0 trained, 0 predicted, 0 evaluated, 0 started",
        "  burn-ins that runs of a split share: 0 of 1 trained",
    ]
    for folder in (results / "runs").glob("*/*/*/*"):
        begun_with = json.loads((folder / "run.json").read_text())["begun_with"]
        (burn_in,) = folder.parent.glob("burn_in-*")
        assert begun_with == ("" if folder == burn_in else str(burn_in.relative_to(results)))
    assert done.stdout.endswith("page: results/reports/mine/report.html\n")
    assert re.search(r"^mask_rcnn +pais +\d+\.\d", done.stdout, re.MULTILINE), "the main table"
    done_runs = r" torchvision/mask_rcnn (?!burn_in)\w+: done, mask AP \d+\.\d$"
    assert len(re.findall(done_runs, done.stderr, re.MULTILINE)) == 3
    assert done.stderr.splitlines()[-1].endswith("3 of 3 runs done")
    report = results / "reports" / "mine"
    table = pd.read_csv(report / "main_table.csv")
    assert set(table["method"]) == {"supervised", "pais", "best_half"} and set(table["percent"]) == {10}
    for name in ("convergence", "label_efficiency"):
        assert (report / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(report / f"{name}.png") as figure:
            assert figure.width > 800
    for path in (results / "runs").rglob("examples.json"):
        examples = json.loads(path.read_text())
        assert len(examples) == 8
        assert {"image_id", "teacher", "student"} == set(examples[0])
        records = [record for example in examples for record in example["teacher"]]
        labelled_alone = re.search("supervised|burn_in", str(path))
        assert all(("class_weight" in record) != bool(labelled_alone) for record in records)
    names = {path.name for path in report.iterdir()}
    assert {"examples.png", "pseudo_label_quality.pdf", "score_iou.csv", "calibration.png", "report.html"} <= names
    again = followed.run("pais-bench run mine.yaml")
    assert again.stdout.splitlines()[0] == "mine: 3 runs; 3 trained, 3 predicted, 3 evaluated, 0 started"
    assert again.stdout.split("Mask AP", 1)[1] == done.stdout.split("Mask AP", 1)[1]
    assert "Nothing to be done" in (results / "logs" / "workflow" / "mine.log").read_text()


def pattern_of(shown: str, *, exact: bool) -> str:
    """Return the pattern of an output from the start of a line to the end of a word.

    Widths may be others, and three dots stand for anything; where it is not exact, numbers may be others too.
    """
    pattern = re.escape(shown.strip())
    if not exact:
        pattern = re.sub(r"(\\-|−|\\\+|\+|-)?\d+(\\?\.\d+)?", r"\\S+", pattern)
    pattern = re.sub(r"(\\ )+", r"\\s+", pattern).replace(r"\.\.\.", r"[\s\S]*?")
    return rf"^{pattern}(?!\S)"
