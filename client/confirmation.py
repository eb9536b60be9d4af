"""Answers that the store confirms. Whoever can write to Temporal's namespace could forge others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from pydantic import ValidationError
from temporalio.exceptions import ApplicationError

from runward.client.reader import Reader, needs_reader
from runward.contracts.agents import Agent
from runward.contracts.encoding import digest
from runward.contracts.errors import OUTPUT_VALIDATION_ERROR, AgentError, OutputValidationError
from runward.contracts.output import OUTPUT_INVALID
from runward.contracts.runs import InvalidEnd, RunEnd
from runward.contracts.story import RunRow
from runward.contracts.transcript import AssistantMessage, decode_message
from runward.contracts.wire import decode_wire

Output = TypeVar("Output")

ASK_WHO_OPERATES = "Ask whoever operates the store and Temporal's namespace"
SEE_STORY = "`runward runs show` tells what it did"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run began: the first execution of its chain, and the session it belongs to."""

    run_id: str
    session_id: str


class Confirmation(Generic[Output]):
    """Compares how one run says that it ended with what the store holds of it."""

    def __init__(
        self, workflow_id: str, tenant: str, reader: Reader | None, agent: Agent[Output] | None
    ) -> None:
        self._id = workflow_id
        self._tenant = tenant
        self._reader = reader
        self._agent = agent

    async def output(self, end: RunEnd, origin: Origin) -> str:
        """Returns the answer of a run that ended so; raises AgentError unless the store agrees."""
        if self._reader is None:
            if end.ref:
                needs_reader(None, f"The answer of {self._id!r}")
            return end.output
        row = await self._reader.run(self._tenant, origin.run_id)
        if end.interruption_reason:
            if row is None or (row.state, row.reason) != ("interrupted", end.interruption_reason):
                raise self._unconfirmed(row)
            return ""  # such a run has no answer, whatever stands in its place
        output = await self._content(self._reader, end.ref, origin) if end.ref else end.output
        if row is None or row.state != "answered" or row.result_digest != digest(output.encode()):
            raise self._unconfirmed(row)
        return output

    async def invalid(self, end: InvalidEnd, origin: Origin) -> AgentError:
        """Returns the error of a run whose answer the worker refused, if the store agrees."""
        received = end.output
        if end.ref or self._reader is not None:
            reader = needs_reader(self._reader, f"The answer of {self._id!r}")
            if end.ref:
                received = await self._content(reader, end.ref, origin)
            row = await reader.run(self._tenant, origin.run_id)
            ended = None if row is None else (row.state, row.reason, row.result_digest)
            if ended != ("failed", OUTPUT_INVALID, digest(received.encode())):
                return self._unconfirmed(row)
        invalid = end.invalid
        schema = invalid.expected or self._schema_here()
        return OutputValidationError(
            f"The answer of {self._id!r}",
            received=received,
            problems=invalid.problems,
            expected=json.loads(schema) if schema else None,
        )

    def _schema_here(self) -> str:
        """Returns the schema as this client knows it: one that is too long for an outcome."""
        output = self._agent.output if self._agent is not None else None
        return "" if output is None else output.schema_text

    def _unconfirmed(self, row: RunRow | None) -> AgentError:
        return AgentError(
            f"The result of {self._id!r}",
            "The store does not confirm this answer"
            + ("" if row is None else f": it holds the run as {row.state!r}"),
            ASK_WHO_OPERATES,
        )

    async def missing(self, reader: Reader, origin: Origin, ref: str) -> str:
        """Returns why the store has no content of that digest."""
        row = await reader.run(self._tenant, origin.run_id)
        if row is not None and row.content_gone_at is not None:
            return f"Retention deleted it after {row.content_gone_at:%Y-%m-%d %H:%M %Z}"
        return f"The store does not hold {ref!r}"

    async def _content(self, reader: Reader, ref: str, origin: Origin) -> str:
        """Returns the text of the answer that went by reference."""
        data = await reader.content(self._tenant, ref)
        if data is None or digest(data) != ref:
            why = await self.missing(reader, origin, ref)
            raise AgentError(f"The answer of {self._id!r}", why, SEE_STORY)
        message = decode_message(data)
        if not isinstance(message, AssistantMessage):
            holds = "It refers to another kind of message"
            raise AgentError(f"The answer of {self._id!r}", holds, ASK_WHO_OPERATES)
        return message.text

    def parse(self, output: str, *, interrupted: bool) -> Output:
        """Returns the answer as the agent's output type; None for what an interrupted run left."""
        agent = self._agent
        if agent is None or agent.output is None:
            return cast(Output, output)
        try:
            return agent.parse(output)
        except ValidationError:
            if interrupted:
                return cast(Output, None)
        # pydantic's error quotes the answer, and so may the words of a user's own validator.
        wrong = [
            f"{one.location or 'all of it'}: {one.kind}" for one in agent.output.problems(output)
        ]
        raise AgentError(
            f"The answer of {self._id!r} as {agent.output_type!r}",
            f"It does not fit ({', '.join(wrong)})",
            "Read it with get(id).result(), which parses nothing",
        )


def invalid_end(cause: BaseException) -> InvalidEnd | None:
    """Returns what a run says that failed on its answer, None for any other failure."""
    if not isinstance(cause, ApplicationError) or cause.type != OUTPUT_VALIDATION_ERROR:
        return None
    try:
        return decode_wire(InvalidEnd, str(cause.details[0]).encode())
    except (ValidationError, IndexError):
        return None
