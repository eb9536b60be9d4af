"""A model provider that plays scripts: no network, the same answer every time, exact usage.

For the demo, tests and benches. Which turn plays is read from the conversation (its number of
assistant messages), never from state, so that a retry or another worker gets the same answer.
Only faults are counted, per idempotency key, in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runward.activities.provider_errors import status_error
from runward.activities.scripted_ledger import Bill, Ledger, MemoryLedger
from runward.contracts.encoding import canonical
from runward.contracts.providers import (
    NO_ANSWER,
    ModelError,
    ModelRequest,
    ModelResponse,
    Stop,
)
from runward.contracts.transcript import AssistantMessage, Message, ToolCall
from runward.contracts.usage import Usage

BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that a turn asks for. A mapping becomes JSON; text stays as it is, even bad."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Returns the arguments as the model writes them."""
        if isinstance(self.arguments, str):
            return self.arguments
        return canonical(dict(self.arguments)).decode()


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt is answered with an HTTP error status; nothing is billed.

    `unbilled` is whether the caller can know that: False plays a gateway's error page.
    """

    status: int
    retry_after_s: float | None = None
    unbilled: bool = True


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer comes after this wait. It is billed before: a killed attempt has cost money."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer ever comes; the call ends when it is cancelled."""

    billed: bool = True


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection breaks before the answer arrived; nobody knows whether it was billed."""

    billed: bool = True


Fault = Fail | Slow | Hang | Cut


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model answers at one place of the conversation.

    `faults` befall the first attempts under one idempotency key, in order; later ones are answered
    (`(Fail(429, 2.0), None, Cut())`: the second attempt is answered, a third would be cut).

    Without `usage` the turn is measured, and cut where `max_output_tokens` ends it, as a real
    model would be: text stops, calls are lost, `stop` is "length". With `usage` nothing is cut
    and exactly that is billed, be it more than was bounded.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    usage: Usage | None = None
    stop: Stop | None = None  # None: "tools" with calls, else "end"
    faults: Sequence[Fault | None] = ()


@dataclass(frozen=True, slots=True)
class Script:
    """Turns in the order in which the model takes them."""

    turns: Sequence[Turn]


ScriptFunction = Callable[[ModelRequest], Turn]


class ScriptedProvider:
    """The provider `scripted`; its models are the names of the scripts."""

    name: Final[str] = "scripted"

    def __init__(
        self,
        scripts: Mapping[str, Script | ScriptFunction],
        *,
        ledger: Ledger | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._scripts = dict(scripts)
        self.ledger: Ledger = MemoryLedger() if ledger is None else ledger
        self._sleep = sleep

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the turn that the conversation has come to, or plays its fault."""
        turn = self._turn(request)
        response = _response(turn, request)
        fault = self._fault(turn, request.idempotency_key)
        if isinstance(fault, Fail):
            raise status_error(
                self.name,
                fault.status,
                unbilled=fault.unbilled,
                retry_after_s=fault.retry_after_s,
            )
        if not isinstance(fault, Hang | Cut) or fault.billed:
            model = f"{self.name}:{request.model}"
            self.ledger.bill(Bill(request.idempotency_key, model, response.usage))
        if isinstance(fault, Slow):
            await self._sleep(fault.seconds)
        elif isinstance(fault, Hang):
            await asyncio.get_running_loop().create_future()
        elif isinstance(fault, Cut):
            raise ModelError("scripted cut the connection", retryable=True, unbilled=False)
        return response

    def _turn(self, request: ModelRequest) -> Turn:
        script = self._scripts.get(request.model)
        if script is None:
            raise _wrong(f"no script {request.model!r}; there are {sorted(self._scripts)}")
        if not isinstance(script, Script):
            return script(request)
        number = _turn_number(request)
        if number >= len(script.turns):
            raise _wrong(
                f"script {request.model!r} has {len(script.turns)} turns, asked for {number + 1}"
            )
        return script.turns[number]

    def _fault(self, turn: Turn, idempotency_key: str) -> Fault | None:
        if not turn.faults:
            return None
        number = self.ledger.attempt(idempotency_key)
        return turn.faults[number] if number < len(turn.faults) else None


def measure(messages: Iterable[Message]) -> int:
    """Returns the tokens of the messages: bytes of text, call names and arguments / 4, rounded up.

    So prompts of equal size cost equal, and nobody needs a tokenizer to know a figure beforehand.
    """
    total = 0
    for message in messages:
        total += len(message.text.encode("utf-8", "replace"))
        if isinstance(message, AssistantMessage):
            total += sum(
                len((one.name + one.arguments).encode("utf-8", "replace")) for one in message.calls
            )
    return -(-total // BYTES_PER_TOKEN)


def _turn_number(request: ModelRequest) -> int:
    return sum(isinstance(one, AssistantMessage) for one in request.messages)


def _response(turn: Turn, request: ModelRequest) -> ModelResponse:
    number = _turn_number(request)
    calls = tuple(
        ToolCall(id=f"call_{number}_{index}", name=one.name, arguments=one.text)
        for index, one in enumerate(turn.calls if turn.stop not in NO_ANSWER else ())
    )
    message = AssistantMessage(text=turn.text, calls=calls)
    stop = turn.stop or ("tools" if calls else "end")
    if turn.usage is not None:
        return ModelResponse(message, turn.usage, stop)
    output = measure([message])
    if output > request.max_output_tokens:
        output = request.max_output_tokens
        head = turn.text.encode("utf-8", "replace")[: output * BYTES_PER_TOKEN].decode(
            "utf-8", "ignore"
        )
        message, stop = AssistantMessage(text=head), "length"
    return ModelResponse(message, Usage(input=measure(request.messages), output=output), stop)


def _wrong(text: str) -> ModelError:
    return ModelError(f"scripted: {text}", retryable=False, unbilled=True)
