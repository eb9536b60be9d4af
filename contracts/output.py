"""What an agent's answer must be, for agents that answer with more than text.

Worker and client parse with the same function. The worker judges before a run ends: an answer that
does not fit is repaired once, by one more turn that begins with what was wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, Generic

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypeForm, TypeVar

from runward.contracts.encoding import clean
from runward.contracts.errors import ConfigurationError, OutputProblem
from runward.contracts.transcript import AssistantMessage, Message, UserMessage

Output = TypeVar("Output", default=str)

OUTPUT_INVALID: Final = "output_invalid"  # the reason of a run that failed on its answer

# A repair is a message like any other: paid for, and in Temporal's history.
PROBLEMS_MAX = 10
ERRORS_READ_MAX = 1_000  # of one answer: to read a million takes seconds of the worker
LOCATION_BYTES_MAX = 120
PROBLEM_BYTES_MAX = 240
SCHEMA_TOLD_BYTES_MAX = 4 * 1024  # in a repair; above it the request's own copy has to do
SCHEMA_KEPT_BYTES_MAX = 16 * 1024  # in an outcome

NAME_CHARS_MAX = 64

_FENCE = "```"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


class InvalidOutput(BaseModel):
    """Why an answer is none: what is wrong, and the JSON schema that was wanted, as text.

    `expected` is empty for a schema that is too long for an outcome.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    problems: tuple[OutputProblem, ...] = Field(alias="p")
    expected: str = Field("", alias="e")


class OutputType(Generic[Output]):
    """A type that JSON text is parsed as. Immutable, and built once: it takes milliseconds."""

    def __init__(self, agent: str, kind: TypeForm[Output]) -> None:
        asked = f"Agent({agent!r}, output_type={kind!r})"
        try:
            self._adapter: TypeAdapter[Output] = TypeAdapter(kind)
            self.schema: dict[str, Any] = self._adapter.json_schema()
            self.schema_text = json.dumps(
                self.schema, ensure_ascii=False, sort_keys=True, separators=(",", ":")
            )
        except Exception as error:  # pydantic and users' own types raise what they like
            why = str(error).partition("\n")[0] or type(error).__name__
            raise ConfigurationError(
                asked,
                f"It has no JSON schema, so no model can be told of it: {why}",
                "Give a pydantic model, a dataclass, a TypedDict, or a type made of such",
            ) from error
        title = _NOT_IN_NAMES.sub("_", str(self.schema.get("title", "")))
        self.name = title[:NAME_CHARS_MAX] or "answer"  # as providers allow names

    def parse(self, text: str) -> Output:
        """Returns the value that the text stands for; a ValidationError if it stands for none.

        Around JSON one Markdown fence is no error: many models write it unasked.
        """
        return self._adapter.validate_json(unfenced(text))

    def problems(self, text: str) -> tuple[OutputProblem, ...]:
        """Returns what is wrong with an answer, () if nothing is."""
        try:
            self.parse(text)
        except ValidationError as error:
            if error.error_count() > ERRORS_READ_MAX:
                text = f"{error.error_count()} things are wrong with it"
                return (OutputProblem("", text, "too_many"),)
            found = error.errors(include_url=False, include_context=False, include_input=False)
            return tuple(
                OutputProblem(
                    _clip(".".join(map(str, one["loc"])), LOCATION_BYTES_MAX),
                    _clip(one["msg"], PROBLEM_BYTES_MAX),
                    one["type"],
                )
                for one in found[:PROBLEMS_MAX]
            )
        except Exception as error:  # noqa: BLE001  a user's validator, whose words may be anything
            return (OutputProblem("", "It cannot be checked", type(error).__name__),)
        return ()


def output_of(agent: str, kind: TypeForm[Output]) -> OutputType[Output] | None:
    """Returns what answers of that type must be, None for text, which may be anything."""
    return None if kind is str else OutputType(agent, kind)


def unfenced(text: str) -> str:
    """Returns what one Markdown fence (bare, or of JSON) surrounds; other text as it is."""
    inner = text.strip()
    head, newline, rest = inner.partition("\n")
    if not (newline and head.startswith(_FENCE) and rest.endswith(_FENCE)):
        return text
    if head.removeprefix(_FENCE).strip().lower() not in ("", "json"):
        return text
    return rest.removesuffix(_FENCE)


def judge(
    output: OutputType[Any], text: str, before: Sequence[Message]
) -> UserMessage | InvalidOutput | None:
    """Returns None for an answer that fits, the repair of the first that does not, else the end.

    That a run was repaired is read from its conversation, which lineage proves: nobody can say
    otherwise.
    """
    problems = output.problems(text)
    if not problems:
        return None
    if not _repaired(before):
        return _repair(problems, output.schema_text)
    schema = output.schema_text
    fits = len(schema.encode()) <= SCHEMA_KEPT_BYTES_MAX
    return InvalidOutput(problems=problems, expected=schema if fits else "")


def _repaired(messages: Sequence[Message]) -> bool:
    """Returns whether an answer without calls was answered: the loop has no other reason to."""
    return any(
        isinstance(answer, AssistantMessage) and not answer.calls and isinstance(one, UserMessage)
        for answer, one in pairwise(messages)
    )


def _repair(problems: Sequence[OutputProblem], schema: str) -> UserMessage:
    wrong = "\n".join(f"- {one.location or 'the answer'}: {one.message}" for one in problems)
    wanted = "JSON that fits the JSON schema that you were given."
    if len(schema.encode()) <= SCHEMA_TOLD_BYTES_MAX:
        wanted = f"JSON that fits this JSON schema:\n{schema}"
    return UserMessage(
        text=(
            f"Your answer is not what was asked for. What is wrong with it:\n{wrong}\n\n"
            f"Answer once more, in full, with nothing but {wanted}"
        )
    )


def _clip(text: str, size: int) -> str:
    """Returns the text as a message and a row can hold it, cut at a number of bytes."""
    data = clean(text).encode()
    return clean(text) if len(data) <= size else data[:size].decode("utf-8", "ignore") + "…"
