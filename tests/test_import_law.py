"""Do imports go one way, and do files keep to the house rules? Read from the sources; nothing is imported here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pais_bench"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}

SHELVES = ("methods", "backends", "datasets", "metrics", "reports", "families", "verbs")
FRAMEWORKS = {"torchvision", "mmdet", "mmcv", "mmengine", "detectron2"}
TORCH = FRAMEWORKS | {"torch", "lightning_fabric"}
TORCH_FREE = (
    *("config", "study_file", "frozen", "split_choice", "pools", "corruptions", "splits", "store", "plugins"),
    *("results", "types", "provenance", "reporting", "pixels", "cli"),
    *("logs", "page", "gaps", "caveats"),
    *("demands", "faults", "interruption", "lock"),
)
TORCH_FREE_SHELVES = ("methods", "datasets", "metrics", "reports", "families", "verbs")
DRAWERS = {"utils", "util", "helpers", "helper", "misc", "common", "tools", "base"}


def runtime(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only a type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from runtime(child)


def imports(tree: ast.AST) -> set[str]:
    """Give the modules that a tree imports, inside of functions too; `from a import b` may import a.b."""
    found = set()
    for node in runtime(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: import by the full name"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(found: set[str], *packages: str) -> set[str]:
    return {name for name in found if any(name == one or name.startswith(f"{one}.") for one in packages)}


def plugins_of(*shelves: str) -> list[str]:
    return [name for name in FILES if name.split("/")[0] in shelves and not name.endswith("__init__.py")]


def test_the_laws_see_what_they_forbid() -> None:
    hidden = "if TYPE_CHECKING:\n    import torch\ndef f():\n    import mmdet.apis"
    tree = ast.parse(f"from pais_bench import engine\n{hidden}")
    assert within(imports(tree), "pais_bench.engine", *TORCH) == {"pais_bench.engine", "mmdet.apis"}
    assert {"config.py", "methods/pais.py", "backends/torchvision/mask_rcnn.py"} <= set(FILES)


@pytest.mark.parametrize("name", [f"{name}.py" for name in TORCH_FREE if name != "cli"])
def test_core_that_plans_and_reports_imports_no_torch(name: str) -> None:
    assert not within(imports(TREES[name]), *TORCH)


@pytest.mark.parametrize("name", plugins_of(*TORCH_FREE_SHELVES))
def test_plugins_but_backends_import_no_torch(name: str) -> None:
    assert not within(imports(TREES[name]), *TORCH)


def test_the_workflow_and_the_reports_run_where_torch_is_absent() -> None:
    """Import for real, so that no way round through a third module is left."""
    modules = [f"pais_bench.{name}" for name in TORCH_FREE]
    modules += [f"pais_bench.{name[:-3].replace('/', '.')}" for name in plugins_of(*TORCH_FREE_SHELVES)]
    absent = "".join(f"sys.modules['{name}'] = None\n" for name in sorted(TORCH))
    script = f"import importlib, sys\n{absent}for name in {modules}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", plugins_of("methods", "backends", "datasets", "families", "verbs"))
def test_a_plugin_imports_no_sibling_and_no_other_shelf(name: str) -> None:
    """A private neighbour (_name.py) in the same folder is a part of the plugins there, not one of them."""
    own = "pais_bench." + name.rpartition("/")[0].replace("/", ".")
    shelves = within(imports(TREES[name]), *(f"pais_bench.{shelf}" for shelf in SHELVES))
    assert not {module for module in shelves if not module.startswith(f"{own}._")}


@pytest.mark.parametrize("name", plugins_of("metrics", "reports"))
def test_a_metric_or_report_imports_no_sibling_but_private_ones(name: str) -> None:
    own = "pais_bench." + name.split("/")[0]
    shelves = within(imports(TREES[name]), *(f"pais_bench.{shelf}" for shelf in SHELVES))
    assert not {module for module in shelves if not module.startswith(f"{own}._")}


@pytest.mark.parametrize("name", [name for name in FILES if "/" not in name])
def test_core_loads_shelves_through_plugins_only(name: str) -> None:
    assert not within(imports(TREES[name]), *(f"pais_bench.{shelf}" for shelf in SHELVES))


@pytest.mark.parametrize("name", FILES)
def test_only_its_backend_imports_a_framework(name: str) -> None:
    parts = name.split("/")
    found = within(imports(TREES[name]), *FRAMEWORKS)
    if parts[0] == "backends" and len(parts) == 3:
        own = {"mmdet": ("mmdet", "mmcv", "mmengine")}.get(parts[1], (parts[1],))
        found -= within(found, *own)
    if name == "augment.py":
        found -= within(found, "torchvision.transforms")
    assert not found


def test_augment_imports_no_plugin_and_no_loop() -> None:
    assert within(imports(TREES["augment.py"]), "pais_bench") <= allowed("config", "geometry", "types")


@pytest.mark.parametrize("name", ["geometry.py", "losses.py"])
def test_arithmetic_imports_types_only(name: str) -> None:
    assert within(imports(TREES[name]), "pais_bench") <= allowed("types")


def allowed(*modules: str) -> set[str]:
    """Give the core modules of these names, with all that can be imported from them."""
    found = {"pais_bench"} | {f"pais_bench.{module}" for module in modules}
    for tree in TREES.values():
        found |= within(imports(tree), *(f"pais_bench.{module}" for module in modules))
    return found


def test_nothing_imports_the_command_line_but_main() -> None:
    assert [name for name, tree in TREES.items() if within(imports(tree), "pais_bench.cli")] == ["__main__.py"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_small_has_a_name_and_a_docstring(name: str) -> None:
    lines = FILES[name].read_text().count("\n")
    assert lines <= 300
    assert FILES[name].stem.lstrip("_") not in DRAWERS
    assert ast.get_docstring(TREES[name])


@pytest.mark.parametrize("name", FILES)
def test_a_function_is_at_most_sixty_lines(name: str) -> None:
    functions = (node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef))
    assert not {one.name: one.end_lineno for one in functions if (one.end_lineno or 0) - one.lineno >= 60}


@pytest.mark.parametrize("name", [name for name in FILES if name != "cli.py" and not name.startswith("verbs/")])
def test_nothing_prints_but_the_command_line(name: str) -> None:
    calls = (node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call))
    assert not [f"line {call.lineno}" for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
