"""How wire types become the bytes of a payload, whatever data converter the user has."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

Wire = TypeVar("Wire", bound=BaseModel)

JSON_PLAIN = {"encoding": b"json/plain"}


def encode_wire(value: BaseModel) -> bytes:
    """Returns the value as compact JSON: short keys, defaults left out."""
    # As JSON text it holds neither a lone surrogate nor a NUL.
    return value.model_dump_json(by_alias=True, exclude_defaults=True).encode()


def decode_wire(kind: type[Wire], data: bytes) -> Wire:
    """Returns the value that `encode_wire` wrote; a ValidationError if it is none."""
    return kind.model_validate_json(data)
