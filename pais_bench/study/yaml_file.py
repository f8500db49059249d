"""Read and write YAML as its author means it: UTF-8, no repeated key, and numbers and switches as in YAML 1.2.

PyYAML reads YAML 1.1, in which 010 is 8, 1:30 is 90, `no` is false and 7e-4 is a text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pais_bench.errors import BenchError


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file; raise BenchError that names the file, and the line if possible."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BenchError(f"{path}: not UTF-8, in line {line}; save it in this encoding") from error
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise BenchError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BenchError(f"{path}: not valid YAML: nested too deeply") from error


def to_flow(value: Any) -> str:
    """Return a value as YAML in one line, which read_yaml and readers of YAML 1.1 take for the same value."""
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()


class _Dumper(yaml.SafeDumper):
    """Quote texts that a reader of YAML 1.1 or 1.2 resolves as something else."""


class _Loader(yaml.SafeLoader):
    """Resolve plain values by the core schema of YAML 1.2, and refuse a key that is there twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; keys that a merge (<<) brings may be there again."""
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            try:
                if key in seen:
                    raise yaml.YAMLError(f"the key '{key}' is in line {seen[key]} and in line {line}; remove one")
            except TypeError as error:
                raise yaml.YAMLError(f"the key in line {line} is a list or a mapping; give a text") from error
            seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Build an integer: decimal, 0o17 or 0xf."""
        text = self.construct_scalar(node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
