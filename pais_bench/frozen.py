"""How are options held? As values that know their keys and do not change."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Frozen(BaseModel):
    """Refuse unknown keys, and change after construction."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sparse(Frozen):
    """Write only the keys that are set, so that a new key changes no digest of what does without it."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None}
