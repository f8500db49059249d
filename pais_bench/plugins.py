"""What is on a shelf? A module in the folder IS its registration."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

from pais_bench.types import BenchError

SHELVES = ("methods", "backends", "datasets", "metrics", "reports", "families", "verbs")
_PACKAGE = Path(__file__).parent


def names(shelf: str) -> list[str]:
    """List a shelf's plugins, sorted; a network is named framework/network."""
    root = _PACKAGE / shelf
    files = (path.relative_to(root).with_suffix("") for path in root.rglob("[!_]*.py"))
    return sorted(path.as_posix() for path in files)


def load(shelf: str, name: str) -> ModuleType:
    """Import a plugin; raise BenchError where there is none of that name, or where its framework is missing."""
    _require(shelf, name)
    try:
        return importlib.import_module(f"pais_bench.{shelf}.{name.replace('/', '.')}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pais_bench"):
            raise
        remedy = "run it in the environment that envs/ defines for it"
        if shelf == "backends":
            remedy = f"`python3 envs/build.py {name.split('/')[0]}` installs it, and `pais-bench doctor` tells more"
        raise BenchError(
            f"{shelf}/{name}: the package '{error.name}' is not installed in this environment; {remedy}"
        ) from error


def option_names(shelf: str, name: str) -> set[str]:
    """Read the keys of a plugin's class Options from its source, so that no framework need be imported."""
    tree = ast.parse(_require(shelf, name).read_text())
    options = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options")
    return {
        line.target.id
        for node in options
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def _require(shelf: str, name: str) -> Path:
    path = _PACKAGE / shelf / f"{name}.py"  # asked for every run of a grid: no shelf is listed
    if not path.is_file() or path.name.startswith("_") or ".." in name:
        raise BenchError(f"{shelf}: there is no '{name}'; choose one of {', '.join(names(shelf))}")
    return path
