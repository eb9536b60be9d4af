"""What becomes of a tool's result: the model sees it, or its beginning, or why it is refused.

A result that is cut is stored as a whole. Nothing here makes a second copy of a large one.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import orjson
from pydantic_core import to_json

from runward.contracts.content import CONTENT_BYTES_MAX, Content
from runward.contracts.encoding import clean
from runward.contracts.outcomes import Failed, Ref, ToolDone

RESULT_SHOWN_BYTES_MAX = 1024 * 1024  # a quarter of a million tokens, more than most models take
RESULT_BYTES_MAX = CONTENT_BYTES_MAX
CUT_BYTES = 32 * 1024  # of a longer result; some 8,000 tokens, enough to see what it is
# orjson writes into the bytes that it returns, and pydantic into a buffer that it then copies. It
# gets what both write alike.
_PLAIN = (
    orjson.OPT_PASSTHROUGH_DATETIME
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_CHARS_SURELY_SHOWN = RESULT_SHOWN_BYTES_MAX // 4  # a character has at most four bytes


class Cut(NamedTuple):
    """A result of which the model sees the beginning, and the whole of it."""

    done: ToolDone
    whole: Content


def encoded(value: Any) -> str | bytes:
    """Returns a result as text, or as JSON; what pydantic cannot encode raises its error."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, option=_PLAIN)
    except orjson.JSONEncodeError:  # models, dates and whatever else pydantic knows how to write
        return to_json(value)


async def shown(tool: str, text: str | bytes) -> ToolDone | Cut | Failed:
    """Returns what the model sees of a result that `encoded` wrote."""
    if len(text) <= _CHARS_SURELY_SHOWN:
        return _done(text)
    content = await asyncio.to_thread(Content, text)
    if content.size > RESULT_BYTES_MAX:
        return Failed(
            reason=f"{tool}: its result has {content.size} bytes, at most {RESULT_BYTES_MAX} can be"
            " stored. It may have had its effect; ask for less, or have the tool write to a file"
        )
    if content.size <= RESULT_SHOWN_BYTES_MAX:
        return _done(text)
    said = (
        f"{content.head(CUT_BYTES)}\n[CUT: the result has {content.size} bytes and goes on here."
        f" All of it is stored as {content.digest}]"
    )
    full = Ref(digest=content.digest, size=content.size)
    return Cut(ToolDone(text=said, full=full), content)


def _done(text: str | bytes) -> ToolDone:
    return ToolDone(text=clean(text if isinstance(text, str) else text.decode()))
