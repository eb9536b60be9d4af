"""`@tool(retries=...)`: a tool that raises is run again, as often as the store says it may."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import asyncpg
import pytest

from runward.contracts.errors import ConfigurationError
from runward.contracts.tools import Tool, ToolContext, tool
from runward.contracts.transcript import ToolMessage, decode_message
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.support import App
from tests.users_code import Cards

FETCH = ask("fetch", what="17")
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Flaky:
    """A read that raises as often as it is told to; `keys` are those of all its tries."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.keys: list[str] = []

    def tool(self, retries: int, **options: Any) -> Tool:
        """Returns the tool."""

        @tool(retries=retries, **options)
        async def fetch(ctx: ToolContext[object], what: str) -> str:
            """Fetches something."""
            self.keys.append(ctx.idempotency_key)
            if len(self.keys) <= self.failures:
                raise ConnectionError(f"try {len(self.keys)}")
            return f"{what} is here"

        return fetch


def app_with(one: Tool) -> App:
    return App([FETCH, say("Done.")], agent_options={"tools": [one]})


async def seen_by_the_model(owner: Owner, stack: Stack) -> list[str]:
    """Returns the tool messages of the tenant's one run, as they are in its transcript."""
    rows = await owner.fetch(
        "select content from runward.transcript where tenant = $1 order by prefix_bytes",
        stack.tenant,
    )
    messages = [decode_message(row["content"]) for row in rows]
    return [one.text for one in messages if isinstance(one, ToolMessage)]


async def recorded(owner: Owner, stack: Stack) -> list[str]:
    """Returns the kinds of the tool step's audit records, in order."""
    rows = await owner.fetch(
        "select kind from runward.audit_record where tenant = $1 and step = 't1.tool.0'"
        " order by seq",
        stack.tenant,
    )
    return [row["kind"] for row in rows]


async def test_a_tool_that_fails_twice_is_run_a_third_time(stack: Stack, owner: Owner) -> None:
    """The model sees one result; each try has its intent and its outcome, and no hold stays."""
    flaky = Flaky(failures=2)
    app = app_with(flaky.tool(retries=2))
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Fetch 17")
    held = await owner.fetchval(
        "select count(*) from runward.hold where tenant = $1 and state = 'H'", stack.tenant
    )

    assert (result.output, len(flaky.keys), len(set(flaky.keys))) == ("Done.", 3, 1)
    assert await seen_by_the_model(owner, stack) == ["17 is here"]
    assert await recorded(owner, stack) == ["intent", "outcome"] * 3
    assert held == 0


async def test_spent_retries_are_told_to_the_model_and_the_run_goes_on(
    stack: Stack, owner: Owner
) -> None:
    """One failure, that of the last try."""
    flaky = Flaky(failures=9)
    app = app_with(flaky.tool(retries=1))
    async with stack.worker(stack.plugin(**app.given)):
        result = await (await stack.acting_as("ada")).execute("support", "Fetch 17")

    assert (result.output, len(flaky.keys)) == ("Done.", 2)
    assert await seen_by_the_model(owner, stack) == ["FAILED: fetch: ConnectionError: try 2"]


async def test_without_retries_the_first_exception_is_final(stack: Stack, owner: Owner) -> None:
    """As it is for every tool that does not ask for more."""
    flaky = Flaky(failures=9)
    async with stack.worker(stack.plugin(**app_with(flaky.tool(retries=0)).given)):
        await (await stack.acting_as("ada")).execute("support", "Fetch 17")

    assert len(flaky.keys) == 1
    assert await seen_by_the_model(owner, stack) == ["FAILED: fetch: ConnectionError: try 1"]


async def test_an_approved_tool_is_retried_without_asking_again(stack: Stack) -> None:
    """The consumed approval is bound to this step and digest: later tries pass on it."""
    flaky = Flaky(failures=2)
    app = app_with(flaky.tool(retries=2, effect="money", idempotent=True))
    app.agent_options["approver_role"] = "finance"
    async with stack.worker(stack.plugin(**app.given)):
        ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
        run = await ada.start("support", "Fetch 17")
        await bob.approvals.approve((await run.next_approval()).id)
        await run.result()

    assert (len(flaky.keys), len(set(flaky.keys))) == (3, 1)


async def test_a_timeout_is_retried_too(stack: Stack, owner: Owner) -> None:
    """Running again is safe, so a call that hung once need not be unknown."""
    tries: list[str] = []

    @tool(retries=1, timeout=0.2)
    async def fetch(ctx: ToolContext[object], what: str) -> str:
        """Hangs the first time."""
        tries.append(what)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return "here"

    async with stack.worker(stack.plugin(**app_with(fetch).given)):
        await (await stack.acting_as("ada")).execute("support", "Fetch 17")

    assert (len(tries), await seen_by_the_model(owner, stack)) == (2, ["here"])


async def test_another_worker_goes_on_counting(stack: Stack, owner: Owner) -> None:
    """The first worker ends inside the first try, and that try counts: one is left."""
    flaky, inside = Flaky(failures=9), asyncio.Event()

    @tool(retries=1)
    async def fetch(ctx: ToolContext[object], what: str) -> str:
        """Holds its first try until its worker ends."""
        if not inside.is_set():
            inside.set()
            await asyncio.Event().wait()
        flaky.keys.append(ctx.idempotency_key)
        raise ConnectionError("away")

    app = app_with(fetch)
    ada = await stack.acting_as("ada")
    async with stack.worker(stack.plugin(**app.given), max_cached_workflows=0):
        run = await ada.start("support", "Fetch 17")
        await inside.wait()
    async with stack.worker(stack.plugin(**app.given)):
        result = await run.result()

    assert (result.output, len(flaky.keys)) == ("Done.", 1)
    assert await seen_by_the_model(owner, stack) == ["FAILED: fetch: ConnectionError: away"]


@pytest.mark.parametrize("effect", ["write", "external", "money"])
def test_retries_of_what_could_act_twice_are_refused(effect: Any) -> None:
    """At the definition; the same tool is taken once it says that it is idempotent."""

    async def pay(ctx: ToolContext[object], order: str) -> None: ...

    with pytest.raises(ConfigurationError, match="not idempotent"):
        tool(pay, effect=effect, retries=2)
    assert tool(pay, effect=effect, retries=2, idempotent=True).retries == 2


async def test_retries_of_a_users_activity_are_refused(stack: Stack) -> None:
    """Its workflow's retry policy retries it: two counts would contradict each other."""
    governed = tool(Cards().charge, effect="money", idempotent=True, retries=2)

    with pytest.raises(ConfigurationError, match="retry policy"):
        stack.plugin(govern=[governed])
