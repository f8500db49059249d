"""Check `pais-bench bundle` for real: from a package index on this machine, installed where no index is reachable."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from runpy import run_path
from threading import Thread

import pytest
import yaml
from tiny import study

from pais_bench.reports.external import read_all
from pais_bench.study.load import load_study

ROOT = Path(__file__).parent.parent
UV = next(ROOT.glob(".envs/uv-*/bin/uv"), None) or shutil.which("uv")
pytestmark = [
    pytest.mark.skipif(UV is None, reason="uv is not installed: python3 envs/build.py uv"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="reads what uv writes with tomllib, of Python 3.11"),
]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Write a wheel of any platform that has these files."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            member = zipfile.ZipInfo(path)
            member.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(member, text)
    return wheel


class Index:
    """Serve wheels as a package index does, and count the downloads."""

    def __init__(self, wheels: list[Path]) -> None:
        self.wheels, self.downloads = {wheel.name: wheel.read_bytes() for wheel in wheels}, 0
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/").split("/")[-1]
                content, kind = index.wheels.get(name), "application/octet-stream"
                if content is None:
                    content, kind = index.page(name), "application/vnd.pypi.simple.v1+json"
                index.downloads += name in index.wheels
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def page(self, package: str) -> bytes:
        files = [
            {"filename": name, "url": f"/files/{name}", "size": len(content), "hashes": {"sha256": digest(content)}}
            for name, content in self.wheels.items()
            if name.startswith(f"{package}-")
        ]
        page = {"meta": {"api-version": "1.1"}, "name": package, "versions": ["1.0"], "files": files}
        return json.dumps(page).encode() if files else b""

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Machine:
    """Hold an installed package with tiny locks, and the environment of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        program = f'#!/bin/sh\nexec {UV} "$@"\n'
        self.index = Index(
            [
                make_wheel(folder, "uv", "1.0", {"uv-1.0.data/scripts/uv": program}),
                make_wheel(folder, "tiny", "1.0", {"tiny.py": "size = 1\n"}),
            ]
        )
        ignored = shutil.ignore_patterns("__pycache__")
        project = folder / "site" / "pais_bench" / "_project"
        shutil.copytree(ROOT / "pais_bench", project.parent, ignore=ignored)
        for name in ("profiles", "rules"):
            shutil.copytree(ROOT / name, project / name, ignore=ignored)
        shutil.copy(ROOT / "Snakefile", project)
        (project / "envs").mkdir()
        shutil.copy(ROOT / "envs" / "build.py", project / "envs")
        for lock, package in (("uv", "uv"), ("workflow", "tiny"), ("torchvision", "tiny")):
            sha256 = digest(self.index.wheels[f"{package}-1.0-py3-none-any.whl"])
            (project / "envs" / f"{lock}.in").write_text(f"{package}\n")
            (project / "envs" / f"{lock}.txt").write_text(f"{package}==1.0 \\\n    --hash=sha256:{sha256}\n")
        # This machine has its uv; the other installs it.
        ready = folder / "cache" / "pais_bench" / run_path(str(project / "envs" / "build.py"))["folder"]("uv")
        (ready / "bin").mkdir(parents=True)
        (ready / "bin" / "uv").symlink_to(str(UV))
        (ready / "READY").touch()
        weights = self.home / "data" / "weights" / "resnet50.pth"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"weights")
        (weights.parent / "parts").mkdir()
        (weights.parent / "parts" / "whole").touch()

    def environment(self, index: str, cache: str) -> dict[str, str]:
        settings = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.folder / cache), "UV_NO_CONFIG": "1"}
        settings |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        return {**kept, "PYTHONPATH": str(self.folder / "site"), **settings}

    def bundle(self, study: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pais_bench", "bundle", str(study), "--out", str(out), *options]
        environment = self.environment(self.index.url, "cache")
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.index.close()


def write_study(folder: Path) -> Path:
    """Write a study on a base in another folder, with weights of which some are not here, and other predictions."""
    values = study()
    network = values["networks"].pop("mask_rcnn")
    values["dataset"]["root"] = "~/photos"
    (folder / "bases").mkdir()
    (folder / "bases" / "base.yaml").write_text(yaml.safe_dump({**values, "networks": {"mask_rcnn": network}}))
    path = folder / "own.yaml"
    weights = {"mask_rcnn": {"options": {"pretrained_backbone": "~/data/weights/resnet50.pth"}}}
    weights["folder"] = {**network, "name": "mask_rcnn", "options": {"pretrained_backbone": "~/data/weights/parts"}}
    weights["relative"] = {**network, "name": "mask_rcnn", "options": {"pretrained_backbone": "weights/mine.pth"}}
    values = {"base": "bases/base.yaml", "name": "own", "networks": weights, "external": ["theirs.yaml"]}
    path.write_text(yaml.safe_dump(values))
    theirs = {"name": "theirs", "network": "n", "method": "m", "percent": 10, "fold": 1, "split_family": "unknown"}
    (folder / "theirs.yaml").write_text(yaml.safe_dump({**theirs, "source": "mail", "predictions": "theirs.json"}))
    return path


def test_a_bundle_is_installed_where_no_index_is_reachable(machine: Machine, tmp_path: Path) -> None:
    path, out = write_study(tmp_path), tmp_path / "there" / "bundle"
    listed = machine.bundle(path, out, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert "wheels/tiny-1.0-py3-none-any.whl\n" in listed.stdout and not out.exists()
    assert "not packed: weights/mine.pth: is relative to the folder where a command runs" in listed.stdout
    assert f"not packed: external, {tmp_path}/theirs.json: as study/external/0/theirs.json\n" in listed.stdout
    (tmp_path / "theirs.json").write_text("[]")
    before = machine.index.downloads
    done = machine.bundle(path, out)
    assert done.returncode == 0, done.stderr
    assert machine.index.downloads == before + 2, done.stderr
    assert machine.bundle(path, out).returncode == 0 and machine.index.downloads == before + 2

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["environments"] == ["uv", "workflow", "torchvision"] and manifest["python"] == PYTHON
    for file in manifest["files"]:
        content = (out / file["path"]).read_bytes()
        assert (len(content), digest(content)) == (file["bytes"], file["sha256"]), file["path"]
    assert yaml.safe_load((out / "study" / "study.yaml").read_text())["dataset"]["root"] == "~/photos"
    packed = load_study(out / "study" / "study.yaml")
    (theirs,) = read_all(packed)
    assert theirs.source == "mail" and theirs.predictions.read_text() == "[]"
    assert packed.name == "own" and [run.folder for run in packed.runs()] == [
        run.folder for run in load_study(path).runs()
    ]

    machine.index.close()
    shutil.rmtree(machine.home / "data")
    (machine.home / "data" / "weights" / "parts.part" / "torn").mkdir(parents=True)  # as a call that was ended left it
    environment = machine.environment(machine.index.url, "offline")
    installed = subprocess.run([out / "install.sh"], env=environment, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    assert (machine.home / "data" / "weights" / "resnet50.pth").read_bytes() == b"weights"
    assert [path.name for path in (machine.home / "data" / "weights" / "parts").iterdir()] == ["whole"]
    assert not (machine.home / "data" / "weights" / "parts.part").exists()
    assert f"ready: cd {out}/project && " in installed.stdout
    (python,) = (tmp_path / "offline").glob("pais_bench/.envs/torchvision-*/bin/python")
    script = "import pais_bench, tiny; print(pais_bench.__file__)"
    command = [python, "-c", script]
    environment.pop("PYTHONPATH")
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).resolve() == out / "project" / "pais_bench" / "__init__.py"

    (out / "wheels" / "tiny-1.0-py3-none-any.whl").write_bytes(b"torn")
    torn = subprocess.run([out / "install.sh"], env=environment, capture_output=True, text=True)
    assert torn.returncode == 2 and "install.sh: error: the files above are damaged or missing" in torn.stderr


def test_a_lock_without_a_file_for_the_machine_is_named(machine: Machine, tmp_path: Path) -> None:
    """Serve another wheel than the one whose hash is locked."""
    path = write_study(tmp_path)
    machine.index.wheels["tiny-1.0-py3-none-any.whl"] += b"changed"
    done = machine.bundle(path, tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert f"workflow.txt: has no file of tiny for Python {PYTHON} on " in done.stderr.splitlines()[-1]
