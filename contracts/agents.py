"""Agent definitions: a model, instructions and tools; generic in what it answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from pydantic import TypeAdapter
from typing_extensions import TypeVar

from runward.contracts.budget import Budget
from runward.contracts.encoding import digest_of
from runward.contracts.errors import ConfigurationError
from runward.contracts.tools import Tool

Output = TypeVar("Output", default=str)  # an agent that says nothing answers with text

MAX_TURNS_DEFAULT = 50
MAX_OUTPUT_TOKENS_DEFAULT = 4096
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the loop needs to know, pinned when the run opens."""

    max_turns: int
    max_output_tokens: int


class Agent(Generic[Output]):
    """An agent as its author defines it. Immutable; its snapshot is stored by content."""

    def __init__(
        self,
        name: str,
        *,
        model: str,
        instructions: str = "",
        tools: Sequence[Tool] = (),
        output_type: type[Output] | Any = str,
        max_turns: int = MAX_TURNS_DEFAULT,
        max_output_tokens: int = MAX_OUTPUT_TOKENS_DEFAULT,
        budget: Budget | None = None,
        approver_role: str | None = None,
    ) -> None:
        if not _NAME.match(name):
            raise ConfigurationError(
                f"Agent({name!r})", "Names are a-z, 0-9, _ and -, at most 64 characters"
            )
        if ":" not in model:
            raise ConfigurationError(
                f"Agent({name!r}, model={model!r})",
                "A model is 'provider:model'",
                "Say for example 'anthropic:<model>' or 'scripted:<script>'",
            )
        if max_turns < 1 or max_output_tokens < 1:
            raise ConfigurationError(
                f"Agent({name!r})", "max_turns and max_output_tokens are at least 1"
            )
        doubled = sorted({one.name for one in tools if [t.name for t in tools].count(one.name) > 1})
        if doubled:
            raise ConfigurationError(f"Agent({name!r})", f"Two tools are called {doubled[0]!r}")
        self.name = name
        self.model = model
        self.instructions = instructions
        self.tools = tuple(tools)
        self.output_type = output_type
        self.max_turns = max_turns
        self.max_output_tokens = max_output_tokens
        self.budget = budget
        self.approver_role = approver_role

    @property
    def provider(self) -> str:
        """Returns the provider's name, the part of `model` before the colon."""
        return self.model.partition(":")[0]

    @property
    def limits(self) -> Limits:
        """Returns what the loop needs."""
        return Limits(self.max_turns, self.max_output_tokens)

    def tool(self, name: str) -> Tool | None:
        """Returns the tool of that name, None if this agent has none."""
        return next((one for one in self.tools if one.name == name), None)

    @property
    def snapshot(self) -> dict[str, Any]:
        """Returns the definition as canonical data; its digest pins the run to it."""
        return {
            "name": self.name,
            "model": self.model,
            "instructions": self.instructions,
            "tools": [one.schema_digest for one in self.tools],
            "max_turns": self.max_turns,
            "max_output_tokens": self.max_output_tokens,
            "output": repr(self.output_type),
        }

    @property
    def snapshot_digest(self) -> str:
        """Returns the digest of the snapshot."""
        return digest_of(self.snapshot)

    def parse(self, text: str) -> Output:
        """Returns the answer as the agent's output type; a ValidationError if it is none."""
        if self.output_type is str:
            return text  # type: ignore[return-value]  # Output is str here
        adapter: TypeAdapter[Output] = TypeAdapter(self.output_type)
        return adapter.validate_json(text)
