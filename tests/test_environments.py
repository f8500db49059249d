"""Check that the environments are locked, and that locks, pyproject.toml and envs/build.py agree."""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pais_bench import __version__, plugins, provenance
from pais_bench.cli import start
from pais_bench.cli.commands.bundle import CHECKOUT
from pais_bench.cli.main import main
from pais_bench.errors import BenchError

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "envs").glob("*.in"))
BACKENDS = sorted(path.name.split(".")[0] for path in (ROOT / "envs").glob("*.post-deploy.sh"))
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ ;]+)(?: ; ([^\\]+))?", re.MULTILINE)


def lock(name: str) -> str:
    return (ROOT / "envs" / f"{name}.txt").read_text()


def pins(name: str) -> set[tuple[str, str]]:
    return {(package, version) for package, version, _ in PIN.findall(lock(name))}


def required(name: str) -> set[str]:
    """Return the normalised names of the packages that an .in file requires."""
    packages: set[str] = set()
    for line in (ROOT / "envs" / f"{name}.in").read_text().splitlines():
        requirement = line.split("#")[0].strip()
        if requirement.startswith("-r "):
            packages |= required(Path(requirement[3:]).stem)
        elif requirement:
            packages.add(re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-"))
    return packages


@pytest.fixture
def builder() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "envs" / "build.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_pin_has_a_hash(name: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", lock(name), flags=re.MULTILINE)[1:]
    assert blocks
    assert not [block.splitlines()[0] for block in blocks if not PIN.match(block) or "--hash=sha256:" not in block]


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_names_no_host_and_no_folder(name: str) -> None:
    code = re.sub(r"--hash=sha256:[0-9a-f]{64}", "", lock(name))
    assert not re.findall(r"\S*://\S*|^-.*|.*index.url.*|.* @ .*", code, flags=re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_pins_every_required_package(name: str) -> None:
    assert required(name) <= {package for package, _ in pins(name)}


def test_dev_has_the_pins_of_the_other_environments() -> None:
    """Python 3.10 has versions of its own in torchvision.txt; dev needs 3.11."""
    others = {pin for name in ("workflow", "torchvision") for pin in PIN.findall(lock(name))}
    assert {(package, version) for package, version, marker in others if "< '3.11'" not in marker} <= pins("dev")


def test_torchvision_is_locked_for_the_oldest_python_too() -> None:
    markers = [marker for package, _, marker in PIN.findall(lock("torchvision")) if package == "torch"]
    assert any(not marker or "< '3.11'" in marker for marker in markers)


def test_only_versions_and_source_builds_change_the_environment(builder: dict[str, Any], tmp_path: Path) -> None:
    folder, path = builder["folder"], tmp_path / "tiny.txt"
    folder.__globals__["LOCKS"] = tmp_path
    names = []
    for text in (
        "# by hand\na==1 \\\n    --hash=sha256:00\n    # via b\n",
        "a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n",
        "a==2 \\\n    --hash=sha256:00\n",
        "a==1 ; python_version < '3.11' \\\n    --hash=sha256:00\n",
    ):
        path.write_text(text)
        names.append(folder("tiny"))
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert re.fullmatch(r"\.envs/tiny-[0-9a-f]{12}", str(names[0]))
    for text in (
        "b @ git+https://host/b@0001\n",
        "b @ git+https://host/b@0002\n",
        "# by hand\nb @ git+https://host/b@0002\n",
    ):
        (tmp_path / "tiny.source.txt").write_text(text)
        names.append(folder("tiny"))
    assert len(set(names)) == 5 and names[-1] == names[-2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_conda_installs_the_same_pins(builder: dict[str, Any], backend: str) -> None:
    """Snakemake builds a new environment where the text of one of the two files changes."""
    assert str(builder["folder"](backend)).removeprefix(".envs/") in (ROOT / "envs" / f"{backend}.yaml").read_text(), (
        "python3 envs/build.py --conda writes it"
    )
    script = ROOT / "envs" / f"{backend}.post-deploy.sh"
    assert f'envs/build.py {backend} --into "$CONDA_PREFIX"' in script.read_text()
    assert subprocess.run(["sh", "-n", script]).returncode == 0


def test_images_hold_what_a_build_needs_and_run_one_installer() -> None:
    folder = ROOT / "envs" / "container"
    docker, apptainer = (folder / "Dockerfile").read_text(), (folder / "apptainer.def").read_text()
    (listed,) = re.findall(r"^%files\n(.*?)\n\n", apptainer, re.MULTILINE | re.DOTALL)
    copied = {name for line in re.findall(r"^COPY (.*)", docker, re.MULTILINE) for name in line.split()[:-1]}
    assert copied == {line.split()[0] for line in listed.splitlines()} == {*CHECKOUT, "pais_bench"}
    assert all((ROOT / name).exists() for name in copied)
    assert subprocess.run(["sh", "-n", folder / "install.sh"]).returncode == 0
    for text in (docker, apptainer):
        assert "sh envs/container/install.sh" in text and "://" not in text
        assert all(name in NAMES for name in re.findall(r"ENVIRONMENT=(\w+)", text))
        assert all(re.search(r":[\w.-]*\d", base) for base in re.findall(r"BASE=(\S+)", text)), "a tag with a version"


def test_source_builds_are_pinned_by_hash_or_commit() -> None:
    lines = [
        line
        for path in (ROOT / "envs").glob("*.source.txt")
        for line in path.read_text().splitlines()
        if not line.startswith("#")
    ]
    assert len(lines) == 2
    for line in lines:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$|@[0-9a-f]{40}$", line), line


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provenance, "LOCKS", tmp_path)
    return tmp_path


def test_a_locked_run_refuses_other_versions(locks: Path) -> None:
    version = provenance.installed(["numpy"])["numpy"]
    (locks / "tiny.txt").write_text(f"numpy=={version} ; python_version < '9' \\\n    --hash=sha256:00\nabsent==1 \\\n")
    provenance.require_locked("tiny", ["numpy", "pillow"])  # pillow is not pinned here
    with pytest.raises(BenchError, match="absent is not installed: the environment 'tiny' pins 1; run with"):
        provenance.require_locked("tiny", ["numpy", "absent"])
    (locks / "tiny.txt").write_text("numpy==0.1 \\\n")
    with pytest.raises(BenchError, match=rf"numpy {version}: the environment 'tiny' pins 0\.1"):
        provenance.require_locked("tiny", ["numpy"])
    with pytest.raises(BenchError, match=r"--locked other: there is no .*other\.txt"):
        provenance.require_locked("other", ["numpy"])


def test_a_package_from_a_repository_is_checked_by_its_commit(
    locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use a package like detectron2, whose line in envs/NAME.source.txt ends in the commit."""
    commit, other = "ab" * 20, "cd" * 20
    folder = tmp_path / "presource-0.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: presource\nVersion: 0.6\n")
    (folder / "direct_url.json").write_text(json.dumps({"vcs_info": {"vcs": "git", "commit_id": commit}}))
    monkeypatch.syspath_prepend(tmp_path)
    source = locks / "tiny.source.txt"
    source.write_text(f"# against the torch of the lock\npresource @ git+https://example.org/presource@{commit}\n")
    provenance.require_locked("tiny", ["presource"])
    source.write_text(f"presource @ git+https://example.org/presource@{other}\n")
    with pytest.raises(BenchError, match=f"presource {commit}: the environment 'tiny' pins {other}; run with"):
        provenance.require_locked("tiny", ["presource"])


def test_incompatible_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use metadata alone, as a wheel has it: torchvision of another torch."""
    for name, version, requirement in (
        ("pretorch", "2.10.0", ""),
        ("previsions", "0.29.2", "Requires-Dist: pretorch==2.15.0\n"),
    ):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requirement}")
    monkeypatch.syspath_prepend(tmp_path)
    assert provenance.incompatible_packages(["pretorch", "previsions"]) == [
        "previsions 0.29.2 needs pretorch==2.15.0, and pretorch 2.10.0 is installed"
    ]


def test_every_backend_has_an_environment() -> None:
    assert {name.split("/")[0] for name in plugins.names("backends")} == set(BACKENDS) == set(provenance.FRAMEWORKS)


def test_build_of_a_ready_environment_only_prints_its_python(tmp_path: Path, builder: dict[str, Any]) -> None:
    (tmp_path / "envs").mkdir()
    for path in (ROOT / "envs").iterdir():
        if path.is_file():
            (tmp_path / "envs" / path.name).write_bytes(path.read_bytes())
    home = builder["folder"]("workflow")
    (tmp_path / home).mkdir(parents=True)
    (tmp_path / home / "READY").touch()
    done = build(tmp_path, "workflow")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{home}/bin/python\n", "")


def test_build_names_the_known_environments() -> None:
    done = build(ROOT, "nothing")
    assert done.returncode != 0
    assert ", ".join(NAMES) in done.stderr


def test_build_without_venv_and_pip_says_what_to_install(tmp_path: Path) -> None:
    """Shadow both modules by ones that fail."""
    (tmp_path / "envs").mkdir()
    for name in ("build.py", "uv.txt", "uv.in"):
        (tmp_path / "envs" / name).write_bytes((ROOT / "envs" / name).read_bytes())
    for name in ("venv", "pip"):
        (tmp_path / "hidden" / name).mkdir(parents=True)
        (tmp_path / "hidden" / name / "__main__.py").write_text("raise SystemExit(1)\n")
        (tmp_path / "hidden" / name / "__init__.py").touch()
    done = build(tmp_path, "uv", PYTHONPATH=str(tmp_path / "hidden"))
    assert done.returncode == 1
    assert "has neither venv nor pip; install one of them" in done.stderr.splitlines()[-1]


def build(root: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "envs" / "build.py"), name]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_metadata() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    assert 'name = "pais-bench"' in text
    script = re.search(r'^pais-bench = "([\w.]+):(\w+)"', text, re.MULTILINE)
    assert script and getattr(importlib.import_module(script[1]), script[2]) is start.main
    assert (ROOT / "pais_bench" / "py.typed").is_file()
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", __version__)


def test_dependencies_are_in_every_environment_that_runs_the_package() -> None:
    dependencies = re.search(r"^dependencies = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert dependencies
    packages = {re.split(r"[<>=]", text)[0] for text in re.findall(r'"([^"]+)"', dependencies[1])}
    for name in set(NAMES) - {"docs", "uv"}:
        assert packages <= required(name)


def test_doctor_reports_an_installed_backend_or_its_install_command(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--here", "detectron2"])
    expected = "`python3 envs/build.py detectron2` installs it" if code else "ready: python"
    assert expected in capsys.readouterr().out
    assert main(["doctor", "caffe"]) == 2
    assert "caffe: there is no such backend; choose one of detectron2, mmdet, torchvision" in capsys.readouterr().err


def test_doctor_says_that_a_backend_is_broken_also_where_another_is_absent(tmp_path: Path) -> None:
    for name, fault in (
        ("detectron2", "RuntimeError('of another torch')"),
        ("mmdet", "ModuleNotFoundError(name='mmdet')"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise {fault}\n")
    variables = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "pais_bench", "doctor", "--here", "detectron2", "mmdet"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert "broken: RuntimeError: of another torch" in done.stdout and "not installed: " in done.stdout
    assert done.returncode == 1


def test_doctor_of_an_installed_package_finds_the_environments_below_the_cache(tmp_path: Path) -> None:
    package, ignored = tmp_path / "site" / "pais_bench", shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pais_bench", package, ignore=ignored)
    shutil.copytree(ROOT / "envs", package / "_project" / "envs", ignore=ignored)
    name = runpy.run_path(str(package / "_project" / "envs" / "build.py"))["folder"]("torchvision")
    home = tmp_path / "cache" / "pais_bench" / name
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").write_text('#!/bin/sh\necho "ready: $*"\n')
    (home / "bin" / "python").chmod(0o755)
    (home / "READY").touch()
    variables = {**os.environ, "PYTHONPATH": str(package.parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "pais_bench", "doctor", "torchvision"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    asked = f"  {home}: ready: -m pais_bench doctor --here torchvision\n"
    assert asked in done.stdout and "not built" not in done.stdout, done.stdout + done.stderr


def test_the_commit_is_none_of_a_repository_that_holds_a_copy(tmp_path: Path) -> None:
    """Copy the package into somebody else's repository, as a venv in it has it, and then commit it there."""
    package = tmp_path / "site" / "pais_bench"
    package.mkdir(parents=True)
    for name in ("__init__", "errors", "provenance"):
        (package / f"{name}.py").write_bytes((ROOT / "pais_bench" / f"{name}.py").read_bytes())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    script = "from pais_bench import provenance; print(provenance.commit())"

    def commit(**environment: str) -> str:
        variables = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), **environment}
        command = [sys.executable, "-c", script]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True).stdout.strip()

    assert commit() == f"pais-bench {__version__}"
    subprocess.run([*git, "add", "site"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a copy"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert commit() == commit(GIT_DIR=str(ROOT / ".git")) == head
    (tmp_path / "notes.txt").write_text("beside the package\n")
    assert commit() == head
    for name in ("method_of_the_users.py", "errors.py"):
        with (package / name).open("a") as file:
            file.write("# edited\n")
        assert commit() == f"{head}+changes"
        subprocess.run([*git, "add", "site"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", name], check=True)
        head = commit()
        assert "+" not in head


def test_a_missing_package_is_named_with_the_environment_that_has_it(tmp_path: Path) -> None:
    """Hide what a plain installation lacks."""
    for package, environment, words in (
        ("jinja2", "workflow", ["report", "demo"]),
        ("pandas", "workflow", ["report", "demo"]),
        ("torch", "torchvision", ["train", "demo", "--percent", "1", "--fold", "1", "--network", "mask_rcnn"]),
    ):
        words = [*words, "--method", "pais"] if package == "torch" else words
        script = f"import sys; sys.modules[{package!r}] = None; from pais_bench.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", script, *words, "--results", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        (message, *_) = done.stderr.splitlines()
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"the package '{package}' is not installed in {sys.executable}; install it there" in message
        assert f"`python3 envs/build.py {environment}`" in message
