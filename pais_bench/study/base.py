"""Hold options as values that know their keys and do not change, and describe what is wrong with a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from pais_bench.errors import BenchError

Model = TypeVar("Model", bound=BaseModel)


class StrictConfig(BaseModel):
    """Refuse unknown keys, numbers that are not finite, true and false for a number, and change after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse booleans where no bool is declared; pydantic would read 0 and 1."""
        values = value if isinstance(value, (list, tuple)) else (value,)
        declared = str(cls.model_fields[str(info.field_name)].annotation)
        if any(type(part) is bool for part in values) and not re.search(r"\bbool\b|\bAny\b", declared):
            raise ValueError("true and false are no value of it")
        return value


class CompactConfig(StrictConfig):
    """Write only the keys that are set, so that a new key changes no digest of what does without it."""

    @model_serializer(mode="wrap")
    def _omit_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None}


def each_once(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Return values; raise ValueError where two are equal, or are numbers with the same name in a path (%g)."""
    seen: dict[str, Any] = {}
    for value in values or ():
        name = f"{value:g}" if isinstance(value, float) else str(value)
        if name in seen:
            same = f"{seen[name]!r} and {value!r} have the same name" if seen[name] != value else f"{name} is repeated"
            raise ValueError(f"{same}; give each once")
        seen[name] = value
    return values


def rising(ends: tuple[float, float]) -> tuple[float, float]:
    """Return the ends of a range; raise ValueError where the larger one is first."""
    if ends[0] > ends[1]:
        raise ValueError(f"the range is empty; give [{ends[1]:g}, {ends[0]:g}]")
    return ends


def parse(model: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Validate values against a model; raise one BenchError that lists every fault by its key."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise BenchError(f"{source}: {'; '.join(_sentences(error, model))}") from error


def _sentences(error: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    places = [fault["loc"] for fault in error.errors()]
    for fault in error.errors():
        if fault["type"] == "too_short" and any(len(place) > len(fault["loc"]) for place in places):
            continue  # it counts the valid parts alone, of which another sentence says what is wrong
        key = ".".join(str(part) for part in fault["loc"]) or model.__name__
        if fault["type"] == "extra_forbidden":
            known = f"; known keys here: {', '.join(model.model_fields)}" if len(fault["loc"]) == 1 else ""
            yield f"unknown key '{key}'{known}"
        elif fault["type"] == "missing":
            yield f"missing key '{key}'"
        else:
            yield f"'{key}': {fault['msg'][0].lower()}{fault['msg'][1:]}, got {json.dumps(fault['input'], default=str)}"
