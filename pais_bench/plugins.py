"""Find plugins by file name: a module in a group's folder is registered by being there."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import PydanticUserError

from pais_bench.errors import BenchError
from pais_bench.optional_packages import import_package

GROUPS: dict[str, tuple[str, ...]] = {
    "backends": ("backends",),
    "commands": ("cli/commands",),
    "converters": ("converters/formats",),
    "datasets": ("datasets",),
    "families": ("splits/families",),
    "loggers": ("loggers",),
    "methods": ("methods",),
    "metrics": ("evaluation/metrics",),
    "reports": ("reports/tables", "reports/figures"),
}
"""The folders of each group, below the package. Files that begin with _, and base.py, are shared by the plugins."""

CLASSES = {
    "backends": ("Options", "Backend"),
    "datasets": ("Options", "Dataset"),
    "methods": ("Options", "Method"),
    "metrics": ("Metric",),
}
"""The classes that a plugin of a group has."""

_PACKAGE = Path(__file__).parent

Lineage = list[tuple[Path, ast.ClassDef]]
"""Classes, each with its file."""


def names(group: str) -> list[str]:
    """Return the names of a group's plugins, sorted; a network is named framework/network.

    Raises BenchError where two folders have a file of one name.
    """
    folder_of: dict[str, str] = {}
    for folder in GROUPS[group]:
        root = _PACKAGE / folder
        for name in (
            path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.py") if _is_plugin(path)
        ):
            if name in folder_of:
                raise BenchError(
                    f"{group}: both {folder_of[name]} and {folder} have a file '{name}.py'; rename one of the two"
                )
            folder_of[name] = folder
    return sorted(folder_of)


def load(group: str, name: str) -> ModuleType:
    """Import a plugin.

    Raises BenchError where there is none of that name, its framework is missing, it lacks one of CLASSES, or an option
    has no type.
    """
    path = _find(group, name)
    module = ".".join(("pais_bench", *path.relative_to(_PACKAGE).with_suffix("").parts))
    remedy = "run it in the environment that envs/ defines for it"
    if group == "backends":
        remedy = f"`python3 envs/build.py {name.split('/')[0]}` installs it, and `pais-bench doctor` tells more"
    try:
        plugin = import_package(module, remedy, f"{group}/{name}: ")
    except PydanticUserError:
        option_names(group, name)  # refuses an option without a type, by its file
        raise
    if missing := [one for one in CLASSES.get(group, ()) if not hasattr(plugin, one)]:
        raise BenchError(
            f"{group}/{name}: has no class {' and no class '.join(missing)}; add it, or let the name of the file begin "
            f"with _, as that of every file that plugins share"
        )
    return plugin


def build(group: str, name: str, options: Mapping[str, Any], *arguments: Any) -> Any:
    """Build a method or a dataset from the options that a study has for it, and the arguments after them."""
    plugin = load(group, name)
    return getattr(plugin, CLASSES[group][1])(plugin.Options(**options), *arguments)


def option_names(group: str, name: str) -> set[str]:
    """Return the keys of a plugin's class Options, read from its source so that no framework need be imported.

    Raises BenchError for an option without a type.
    """
    classes, _ = _lineage(_find(group, name), "Options")
    for path, one in classes:
        _require_types(path, one)
    lines = (line.target for _, one in classes for line in one.body if isinstance(line, ast.AnnAssign))
    return {target.id for target in lines if isinstance(target, ast.Name)}


def _require_types(path: Path, options: ast.ClassDef) -> None:
    """Raise BenchError for an attribute of a class of options without a type, which pydantic would refuse."""
    for line in options.body:
        if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
            continue
        field, value = line.targets[0].id, ast.unparse(line.value)
        called = value.startswith("Field(") or not isinstance(line.value, ast.Call)  # not a property, not a validator
        if called and not field.startswith("_") and field != "model_config":
            raise BenchError(
                f"{path.relative_to(_PACKAGE)}: the option '{field}' of {options.name} has no type; write it as "
                f"`{field}: float = {value}`, with the type that it has"
            )


def learns_stuff(network: str) -> bool:
    """Return whether a network learns classes of stuff: the builder of its Backend, read from source, takes `stuff`."""
    classes, _ = _lineage(_find("backends", network), "Backend")
    builders = [one for one in _functions(classes) if one.name == "__init__"]
    return any(argument.arg == "stuff" for one in builders[:1] for argument in one.args.args)


def lacks(network: str, function: str) -> bool:
    """Return whether a network's Backend, read from source, is sure to have no function of this name."""
    classes, foreign = _lineage(_find("backends", network), "Backend")
    return foreign <= {"nn.Module", "Protocol"} and function not in {one.name for one in _functions(classes)}


def _functions(classes: Lineage) -> list[ast.FunctionDef]:
    return [node for _, one in classes for node in one.body if isinstance(node, ast.FunctionDef)]


def _lineage(path: Path, name: str) -> tuple[Lineage, set[str]]:
    """Return a class of a file and those of this package that it derives from, itself first, and its other bases.

    A name that is set to a class, or imported, is that class.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pais_bench.")
        for alias in node.names
    }
    classes = [(path, node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    bases = [ast.unparse(base) for _, one in classes for base in one.bases]
    for node in tree.body:
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            bases.append(ast.unparse(node.value))
    if name in imported:
        bases.append(name)
    foreign = set() if classes or bases else {name}
    for base in bases:
        first, _, attribute = base.partition(".")
        module, found = imported.get(first, ("", first))
        if attribute:  # the class of an imported module
            module, found = f"{module}.{found}", attribute
        source = _PACKAGE.parent / f"{module.replace('.', '/')}.py" if module else path
        more, others = _lineage(source, found) if source.is_file() else ([], {base})
        classes, foreign = classes + more, foreign | others
    return classes, foreign


def _is_plugin(path: Path) -> bool:
    return not path.name.startswith("_") and path.stem != "base"


def _find(group: str, name: str) -> Path:
    for folder in GROUPS[group]:
        path = _PACKAGE / folder / f"{name}.py"  # called for every run of a grid: no folder is listed
        if path.is_file() and _is_plugin(path) and ".." not in name:
            return path
    raise BenchError(f"{group}: there is no '{name}'; choose one of {', '.join(names(group))}")
