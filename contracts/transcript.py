"""Messages, and the hash chain that names a conversation by its head.

A message is in Temporal's history once, as the outcome of the step that made it. A model step's
input is the head of its prefix and the digests of what is new; the worker finds the content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from runward.contracts.encoding import digest

GENESIS = digest(b"runward.transcript.v1")


class _Wire(BaseModel):
    """A frozen wire type with compact keys; fields are only ever added, with defaults.

    Users make messages too. The keys stand inside of `Annotated`, where type checkers do not take
    them for the names of arguments.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class ToolCall(_Wire):
    """One call that the model asks for; `arguments` is JSON text exactly as the model wrote it."""

    id: Annotated[str, Field(alias="i")]
    name: Annotated[str, Field(alias="n")]
    arguments: Annotated[str, Field(alias="a")]


class FileRef(_Wire):
    """A file of a message: what is stored under that digest, and what it is."""

    digest: Annotated[str, Field(alias="d")]
    size: Annotated[int, Field(alias="n")]
    media_type: Annotated[str, Field(alias="m")]
    name: Annotated[str, Field(alias="f")] = ""


class UserMessage(_Wire):
    """What the user, or a repair, says to the model; the files are shown to it before the text."""

    kind: Annotated[Literal["user"], Field(alias="k")] = "user"
    text: Annotated[str, Field(alias="t")]
    files: Annotated[tuple[FileRef, ...], Field(alias="f")] = ()


class Reasoning(_Wire):
    """What a model thought on its way to a message: for later calls of its provider, and nobody.

    Only that provider's own file reads `data`, which it wrote.
    """

    provider: Annotated[str, Field(alias="p")]
    data: Annotated[str, Field(alias="d", repr=False)]


class AssistantMessage(_Wire):
    """What the model answered: text, tool calls, or both."""

    kind: Annotated[Literal["assistant"], Field(alias="k")] = "assistant"
    text: Annotated[str, Field(alias="t")] = ""
    calls: Annotated[tuple[ToolCall, ...], Field(alias="c")] = ()
    reasoning: Annotated[Reasoning | None, Field(alias="r")] = None


class ToolMessage(_Wire):
    """What a tool call came to, as the model sees it."""

    kind: Annotated[Literal["tool"], Field(alias="k")] = "tool"
    call_id: Annotated[str, Field(alias="i")]
    name: Annotated[str, Field(alias="n")]
    text: Annotated[str, Field(alias="t")]
    is_error: Annotated[bool, Field(alias="e")] = False


Message = Annotated[UserMessage | AssistantMessage | ToolMessage, Field(discriminator="kind")]
_MESSAGE: TypeAdapter[UserMessage | AssistantMessage | ToolMessage] = TypeAdapter(Message)


def encode_message(message: Message) -> bytes:
    """Returns the message's bytes, the ones that are hashed and stored."""
    left_out: set[str] | None = None
    # What is not there leaves no trace: bytes and digest are those from before it could be.
    if isinstance(message, UserMessage) and not message.files:
        left_out = {"files"}
    elif isinstance(message, AssistantMessage) and message.reasoning is None:
        left_out = {"reasoning"}
    # As JSON text it holds neither a lone surrogate nor a NUL.
    return message.model_dump_json(by_alias=True, exclude=left_out).encode()


def decode_message(data: bytes | str) -> Message:
    """Returns the message that `encode_message` wrote; a ValidationError if it is none."""
    return _MESSAGE.validate_json(data)


def message_digest(message: Message) -> str:
    """Returns the digest by which a step names this message."""
    return digest(encode_message(message))


def extend(head: str, digests: Iterable[str]) -> str:
    """Returns the head after appending messages: head_i = H(head_{i-1} || len || H(message_i))."""
    for item in digests:
        raw = item.encode()
        head = digest(head.encode() + len(raw).to_bytes(8, "big") + raw)
    return head


def head_of(messages: Iterable[Message]) -> str:
    """Returns the head of a whole conversation."""
    return extend(GENESIS, map(message_digest, messages))


def short_tag(text: str, key: bytes = b"") -> str:
    """Returns a keyed 16-character tag for a name that must not appear in the clear."""
    return hashlib.blake2b(text.encode(), key=key, digest_size=8).hexdigest()
