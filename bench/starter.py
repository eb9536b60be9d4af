"""Starts runs and waits for their ends, in a process of its own: a client is no worker's cost."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from uuid import uuid4

from stack import ANSWER, PROMPT, QUEUE, TENANT, Servers
from temporalio.client import Client

from runward.client.keys import KeyFile
from runward.client.runward_client import RunwardClient

BY_HAND_QUEUE = "by-hand"
USERS = 8
BATCH_S_MAX = 300.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs of one kind, some at once."""

    governed: bool
    turns: int
    runs: int
    at_once: int


class Starter:
    """The other process, as the bench sees it."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    async def run(self, batch: Batch) -> None:
        """Returns when all runs of the batch have answered. Errors: RuntimeError."""
        self._pipe.send(batch)
        problem = await asyncio.to_thread(self._answer)
        if problem:
            raise RuntimeError(f"{batch}: {problem}")

    def _answer(self) -> str:
        return str(self._pipe.recv()) if self._pipe.poll(BATCH_S_MAX) else "no end in time"


@asynccontextmanager
async def starting(where: Servers) -> AsyncIterator[Starter]:
    """Yields a starter; its process ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_process, args=(theirs, where), daemon=True)
    process.start()
    try:
        yield Starter(ours)
    finally:
        process.kill()
        await asyncio.to_thread(process.join)


def _process(pipe: Connection, where: Servers) -> None:
    asyncio.run(_serve(pipe, where))


async def _serve(pipe: Connection, where: Servers) -> None:
    temporal = await Client.connect(where.temporal)
    runward = RunwardClient(temporal, issuer=KeyFile(where.key_file), task_queue=QUEUE)
    users = [runward.acting_as(f"user-{number}", tenant=TENANT) for number in range(USERS)]

    async def governed(number: int, turns: int) -> str:
        user = users[number % USERS]
        return str((await user.execute(f"turns-{turns}", PROMPT)).output)

    async def by_hand(number: int, turns: int) -> str:
        name = f"hand-{uuid4().hex}"
        return str(
            await temporal.execute_workflow("HandWritten", turns, id=name, task_queue=BY_HAND_QUEUE)
        )

    while True:
        batch: Batch = await asyncio.to_thread(pipe.recv)
        try:
            await _all(governed if batch.governed else by_hand, batch)
        except Exception as error:  # noqa: BLE001  the other process reports it
            pipe.send(f"{type(error).__name__}: {error}")
        else:
            pipe.send("")


async def _all(one: Callable[[int, int], Awaitable[str]], batch: Batch) -> None:
    numbers = iter(range(batch.runs))

    async def caller() -> None:
        for number in numbers:  # shared: each caller takes the next one
            output = await one(number, batch.turns)
            if output != ANSWER:
                raise RuntimeError(f"run {number} answered {output!r}")

    await asyncio.gather(*(caller() for _ in range(batch.at_once)))
