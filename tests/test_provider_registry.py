"""Which provider a name means, and that none costs anything before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runward.activities.provider_scripted import ScriptedProvider
from runward.activities.providers import Providers
from runward.contracts.errors import ConfigurationError
from runward.contracts.providers import ModelRequest, ModelResponse


class Closing:
    """A provider that can be closed, and may fail to."""

    def __init__(self, name: str, closed: list[str], fails: bool = False) -> None:
        self.name, self._closed, self._fails = name, closed, fails

    async def call(self, request: ModelRequest) -> ModelResponse:
        raise NotImplementedError

    async def close(self) -> None:
        self._closed.append(self.name)
        if self._fails:
            raise RuntimeError(self.name)


def test_an_unknown_provider_names_those_that_are_there() -> None:
    providers = Providers([ScriptedProvider({})])

    with pytest.raises(ConfigurationError) as caught:
        providers.get("antropic")

    assert str(caught.value) == (
        "Model provider 'antropic'. This worker has 'anthropic', 'openai', "
        "'scripted'. Give it the provider, or change the agent's model"
    )


def test_a_provider_is_built_once_and_on_first_use() -> None:
    built: list[Closing] = []

    def build() -> Closing:
        built.append(Closing("own", []))
        return built[-1]

    providers = Providers(builders={"own": build})
    before = len(built)

    assert providers.get("own") is providers.get("own") is built[0]
    assert (before, len(built)) == (0, 1)


def test_a_ready_provider_replaces_a_known_one() -> None:
    mine = Closing("anthropic", [])

    assert Providers([mine]).get("anthropic") is mine


def test_two_providers_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="Two model providers named 'scripted'"):
        Providers([ScriptedProvider({}), ScriptedProvider({})])


async def test_close_reaches_every_provider_even_if_one_fails() -> None:
    closed: list[str] = []
    ready = [Closing("a", closed), Closing("b", closed, fails=True), Closing("c", closed)]
    providers = Providers([*ready, ScriptedProvider({})])

    with pytest.raises(RuntimeError, match="b"):
        await providers.close()

    assert sorted(closed) == ["a", "b", "c"]


def test_no_provider_module_imports_an_sdk() -> None:
    """A worker that never calls Anthropic or OpenAI does not pay two seconds for its SDK."""
    code = """
import sys
from runward.activities.providers import Providers
import runward.activities.provider_anthropic, runward.activities.provider_openai
import runward.testing.scripts
Providers().get("anthropic"), Providers().get("openai")
print(*sorted({"anthropic", "httpx2", "openai", "temporalio"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""
