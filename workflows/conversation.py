"""What the loop keeps of a conversation: its head and counters, never its content."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from runward.contracts.encoding import digest
from runward.contracts.outcomes import (
    ARGUMENTS_INLINE_BYTES_MAX,
    NO_TOOL,
    AnyOutcome,
    ModelDone,
    tool_digest,
)
from runward.contracts.runs import (
    Carried,
    ModelStep,
    RunEnd,
    RunInput,
    RunRequest,
    ToolStep,
    first_message_digest,
)
from runward.contracts.transcript import GENESIS, extend, message_digest
from runward.contracts.usage import Usage

MAX_TURNS_UNTIL_OPENED = 1  # the first outcome brings the agent's own limit


@dataclass(slots=True)
class Conversation:
    """The state of the loop; O(1) in the number of turns."""

    request: RunRequest
    started_at: datetime
    turn: int = 0
    head: str = GENESIS
    new: tuple[str, ...] = ()
    usage: Usage = field(default_factory=Usage)
    cost: int = 0
    max_turns: int = MAX_TURNS_UNTIL_OPENED
    tools: dict[str, tuple[int, int]] = field(default_factory=dict)
    limits: tuple[int, ...] = ()  # of the calls of this turn
    fallback_models: tuple[str, ...] = ()  # that answered, in the order of their first answers

    @classmethod
    def begin(cls, start: RunInput, now: datetime) -> Conversation:
        """Returns the conversation of a new run, or of one that continued as new."""
        carried = start.carried
        if carried is None:
            return cls(start.request, now, new=(first_message_digest(start.request),))
        return cls(
            start.request,
            carried.started_at,
            carried.turn,
            carried.head,
            carried.new,
            Usage(*carried.usage),
            carried.cost,
            carried.max_turns,
            carried.tools,
            fallback_models=carried.fallback_models,
        )

    def carry(self) -> RunInput:
        """Returns what continue-as-new needs; the prompt is a message like any other by now."""
        carried = Carried(
            turn=self.turn,
            head=self.head,
            new=self.new,
            usage=self._counters(),
            cost=self.cost,
            started_at=self.started_at,
            max_turns=self.max_turns,
            tools=self.tools,
            fallback_models=self.fallback_models,
        )
        request = self.request.model_copy(update={"prompt": ""})
        return RunInput(request=request, carried=carried)

    def model_step(self, *, again: bool = False) -> ModelStep:
        """Returns the input of this turn's model step."""
        first = self.turn == 1
        return ModelStep(
            turn=self.turn,
            head=self.head,
            new=self.new,
            request=self.request if first else None,
            again=again,
        )

    def answered(self, done: ModelDone) -> tuple[ToolStep, ...]:
        """Returns the calls that the model asks for, after taking its message and its bill in."""
        if done.opened is not None:
            self.max_turns, self.tools = done.opened.max_turns, done.opened.tools
        self.limits = done.limits
        if done.model and done.model not in self.fallback_models:
            self.fallback_models += (done.model,)
        self.usage += done.counters
        self.cost += done.cost
        self.head = extend(self.head, (*self.new, done.digest))
        if done.repair_message is not None:
            self.head = extend(self.head, (message_digest(done.repair_message),))
        self.new = ()
        return self._calls(done)

    def _calls(self, done: ModelDone) -> tuple[ToolStep, ...]:
        if done.message is None:
            stubs: list[tuple[str, str, str | None, str]] = [
                (stub.id, stub.name, None, stub.digest) for stub in done.stubs
            ]
        else:
            stubs = [
                (call.id, call.name, _inline(call.arguments), digest(call.arguments.encode()))
                for call in done.message.calls
            ]
        return tuple(
            ToolStep(
                turn=self.turn, index=index, call_id=one, name=name, arguments=text, digest=hashed
            )
            for index, (one, name, text, hashed) in enumerate(stubs)
        )

    def heard(self, calls: tuple[ToolStep, ...], outcomes: list[AnyOutcome]) -> None:
        """Takes the tools' messages in, in the order of the calls."""
        self.new = tuple(
            tool_digest(call.call_id, call.name, outcome)
            for call, outcome in zip(calls, outcomes, strict=True)
        )

    def timeout_s(self, call: ToolStep) -> int | None:
        """Returns the bound of the call's body in seconds, None for a tool that is not there."""
        if self.limits:
            limit = self.limits[call.index]
            return None if limit == NO_TOOL else limit
        known = self.tools.get(call.name)
        return None if known is None else known[0]

    def end(self, now: datetime, *, output: str = "", ref: str = "", reason: str = "") -> RunEnd:
        """Returns the run's end as the workflow's result."""
        return RunEnd(
            output=output,
            ref=ref,
            turns=self.turn,
            usage=self._counters(),
            cost=self.cost,
            interruption_reason=reason,
            started_at=self.started_at,
            finished_at=now,
            fallback_models=self.fallback_models,
        )

    def _counters(self) -> tuple[int, int, int, int]:
        used = self.usage
        return (used.input, used.cache_read, used.cache_write, used.output)


def _inline(arguments: str) -> str | None:
    return arguments if len(arguments.encode()) <= ARGUMENTS_INLINE_BYTES_MAX else None
