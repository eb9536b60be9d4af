"""What starts a run, what it carries, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from runward.contracts.encoding import digest_of
from runward.contracts.outcomes import Ref
from runward.contracts.output import InvalidOutput
from runward.contracts.transcript import GENESIS, FileRef, UserMessage, message_digest
from runward.contracts.usage import NANO_USD, Usage

REQUEST_BYTES_MAX = 1024 * 1024  # a start payload must stay well below Temporal's 2 MiB
REQUEST_INLINE_BYTES_MAX = 64 * 1024  # it is in history twice; above, a client with a store puts it
PROMPT_BYTES_MAX = 16 * 1024 * 1024  # of its message: four million tokens, more than models take

Output = TypeVar("Output")

EndState = Literal["answered", "interrupted", "cancelled", "failed", "ended"]
RunState = Literal["open"] | EndState


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")


class RunRequest(_Wire):
    """What a user asks of an agent; `ref` stands for a message too long to be in history."""

    agent: str = Field(alias="a")
    prompt: str = Field("", alias="p")
    session_id: str = Field("", alias="s")
    files: tuple[FileRef, ...] = Field((), alias="f")
    ref: Ref | None = Field(None, alias="r")

    @property
    def digest(self) -> str:
        """Returns the digest that the start ticket is bound to."""
        asked = {"agent": self.agent, "session": self.session_id}
        if self.ref is None and not self.files:  # as ever: a digest outlives its version
            return digest_of(asked | {"prompt": self.prompt})
        return digest_of(asked | {"message": first_message_digest(self)})

    @property
    def message(self) -> UserMessage:
        """Returns the first message of the conversation, which is not by reference."""
        assert self.ref is None, "a message by reference is in the store only"
        return UserMessage(text=self.prompt, files=self.files)


class Carried(_Wire):
    """What continue-as-new hands on; O(1) in the length of the run."""

    turn: int = Field(alias="t")
    head: str = Field(alias="h")
    new: tuple[str, ...] = Field((), alias="n")
    usage: tuple[int, int, int, int] = Field((0, 0, 0, 0), alias="u")
    cost: int = Field(0, alias="$")
    started_at: datetime = Field(alias="b")
    max_turns: int = Field(alias="m")
    tools: dict[str, tuple[int, int]] = Field(default_factory=dict, alias="o")  # as in `Opened`
    fallback_models: tuple[str, ...] = Field((), alias="f")


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
    again: bool = Field(False, alias="g")  # the step was called before, and waited for a budget


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
    fallback_models: tuple[str, ...] = Field((), alias="m")


class InvalidEnd(_Wire):
    """What the failure of a run says whose answer is not of the agent's output type."""

    output: str = Field("", alias="o")
    ref: str = Field("", alias="f")  # as in `RunEnd`
    invalid: InvalidOutput = Field(alias="v")


class RunStatus(_Wire):
    """What a run does now, or how it ended.

    While it goes on its workflow says so when asked; of a run that has ended the client makes it,
    so states of ends never cross. `reason` is why it is parked, or ended without an answer.
    `usage` is what `Usage` holds, in its order; `cost` is in nano-USD.
    """

    state: Literal["running", "waiting", "parked"] | EndState = Field(alias="s")
    turn: int = Field(alias="t")
    usage: tuple[int, int, int, int] = Field((0, 0, 0, 0), alias="u")
    cost: int = Field(0, alias="$")
    waiting_for: tuple[str, ...] = Field((), alias="w")  # approval ids
    reason: str = Field("", alias="r")


@dataclass(frozen=True, slots=True)
class RunResult(Generic[Output]):
    """What a user gets of a finished run.

    `fallback_models` are those that answered in the place of the agent's own, in the order of their
    first answers; it is empty where the agent's own model gave every answer.
    """

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
    fallback_models: tuple[str, ...] = ()


def usd(nano: int) -> Decimal:
    """Returns nano-USD as dollars."""
    return Decimal(nano) / NANO_USD


def first_message_digest(request: RunRequest) -> str:
    """Returns the digest of the request's message, the only one that is no step's outcome."""
    return message_digest(request.message) if request.ref is None else request.ref.digest
