"""The one byte encoding of what is hashed or stored, and the digests over it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson

# Only JSON's own types: what is hashed must not depend on how a library writes a date.
_SORTED = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def canonical(value: Any) -> bytes:
    """Returns the value as compact UTF-8 JSON with sorted keys; a TypeError for anything else.

    Hand it strings, 64-bit integers, booleans and None under ASCII keys: for those two encoders
    cannot differ, and these are the bytes of RFC 8785. `?` stands for a lone surrogate.
    """
    try:
        return orjson.dumps(value, option=_SORTED)
    except orjson.JSONEncodeError:
        return orjson.dumps(_without_surrogates(value), option=_SORTED)  # if it was one of them


def clean(text: str) -> str:
    """Returns the text with `?` for lone surrogates and U+FFFD for NUL.

    UTF-8 cannot hold the first, PostgreSQL's text not the second.
    """
    if text.isascii() and "\x00" not in text:
        return text
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def is_clean(text: str) -> bool:
    """Returns whether UTF-8 and PostgreSQL's text can hold this as it is."""
    return clean(text) == text


def digest(data: bytes) -> str:
    """Returns the SHA-256 of the bytes in base64url, 43 characters."""
    return encoded_digest(hashlib.sha256(data).digest())


def encoded_digest(hashed: bytes) -> str:
    """Returns a SHA-256 as `digest` writes it; for what is hashed a piece at a time."""
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def digest_of(value: Any) -> str:
    """Returns the digest of the value's canonical encoding."""
    return digest(canonical(value))


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {name: _without_surrogates(one) for name, one in value.items()}
        case list() | tuple():
            return [_without_surrogates(one) for one in value]
        case _:
            return value
