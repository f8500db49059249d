"""Check that imports go one way, and that files keep to the house rules. Read from the sources; nothing is imported."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pais_bench"
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

GROUND: dict[str, set[str]] = {
    "errors": set(),
    "types": set(),
    "whole_file": set(),
    "optional_packages": {"errors"},
    "plugins": {"errors", "optional_packages"},
    "provenance": {"errors"},
}
"""Every room may import these files of the ground floor, and they what is listed; geometry knows the types alone."""
LAW: dict[str, set[str]] = {
    "study": set(),
    "runs": set(),
    "images": set(),
    "annotations": {"images"},
    "converters": {"annotations", "images"},
    "geometry": set(),
    "layers": set(),
    "loggers": set(),
    "downloads": {"study"},
    "methods": {"study"},
    "splits": {"annotations", "study"},
    "datasets": {"annotations", "images", "study"},
    "evaluation": {"annotations"},
    "backends": {"layers", "study", "geometry"},
    "data": {"splits", "annotations", "images", "study", "geometry"},
    "reports": {"evaluation", "annotations", "images", "runs", "study"},
    "leaderboard": {"reports", "evaluation", "splits", "annotations", "runs", "study"},
    "training": {"data", "methods", "splits", "annotations", "evaluation", "layers", "runs", "study", "geometry"},
    "machine": {"study"},
    "init": {"splits", "annotations", "images", "converters", "machine", "study"},
    "workflow": {"annotations", "runs", "study"},
    "cli": {"downloads", "training", "reports", "evaluation", "init", "splits", "annotations", "images", "study"}
    | {"loggers", "workflow", "machine", "leaderboard", "converters", "runs"},
}
"""What each room imports, in an order in which no room imports a later one."""
FRAMEWORKS = {"torchvision", "mmdet", "mmcv", "mmengine", "detectron2"}
TORCH = FRAMEWORKS | {"torch", "lightning_fabric"}
WITHOUT_TORCH = set(LAW) - {"geometry", "layers", "backends", "data", "training"}
PLUGINS = ("methods", "datasets", "splits/families", "evaluation/metrics", "loggers", "converters/formats")
PLUGINS += ("reports/tables", "reports/figures")


def runtime(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without what only a type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from runtime(child)


def imports(tree: ast.AST) -> set[str]:
    """Return the modules that a tree imports, inside of functions too; `from a import b` may import a.b."""
    modules = set()
    for node in runtime(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def rooms(tree: ast.AST) -> set[str]:
    """Return the rooms and files of the ground floor that a tree imports."""
    return {name.split(".")[1] for name in imports(tree) if name.startswith("pais_bench.")} - {"__version__"}


def test_imports_go_one_way() -> None:
    order = list(LAW)
    for room, allowed in LAW.items():
        assert all(order.index(other) < order.index(room) for other in allowed), f"{room}: the law has a circle"
    for path, tree in TREES.items():
        room = path.parts[0].removesuffix(".py")
        if room in LAW:
            assert rooms(tree) <= LAW[room] | set(GROUND) | {room}, path
    for name, allowed in GROUND.items():
        assert rooms(TREES[Path(f"{name}.py")]) <= allowed, name


def test_a_plugin_imports_no_other_plugin_but_a_method_may_derive_from_one() -> None:
    """A method imports one other at most, as a module, for the bases of its Options and Method; there is no circle."""
    for folder in PLUGINS:
        package = f"pais_bench.{folder.replace('/', '.')}"
        names = {path.stem for path in TREES if path.parent == Path(folder) and not path.stem.startswith(("_", "base"))}
        trees = {name: TREES[Path(folder, f"{name}.py")] for name in names}
        others = {
            name: [other for other in names - {name} if f"{package}.{other}" in imports(tree)]
            for name, tree in trees.items()
        }
        for name, imported in others.items():
            assert len(imported) <= (folder == "methods"), f"{folder}/{name}"
            for other in imported:
                assert is_base_alone(trees[name], f"{package}.{other}"), f"{folder}/{name}: more than a base"
        TopologicalSorter(others).prepare()


def is_base_alone(tree: ast.AST, module: str) -> bool:
    """Return whether a tree uses a module for nothing but the base classes of its own Options and Method."""
    name = module.rpartition(".")[2]
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    bases = {
        f"{node.name}({ast.unparse(base)})"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for base in node.bases
    }
    names = {one for one in imports(tree) if one.startswith(f"{module}.")}
    return not names and len(uses) == 2 and {f"{part}({name}.{part})" for part in ("Options", "Method")} <= bases


def test_only_its_backend_imports_a_framework() -> None:
    for path, tree in TREES.items():
        frameworks = {name.split(".")[0] for name in imports(tree)} & FRAMEWORKS
        if path.parts[0] == "backends" and len(path.parts) == 3:
            frameworks -= {"mmdet": {"mmdet", "mmcv", "mmengine"}}.get(path.parts[1], {path.parts[1]})
        assert not frameworks, path


def test_rooms_run_where_torch_is_absent() -> None:
    """Import for real, so that no way round through a third module is left."""
    modules = [
        ".".join(("pais_bench", *path.with_suffix("").parts)) for path in TREES if path.parts[0] in WITHOUT_TORCH
    ]
    absent = "".join(f"sys.modules['{name}'] = None\n" for name in sorted(TORCH))
    script = f"import importlib, sys\n{absent}for name in {modules}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", TREES, ids=str)
def test_a_file_is_small_and_says_what_it_does(path: Path) -> None:
    tree = TREES[path]
    assert (PACKAGE / path).read_text().count("\n") <= 300
    first = (ast.get_docstring(tree) or "?").splitlines()[0]
    assert "?" not in first, "the docstring of a module is a statement"
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    assert not [one.name for one in functions if (one.end_lineno or 0) - one.lineno >= 60]
    prints = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print")
    assert path.parts[0] == "cli" or not list(prints), "only the command line prints"
