"""Check what is read from the source of a plugin, and what is refused of its name and classes."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

import pytest

from pais_bench import methods, plugins
from pais_bench.errors import BenchError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty package in place of pais_bench."""
    monkeypatch.setattr(plugins, "_PACKAGE", tmp_path / "pais_bench")
    return tmp_path / "pais_bench"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_a_network_derives_is_read_from_its_bases(package: Path) -> None:
    init = "def __init__(self, classes, options{}): ...\n    "
    write(package / "layers/network.py", "class Network(nn.Module): ...")
    first = "from pais_bench.layers.network import Network\nclass Options: size: int\nclass Backend(Network):\n    "
    write(package / "backends/any/first.py", first + init.format(", stuff=()") + "def predict_soft(self): ...")
    derived = "from pais_bench.backends.any import first\nOptions = first.Options\nclass Backend(first.Backend):\n    "
    write(package / "backends/any/second.py", derived + "depth = 2")
    write(package / "backends/any/third.py", derived + init.format(""))
    write(package / "backends/any/fourth.py", "class Backend(elsewhere.Model): ...")
    assert plugins.option_names("backends", "any/second") == {"size"}
    learns = {name: plugins.learns_stuff(f"any/{name}") for name in ("first", "second", "third")}
    assert learns == {"first": True, "second": True, "third": False}
    for name in learns:
        assert plugins.lacks(f"any/{name}", "predict_with_scorers") and not plugins.lacks(f"any/{name}", "predict_soft")
    assert not plugins.lacks("any/fourth", "predict_soft"), "what another package's class has is not known"


def test_a_name_of_two_files_is_refused(package: Path) -> None:
    for folder in ("tables", "figures"):
        write(package / "reports" / folder / "per_class.py", "")
    with pytest.raises(
        BenchError, match=r"reports: both reports/tables and reports/figures have a file 'per_class.py'"
    ):
        plugins.names("reports")


def test_a_file_without_the_classes_of_a_plugin_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(package / "methods" / "helper.py", "")
    monkeypatch.setattr(plugins, "import_package", lambda module, *_: ModuleType(module))
    with pytest.raises(BenchError, match=r"methods/helper: has no class Options and no class Method; .* begin with _"):
        plugins.load("methods", "helper")


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        (
            "mine",
            "class Options(MethodOptions):\n    threshold = 0.5",
            "methods/mine.py: the option 'threshold' of Options",
        ),
        (
            "mine",
            "class Options(pais.Options):\n    alpha = 2",
            "methods/mine.py: the option 'alpha' of Options has no",
        ),
        (
            "mine",
            "class Options(_shared.Options): ...",
            "methods/_shared.py: the option 'radius' of Options has no type",
        ),
    ],
)
def test_an_option_without_a_type_is_refused_by_its_file(
    name: str, options: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pais_bench" / "methods"
    shutil.copytree(Path(methods.__path__[0]), folder)
    monkeypatch.setattr(plugins, "_PACKAGE", folder.parent)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    head = "from pais_bench.methods.base import MethodOptions\n"
    write(folder / "_shared.py", f"{head}class Options(MethodOptions):\n    radius = 3\n")
    if "_shared" in options or "pais." in options:
        head += f"from pais_bench.methods import {'_shared' if '_shared' in options else 'pais'}\n"
    write(folder / f"{name}.py", f"{head}\n{options}\n")
    for attempt in (plugins.option_names, plugins.load):
        with pytest.raises(BenchError) as refused:
            attempt("methods", name)
        assert fault in str(refused.value) and "; write it as `" in str(refused.value)


def test_what_pydantic_takes_for_no_option_needs_no_type(package: Path) -> None:
    body = "    model_config = {}\n    _own = 1\n    checked = field_validator('size')(len)\n    size: int = 1\n"
    write(package / "methods/mine.py", f"class Options(MethodOptions):\n{body}")
    assert plugins.option_names("methods", "mine") == {"size"}
