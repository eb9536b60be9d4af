"""The one byte encoding of what is hashed or stored, and the digests over it."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

DIGEST_CHARS = 43  # a SHA-256 in base64url without padding


def canonical(value: Any) -> bytes:
    """Returns the value as compact UTF-8 JSON with sorted keys.

    Hand it strings, integers, booleans and None under ASCII keys: for those two encoders cannot
    differ, and these are the bytes of RFC 8785.
    """
    return clean(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False,
                            allow_nan=False, default=_refuse)).encode()  # fmt: skip


def clean(text: str) -> str:
    """Returns the text with `?` for lone surrogates and U+FFFD for NUL.

    UTF-8 cannot hold the first, PostgreSQL's text not the second.
    """
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def digest(data: bytes) -> str:
    """Returns the SHA-256 of the bytes in base64url, 43 characters."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def digest_of(value: Any) -> str:
    """Returns the digest of the value's canonical encoding."""
    return digest(canonical(value))


def _refuse(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} has no canonical encoding")
