"""Train the same methods on every installed backend, each in its own environment, into one table.

Also where Snakemake has conda make the environments. No channel of conda's is needed: a stand-in makes an environment
that is a venv, into which the project's own script installs the lock.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import conda
import pandas as pd
import pytest
from tiny import SMALLEST, write_study

from pais_bench import plugins

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif("TEST_BACKENDS" not in os.environ, reason="takes minutes; `make test-backends` runs it")


def test_every_installed_backend_is_in_the_table(tmp_path: Path) -> None:
    folder = runpy.run_path(str(ROOT / "envs" / "build.py"))["folder"]
    ready = {
        name
        for name in plugins.names("backends")
        if name.startswith("torchvision/") or (ROOT / folder(name.split("/")[0]) / "READY").exists()
    }
    assert "mmdet/mask_rcnn" in ready, "`python3 envs/build.py mmdet` installs it"
    networks = {
        name.replace("/", "."): {"backend": name.split("/")[0], "name": name.split("/")[1], "options": SMALLEST[name]}
        for name in sorted(ready)
    }
    study, results = write_study(tmp_path, networks=networks), tmp_path / "results"
    snakemake("--config", f"study={study}", f"results={results}")
    table = pd.read_csv(results / "reports/tiny/main_table.csv")
    assert set(table["network"]) == set(networks) and set(table["method"]) == {"supervised", "mean_teacher", "pais"}
    for path in (results / "runs").rglob("run.json"):
        record = json.loads(path.read_text())
        versions, backend = record["versions"], record["run"]["network"]["backend"]
        wanted = {"mmdet": "onedl-mmcv", "detectron2": "detectron2"}.get(backend, "torchvision")
        assert wanted in versions, f"{path} has no version of {wanted}"


def test_a_backend_trains_in_the_environment_that_conda_made(tmp_path: Path) -> None:
    study, results = write_study(tmp_path, methods={"supervised": {}}), tmp_path / "results"
    words = ["--sdm", "conda", "--conda-prefix", str(tmp_path / "made"), "--config", f"study={study}"]
    output = snakemake(*words, f"results={results}", PATH=conda.write_fake_conda(tmp_path / "conda"))
    assert "Running post-deploy script" in output and "rule environment" not in output
    (torch,) = (tmp_path / "made").glob("*/lib/python*/site-packages/torch/__init__.py")
    assert re.search(f"Activating conda environment: .*{torch.parents[4].name}", output)
    assert list((results / "runs").rglob("metrics.json")), "the venv before the path has nothing but the lock"


def snakemake(*words: str, **environment: str) -> str:
    """Run the workflow to its end; give what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/local", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
