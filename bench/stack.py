"""The servers of a bench, as child processes, and the agents that it runs."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from report import say

from runward.activities.provider_scripted import Call, Script, ScriptedProvider, Turn
from runward.client.keys import KeyFile
from runward.contracts.agents import Agent
from runward.contracts.budget import Budget, Cap
from runward.contracts.identity import Issuer
from runward.contracts.tools import tool
from runward.store.migrate import migrate
from runward.store.pool import Store
from runward.workers.embedded_postgres import EmbeddedPostgres
from runward.workers.plugin import RunwardPlugin
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer

TENANT = "acme"
PROMPT = "Say where the parcels of this order are."
RESULT = "parcel 0123456789 is on its way to the customer; ".ljust(1024, ".")
ANSWER = "They are on their way."
QUEUE = "bench"
# Roomy, but there: a step without a budget would be cheaper than those of most users.
BUDGET = Budget(run=Cap(tokens=10**12), user=Cap(usd=10**6, per="day"))


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are; plain, so that it can be handed to other processes."""

    database_url: str
    temporal: str
    key_file: Path


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Yields a fresh PostgreSQL and a fresh Temporal, with an issuer that the store knows.

    PostgreSQL is reached by its unix socket: over TCP on one machine, the kernel charges the
    sender with much of the receiver's share.
    """
    binary = await find_temporal(None, progress=say)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedPostgres(None) as postgres,
            TemporalDevServer(binary, None, ui=False) as temporal,
        ):
            key = await prepared(postgres.dsn, Path(folder))
            yield Servers(postgres.socket_dsn, temporal.address, key.path)


async def prepared(dsn: str, folder: Path) -> KeyFile:
    """Returns the key of an issuer for everybody, after it has made the store's schema."""
    await migrate(dsn)
    key = KeyFile.create(folder / "bench.key")
    every = ("*",)
    async with Store(dsn) as store:
        issuer = Issuer(str(key.key.kid), key.public_key, every, every, every)
        await store.issuers.add(issuer)
    return key


@tool
async def lookup(order_id: str) -> str:
    """Look up where an order's parcels are."""
    return RESULT


def asked(turns: int) -> list[Turn]:
    """Returns N turns with N tool calls: two in the first turn, none in the last, which answers."""
    one = Call("lookup", {"order_id": "order-0017"})
    if turns == 1:
        return [Turn(text=ANSWER)]
    middle = [Turn(calls=(one,)) for _ in range(turns - 2)]
    return [Turn(calls=(one, one)), *middle, Turn(text=ANSWER)]


def provider(turns: list[int]) -> ScriptedProvider:
    """Returns the model of both sides; it answers at once."""
    return ScriptedProvider({f"turns-{one}": Script(asked(one)) for one in turns})


def plugin(database_url: str, turns: list[int]) -> RunwardPlugin:
    """Returns the governed side: one agent for each number of turns."""
    agents = [
        Agent(f"turns-{one}", model=f"scripted:turns-{one}", tools=[lookup], max_turns=one)
        for one in turns
    ]
    return RunwardPlugin(
        agents=agents, providers=[provider(turns)], budget=BUDGET, database_url=database_url
    )
