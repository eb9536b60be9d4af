"""What starts a run, what it carries, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from runward.contracts.encoding import digest_of
from runward.contracts.transcript import GENESIS, UserMessage, message_digest
from runward.contracts.usage import NANO_USD, Usage

REQUEST_BYTES_MAX = 1024 * 1024  # a start payload must stay well below Temporal's 2 MiB

Output = TypeVar("Output")

EndState = Literal["answered", "interrupted", "cancelled", "failed", "ended"]
RunState = Literal["open"] | EndState


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class RunRequest(_Wire):
    """What a user asks of an agent."""

    agent: str = Field(alias="a")
    prompt: str = Field(alias="p")
    session_id: str = Field("", alias="s")

    @property
    def digest(self) -> str:
        """Returns the digest that the start ticket is bound to."""
        return digest_of({"agent": self.agent, "prompt": self.prompt, "session": self.session_id})

    @property
    def message(self) -> UserMessage:
        """Returns the first message of the conversation."""
        return UserMessage(text=self.prompt)


class Carried(_Wire):
    """What continue-as-new hands on; O(1) in the length of the run."""

    turn: int = Field(alias="t")
    head: str = Field(alias="h")
    new: tuple[str, ...] = Field((), alias="n")
    usage: tuple[int, int, int, int] = Field((0, 0, 0, 0), alias="u")
    cost: int = Field(0, alias="$")
    started_at: datetime = Field(alias="b")
    max_turns: int = Field(alias="m")
    tools: dict[str, tuple[int, int]] = Field(alias="o")


class RunInput(_Wire):
    """The one argument of `AgentRun`; `carried` is there from the second execution on."""

    request: RunRequest = Field(alias="r")
    carried: Carried | None = Field(None, alias="c")


class ModelStep(_Wire):
    """The input of `call_model`: which prefix, and what is new since."""

    turn: int = Field(alias="t")
    head: str = Field(GENESIS, alias="h")
    new: tuple[str, ...] = Field((), alias="n")
    request: RunRequest | None = Field(None, alias="q")  # inline in the first step only


class ToolStep(_Wire):
    """The input of `tool.<name>`: argument text, or the model step that holds it."""

    turn: int = Field(alias="t")
    index: int = Field(alias="x")
    call_id: str = Field(alias="i")
    name: str = Field(alias="n")
    arguments: str | None = Field(None, alias="a")
    digest: str = Field(alias="d")  # of the argument text


class CloseStep(_Wire):
    """The input of `run.close`: how a run ended that did not end with an answer."""

    # Not `answered`, which a model's step proves, nor `ended`, which the sweep finds out.
    state: Literal["interrupted", "cancelled", "failed"] = Field(alias="s")
    reason: str = Field("", alias="r")


class CloseResult(_Wire):
    """What `run.close` found: the run's end, and the answer where the run had one already."""

    state: EndState = Field(alias="s")
    output: str = Field("", alias="o")


class RunEnd(_Wire):
    """What `AgentRun` returns; the client makes a `RunResult` of it."""

    output: str = Field("", alias="o")
    ref: str = Field("", alias="f")  # digest of an answer that is in the store only
    turns: int = Field(alias="t")
    usage: tuple[int, int, int, int] = Field((0, 0, 0, 0), alias="u")
    cost: int = Field(0, alias="$")
    interruption_reason: str = Field("", alias="i")
    started_at: datetime = Field(alias="b")
    finished_at: datetime = Field(alias="e")


class RunStatus(_Wire):
    """What the workflow says of itself when asked."""

    state: Literal["running", "waiting", "parked"] = Field(alias="s")
    turn: int = Field(alias="t")
    usage: tuple[int, int, int, int] = Field((0, 0, 0, 0), alias="u")
    cost: int = Field(0, alias="$")
    waiting_for: tuple[str, ...] = Field((), alias="w")  # approval ids


@dataclass(frozen=True, slots=True)
class RunResult(Generic[Output]):
    """What a user gets of a finished run."""

    output: str
    parsed: Output
    turns: int
    usage: Usage
    cost: Decimal
    interrupted: bool
    interruption_reason: str | None
    started_at: datetime
    finished_at: datetime
    session_id: str
    run_id: str


def usd(nano: int) -> Decimal:
    """Returns nano-USD as dollars."""
    return Decimal(nano) / NANO_USD


def first_message_digest(request: RunRequest) -> str:
    """Returns the digest of the request's message, the only one that is no step's outcome."""
    return message_digest(request.message)
