"""What a step comes to: one tagged union, wrapped by the worker, unwrapped in the workflow.

Only final outcomes are recorded: `ModelDone`, `ToolDone`, `Denied`, `Failed`, `Unknown`. The other
two leave the step open. Keys are compact because every byte here is in history for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from runward.contracts.approvals import ApprovalRequest
from runward.contracts.audit import leaf_hash
from runward.contracts.encoding import canonical, digest
from runward.contracts.output import InvalidOutput
from runward.contracts.transcript import (
    AssistantMessage,
    ToolMessage,
    UserMessage,
    message_digest,
)
from runward.contracts.usage import Usage

MESSAGE_INLINE_BYTES_MAX = 16 * 1024  # above it content goes by reference, far from 2 MiB payloads
# Above it a message is stored before its step is recorded: in the statement that records a batch of
# steps it would have all of them wait. At this size two commits more are a small share of the work.
MESSAGE_RECORDED_BYTES_MAX = 256 * 1024
ARGUMENTS_INLINE_BYTES_MAX = 4 * 1024
PREVIEW_CHARS = 256
NO_TOOL = -1  # in `ModelDone.limits`: the agent has no tool of that name


class _Outcome(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class Ref(_Outcome):
    """Content that is in the store only: the message's digest, its size, how it begins."""

    digest: str = Field(alias="d")
    size: int = Field(alias="n")
    preview: str = Field("", alias="p")


class CallStub(_Outcome):
    """A call of a message that went by reference: its arguments only by digest."""

    id: str = Field(alias="i")
    name: str = Field(alias="n")
    digest: str = Field(alias="d")


class Opened(_Outcome):
    """What the first step tells the loop."""

    max_turns: int = Field(alias="t")
    # name -> (timeout in s, retries); only in histories from before `ModelDone.limits`
    tools: dict[str, tuple[int, int]] = Field(default_factory=dict, alias="o")
    transcript_version: int = Field(1, alias="v")


class ModelDone(_Outcome):
    """A model answered. `message` is inline, or `ref` and `stubs` stand for it."""

    kind: Literal["m"] = Field("m", alias="k")
    message: AssistantMessage | None = Field(None, alias="m")
    ref: Ref | None = Field(None, alias="r")
    stubs: tuple[CallStub, ...] = Field((), alias="c")
    usage: tuple[int, int, int, int] = Field((0, 0, 0, 0), alias="u")
    cost: int = Field(0, alias="$")  # nano-USD
    stop: str = Field("end", alias="s")
    leaf: str = Field("", alias="l")
    opened: Opened | None = Field(None, alias="o")
    # Of each call the tool's timeout in s, or NO_TOOL: never those of tools that nobody called.
    limits: tuple[int, ...] = Field((), alias="w")
    # Of an answer that is not of the agent's output type: what the model is told next, or, where
    # it was told once already, why the run ends with it as failed.
    repair: str = Field("", alias="q")
    invalid: InvalidOutput | None = Field(None, alias="i")

    model: str = Field("", alias="a")  # the fallback that answered; "" is the agent's own model
    tries: int = Field(1, alias="t")  # of the call, the one that succeeded included

    @property
    def digest(self) -> str:
        """Returns the digest of the assistant's message."""
        if self.message is not None:
            return message_digest(self.message)
        assert self.ref is not None, "a ModelDone has a message or a reference to one"
        return self.ref.digest

    @property
    def repair_message(self) -> UserMessage | None:
        """Returns what follows the answer in the conversation, None where nothing needs to."""
        return UserMessage(text=self.repair) if self.repair else None

    @property
    def counters(self) -> Usage:
        """Returns the usage in named counters."""
        return Usage(*self.usage)


class ToolDone(_Outcome):
    """A tool answered; `text` is inline, or `ref` stands for the whole tool message."""

    kind: Literal["t"] = Field("t", alias="k")
    text: str | None = Field(None, alias="t")
    is_error: bool = Field(False, alias="e")
    ref: Ref | None = Field(None, alias="r")
    # The whole of a result that the model sees the beginning of: the digest and size of its bytes.
    full: Ref | None = Field(None, alias="f")
    leaf: str = Field("", alias="l")


class Denied(_Outcome):
    """The call did not run, and will not."""

    kind: Literal["x"] = Field("x", alias="k")
    reason: str = Field(alias="r")
    leaf: str = Field("", alias="l")
    opened: Opened | None = Field(None, alias="o")


class Failed(_Outcome):
    """The call ran and failed for good; the reason is fit for the model and the user."""

    kind: Literal["f"] = Field("f", alias="k")
    reason: str = Field(alias="r")
    leaf: str = Field("", alias="l")


class Unknown(_Outcome):
    """The call may or may not have had its effect: its worker died inside, or its time ran out."""

    kind: Literal["u"] = Field("u", alias="k")
    reason: str = Field(alias="r")
    leaf: str = Field("", alias="l")


class NeedsApproval(_Outcome):
    """The call waits for a person; the step stays open."""

    kind: Literal["n"] = Field("n", alias="k")
    request: ApprovalRequest = Field(alias="q")


class OverBudget(_Outcome):
    """A cap is reached; `until` is when its window turns, None for a run's own cap."""

    kind: Literal["b"] = Field("b", alias="k")
    reason: str = Field(alias="r")
    until: datetime | None = Field(None, alias="w")
    park: bool = Field(False, alias="p")


Outcome = Annotated[
    ModelDone | ToolDone | Denied | Failed | Unknown | NeedsApproval | OverBudget,
    Field(discriminator="kind"),
]
Final = ModelDone | ToolDone | Denied | Failed | Unknown
AnyOutcome = Final | NeedsApproval | OverBudget

# Built once per process: a TypeAdapter per run would cost more than the step (0.24 ms).
_OUTCOME: TypeAdapter[AnyOutcome] = TypeAdapter(Outcome)


def encode_outcome(outcome: AnyOutcome) -> bytes:
    """Returns the outcome's bytes: what is returned to Temporal, and hashed."""
    return canonical(_body(outcome))


def seal(outcome: Final, record: Callable[[str], bytes]) -> tuple[bytes, bytes]:
    """Returns the bytes that are stored and returned, and the leaf that they are sealed with.

    `record` makes the audit leaf that commits to the digest of the bytes without it; then the
    leaf's hash enters them.
    """
    body = _body(outcome)
    leaf = record(digest(canonical(body)))
    body["l"] = leaf_hash(leaf)
    return canonical(body), leaf


def _body(outcome: AnyOutcome) -> dict[str, Any]:
    body = outcome.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    body["k"] = outcome.kind
    return body


def decode_outcome(data: bytes) -> AnyOutcome:
    """Returns the outcome that `encode_outcome` wrote."""
    return _OUTCOME.validate_json(data)


def tool_message(call_id: str, name: str, outcome: AnyOutcome) -> ToolMessage:
    """Returns what the model sees of a tool step; the same in the workflow and in the worker."""
    match outcome:
        case ToolDone(text=str(text)):
            return ToolMessage(call_id=call_id, name=name, text=text, is_error=outcome.is_error)
        case Denied(reason=reason):
            return ToolMessage(call_id=call_id, name=name, text=f"DENIED: {reason}", is_error=True)
        case Failed(reason=reason):
            return ToolMessage(call_id=call_id, name=name, text=f"FAILED: {reason}", is_error=True)
        case Unknown(reason=reason):
            return ToolMessage(call_id=call_id, name=name, text=f"UNKNOWN: {reason}", is_error=True)
        case OverBudget(reason=reason):
            return ToolMessage(call_id=call_id, name=name, text=f"DENIED: {reason}", is_error=True)
        case _:
            raise TypeError(f"{type(outcome).__name__} is not something a model sees")


def tool_digest(call_id: str, name: str, outcome: AnyOutcome) -> str:
    """Returns the digest of a tool step's message; of a reference, the one it names."""
    if isinstance(outcome, ToolDone) and outcome.ref is not None:
        return outcome.ref.digest
    return message_digest(tool_message(call_id, name, outcome))


def effect_digest_v1(tool: str, schema_digest: str, arguments_digest: str) -> str:
    """Returns the digest of exactly what a tool call will run (version 1, frozen)."""
    return digest(f"tool\x1f{tool}\x1f{schema_digest}\x1f{arguments_digest}".encode())


def model_digest_v1(prefix_head: str, new: tuple[str, ...]) -> str:
    """Returns the digest of exactly what a model call will see (version 1, frozen)."""
    return digest("\x1f".join(("model", prefix_head, *new)).encode())
