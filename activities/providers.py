"""The model providers of a worker, by name; each is built when the first call needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol, runtime_checkable

from runward.contracts.agents import Agent
from runward.contracts.errors import ConfigurationError
from runward.contracts.providers import Provider

Builder = Callable[[], Provider]


@runtime_checkable
class Closable(Protocol):
    """A provider that holds connections."""

    async def close(self) -> None:
        """Closes them; a later call opens new ones."""
        ...


class Providers:
    """The providers of one worker.

    `ready` are providers under their own names; `builders` make one on first use. Both come before
    those that runward knows by itself, so that a user can replace one.
    """

    def __init__(
        self, ready: Iterable[Provider] = (), builders: Mapping[str, Builder] | None = None
    ) -> None:
        self._builders: dict[str, Builder] = {
            "anthropic": _anthropic,
            "openai": _openai,
            **(builders or {}),
        }
        self._built: dict[str, Provider] = {}
        for one in ready:
            if one.name in self._built:  # agents of the one would ask the other
                raise ConfigurationError(
                    f"Two model providers named {one.name!r}",
                    "A worker has one of each name",
                    "Give one of them another name; one ScriptedProvider plays many scripts",
                )
            self._built[one.name] = one

    @property
    def names(self) -> tuple[str, ...]:
        """Returns the names that `get` knows, sorted."""
        return tuple(sorted(self._builders.keys() | self._built.keys()))

    def get(self, name: str) -> Provider:
        """Returns the provider of that name; a ConfigurationError if this worker has none."""
        if name not in self._built:
            if name not in self._builders:
                raise self._unknown(f"Model provider {name!r}")
            self._built[name] = self._builders[name]()
        return self._built[name]

    def check(self, agent: Agent[Any]) -> None:
        """Raises ConfigurationError for a model of the agent's that no provider here knows."""
        for model in agent.models:
            if model.partition(":")[0] not in self.names:
                raise self._unknown(f"The model {model!r} of agent {agent.name!r}")

    def _unknown(self, asked: str) -> ConfigurationError:
        return ConfigurationError(
            asked,
            f"This worker has {', '.join(map(repr, self.names))}",
            "Give it the provider, or change the agent's model",
        )

    async def close(self) -> None:
        """Closes every provider that was built, each even if another one fails to."""
        async with AsyncExitStack() as stack:
            for one in self._built.values():
                if isinstance(one, Closable):
                    stack.push_async_callback(one.close)


def _anthropic() -> Provider:
    from runward.activities.provider_anthropic import AnthropicProvider

    return AnthropicProvider()


def _openai() -> Provider:
    from runward.activities.provider_openai import OpenAIProvider

    return OpenAIProvider()
