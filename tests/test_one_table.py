"""Do all backends that are installed train with the same methods, each in its own environment, into one table?"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny import SMALLEST, write_study

from pais_bench import plugins

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif("TEST_BACKENDS" not in os.environ, reason="takes minutes; `make test-backends` runs it")
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
    words = ["--workflow-profile", "profiles/local", "--config", f"study={study}", f"results={results}"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    table = pd.read_csv(results / "reports/tiny/main_table.csv")
    assert set(table["network"]) == set(networks) and set(table["method"]) == {"supervised", "mean_teacher", "pais"}
    for path in (results / "runs").rglob("run.json"):
        told = json.loads(path.read_text())
        versions, backend = told["versions"], told["run"]["network"]["backend"]
        wanted = {"mmdet": "onedl-mmcv", "detectron2": "detectron2"}.get(backend, "torchvision")
        assert wanted in versions, f"{path} does not tell the version of {wanted}"
