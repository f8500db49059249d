"""Find plugins by file name: a module in a group's folder is registered by being there."""

from __future__ import annotations

import ast
from pathlib import Path
from types import ModuleType

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

_PACKAGE = Path(__file__).parent


def names(group: str) -> list[str]:
    """Return the names of a group's plugins, sorted; a network is named framework/network."""
    plugins = []
    for folder in GROUPS[group]:
        root = _PACKAGE / folder
        files = (path.relative_to(root).with_suffix("") for path in root.rglob("*.py") if _is_plugin(path))
        plugins += [file.as_posix() for file in files]
    return sorted(plugins)


def load(group: str, name: str) -> ModuleType:
    """Import a plugin; raise BenchError where there is none of that name, or where its framework is missing."""
    path = _find(group, name)
    module = ".".join(("pais_bench", *path.relative_to(_PACKAGE).with_suffix("").parts))
    remedy = "run it in the environment that envs/ defines for it"
    if group == "backends":
        remedy = f"`python3 envs/build.py {name.split('/')[0]}` installs it, and `pais-bench doctor` tells more"
    return import_package(module, remedy, f"{group}/{name}: ")


def option_names(group: str, name: str) -> set[str]:
    """Return the keys of a plugin's class Options, read from its source so that no framework need be imported."""
    return _fields(_find(group, name), "Options")


def learns_stuff(network: str) -> bool:
    """Return whether a network learns classes of stuff: the builder of its Backend, read from source, takes `stuff`."""
    functions = [one for _, inside in _backends(network) for one in inside if one.name == "__init__"]
    return any(argument.arg == "stuff" for one in functions for argument in one.args.args)


def lacks(network: str, function: str) -> bool:
    """Return whether a network's Backend, read from source, is sure to have no function of this name."""
    return any(
        {ast.unparse(base) for base in backend.bases} <= {"Network", "nn.Module"}
        and function not in {one.name for one in inside}
        for backend, inside in _backends(network)
    )


def _backends(network: str) -> list[tuple[ast.ClassDef, list[ast.FunctionDef]]]:
    """Return the class Backend of a network's file, and its functions."""
    tree = ast.parse(_find("backends", network).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Backend"]
    return [(one, [node for node in one.body if isinstance(node, ast.FunctionDef)]) for one in classes]


def _fields(path: Path, class_name: str) -> set[str]:
    """Return the annotated fields of a class and of its base classes that are imported from this package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pais_bench.")
        for alias in node.names
    }
    fields: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            lines = (line.target for line in node.body if isinstance(line, ast.AnnAssign))
            fields |= {target.id for target in lines if isinstance(target, ast.Name)}
            for base in map(ast.unparse, node.bases):
                first, _, attribute = base.partition(".")
                module, name = imported.get(first, ("", first))
                if attribute:  # the class of an imported module
                    module, name = f"{module}.{name}", attribute
                source = _PACKAGE.parent / f"{module.replace('.', '/')}.py" if module else path
                fields |= _fields(source, name) if source.is_file() else set()
    return fields


def _is_plugin(path: Path) -> bool:
    return not path.name.startswith("_") and path.stem != "base"


def _find(group: str, name: str) -> Path:
    for folder in GROUPS[group]:
        path = _PACKAGE / folder / f"{name}.py"  # called for every run of a grid: no folder is listed
        if path.is_file() and _is_plugin(path) and ".." not in name:
            return path
    raise BenchError(f"{group}: there is no '{name}'; choose one of {', '.join(names(group))}")
