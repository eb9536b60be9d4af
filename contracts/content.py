"""Content as it is put into the store: bytes under their digest, a slice at a time.

Nobody who stores large content needs a second copy of it. Text is encoded and hashed slice by
slice, and cleaned as all text that is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from runward.contracts.encoding import clean, encoded_digest

CHUNK_BYTES = 1024 * 1024  # of one row and one statement; the same number stands in the schema
CONTENT_BYTES_MAX = 64 * 1024 * 1024  # so does this one
_SLICE_CHARS = CHUNK_BYTES // 4  # a character has at most four bytes


class Changed(Exception):
    """Stored content is not what its digest names, or went while it was read."""


class Content:
    """Text or bytes with the size and the digest of what is stored of it.

    It holds the value, and no copy. To make one of 50 MB takes a tenth of a second: call it in a
    thread where others wait.
    """

    __slots__ = ("_value", "digest", "size")

    def __init__(self, value: str | bytes) -> None:
        self._value = value
        hashed, self.size = hashlib.sha256(), 0
        for piece in self._pieces():
            hashed.update(piece)
            self.size += len(piece)
        self.digest = encoded_digest(hashed.digest())

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes in chunks of `CHUNK_BYTES`; the last one may be shorter."""
        held = bytearray()
        for piece in self._pieces():
            held += piece
            while len(held) >= CHUNK_BYTES:
                yield bytes(held[:CHUNK_BYTES])
                del held[:CHUNK_BYTES]
        if held:
            yield bytes(held)

    def head(self, size: int) -> str:
        """Returns the text of the first so many bytes, without half a character at its end."""
        given = self._value[:size]
        data = given if isinstance(given, bytes) else clean(given).encode()
        return data[:size].decode("utf-8", "ignore")

    def _pieces(self) -> Iterator[bytes]:
        value: Any = self._value
        if isinstance(value, str):
            for at in range(0, len(value), _SLICE_CHARS):
                yield clean(value[at : at + _SLICE_CHARS]).encode()
        else:
            for at in range(0, len(value), CHUNK_BYTES):
                yield value[at : at + CHUNK_BYTES]
