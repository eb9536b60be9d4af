"""Agent definitions: a model, instructions and tools; generic in what it answers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Generic

from typing_extensions import TypeForm

from runward.contracts.budget import Budget
from runward.contracts.encoding import digest, digest_of
from runward.contracts.errors import ConfigurationError
from runward.contracts.output import Output, OutputType, output_of
from runward.contracts.tools import Tool

INSTRUCTIONS_BYTES_MAX = 1024 * 1024
MAX_TURNS_DEFAULT = 50
MAX_OUTPUT_TOKENS_DEFAULT = 4096
MODEL_RETRIES_DEFAULT = 30  # with the waits between them, an outage of some seven minutes
MAX_CALLS_PER_TURN_DEFAULT = 64  # each is an activity, and a model can write hundreds
MAX_CALLS_PER_TURN_MAX = 1000  # Temporal lets 2,000 activities of a workflow be pending
MODEL_RETRIES_MAX = 10_000
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")


class Agent(Generic[Output]):
    """An agent as its author defines it. Immutable; its snapshot is stored by content."""

    def __init__(
        self,
        name: str,
        *,
        model: str,
        instructions: str = "",
        tools: Sequence[Tool] = (),
        output_type: TypeForm[Output] = str,  # type: ignore[assignment]  # Output is str then
        max_turns: int = MAX_TURNS_DEFAULT,
        max_output_tokens: int = MAX_OUTPUT_TOKENS_DEFAULT,
        max_calls_per_turn: int = MAX_CALLS_PER_TURN_DEFAULT,
        model_retries: int = MODEL_RETRIES_DEFAULT,
        fallback: Sequence[str] = (),
        budget: Budget | None = None,
        approver_role: str | None = None,
    ) -> None:
        _check_name(name)
        _check_instructions(name, instructions)
        if max_turns < 1 or max_output_tokens < 1:
            raise ConfigurationError(
                f"Agent({name!r})",
                "max_turns and max_output_tokens are at least 1",
                "Raise what is less, or leave it out",
            )
        _check_between(name, "max_calls_per_turn", max_calls_per_turn, 1, MAX_CALLS_PER_TURN_MAX)
        _check_between(name, "model_retries", model_retries, 0, MODEL_RETRIES_MAX)
        _check_tools(name, tools)
        self.name = name
        self.model = model
        # In the order in which they are asked: the agent's own, then its fallbacks.
        self.models = _models(name, model, fallback)
        self.model_retries = model_retries
        self.max_calls_per_turn = max_calls_per_turn
        self.instructions = instructions
        self.tools = tuple(tools)
        self._by_name = {one.name: one for one in self.tools}
        self.output_type = output_type
        self.output: OutputType[Output] | None = output_of(name, output_type)
        self.max_turns = max_turns
        self.max_output_tokens = max_output_tokens
        self.budget = budget
        self.approver_role = approver_role

    def tool(self, name: str) -> Tool | None:
        """Returns the tool of that name, None if this agent has none."""
        return self._by_name.get(name)

    @property
    def snapshot(self) -> dict[str, Any]:
        """Returns the definition as canonical data; its digest pins the run to it."""
        output = self.output
        # Only where they are set: a run is pinned to the digest that it opened with.
        chosen = {
            "max_calls_per_turn": (self.max_calls_per_turn, MAX_CALLS_PER_TURN_DEFAULT),
            "model_retries": (self.model_retries, MODEL_RETRIES_DEFAULT),
            "fallback": (list(self.models[1:]), []),
        }
        return {name: value for name, (value, default) in chosen.items() if value != default} | {
            "name": self.name,
            "model": self.model,
            "instructions": self.instructions,
            "tools": [one.schema_digest for one in self.tools],
            "max_turns": self.max_turns,
            "max_output_tokens": self.max_output_tokens,
            "output": repr(str) if output is None else digest(output.schema_text.encode()),
        }

    @property
    def snapshot_digest(self) -> str:
        """Returns the digest of the snapshot."""
        return digest_of(self.snapshot)

    def parse(self, text: str) -> Output:
        """Returns the answer as the agent's output type; a ValidationError if it is none."""
        if self.output is None:
            return text  # type: ignore[return-value]  # Output is str here
        return self.output.parse(text)


def _models(agent: str, model: str, fallback: Sequence[str]) -> tuple[str, ...]:
    if isinstance(fallback, str):
        raise ConfigurationError(
            f"Agent({agent!r}, fallback={fallback!r})",
            "It is a list of models, in the order in which they are asked",
            f"Say fallback=[{fallback!r}]",
        )
    models = (model, *fallback)
    for place, one in enumerate(models):
        asked = f"Agent({agent!r}, {'fallback' if place else 'model'}={one!r})"
        if not all(one.partition(":")):
            raise ConfigurationError(
                asked,
                "A model is 'provider:model'",
                "Say for example 'anthropic:<model>' or 'scripted:<script>'",
            )
        if one in models[:place]:
            raise ConfigurationError(
                asked, "This model is asked before already", "Name each model once"
            )
    return models


def _check_name(agent: str) -> None:
    if not _NAME.match(agent):
        raise ConfigurationError(
            f"Agent({agent!r})",
            "Names are a-z, 0-9, _ and -, at most 64 characters",
            "Choose another name",
        )


def _check_instructions(agent: str, instructions: str) -> None:
    size = len(instructions.encode("utf-8", "replace"))
    if size > INSTRUCTIONS_BYTES_MAX:
        raise ConfigurationError(
            f"Agent({agent!r}) with instructions of {size} bytes",
            f"At most {INSTRUCTIONS_BYTES_MAX} fit: every call of the model sends them",
            "Put what it needs only now and then where a tool can read it",
        )


def _check_tools(agent: str, tools: Sequence[Tool]) -> None:
    doubled = sorted(name for name, n in Counter(one.name for one in tools).items() if n > 1)
    if doubled:
        raise ConfigurationError(
            f"Agent({agent!r})",
            f"Two tools are called {doubled[0]!r}",
            "Rename one, with @tool(name=...)",
        )


def _check_between(agent: str, name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigurationError(
            f"Agent({agent!r}, {name}={value!r})",
            f"{name} is between {least} and {most}",
            "Choose a number in between, or leave it out",
        )
