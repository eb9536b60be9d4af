"""A worker whose servers are away: it waits, says so once, and goes on by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.outage_gate import Gate, through
from runward.client.runward_client import RunwardClient
from runward.workers.dev import DevStack
from runward.workers.health_file import WorkerHealth, read

from .app_folder import Command, runward
from .child_processes import comes_true

QUEUE = f"outages-{os.getpid()}"  # processes of pytest-xdist share a server


@pytest.fixture
async def store(dev: DevStack) -> AsyncIterator[Gate]:
    port = int(dev.database_url.rpartition(":")[2].partition("/")[0])
    async with Gate(port) as gate:
        yield gate


@pytest.fixture
async def temporal(dev: DevStack) -> AsyncIterator[Gate]:
    async with Gate(int(dev.temporal_address.rpartition(":")[2])) as gate:
        yield gate


def words(dev: DevStack, store: Gate, temporal: Gate) -> list[str]:
    given = ["worker", "--app", "shop:app", "--task-queue", QUEUE, "--health-file", "health"]
    return [*given, "--database-url", through(dev.database_url, store.port),
            "--address", f"127.0.0.1:{temporal.port}"]  # fmt: skip


async def answer(dev: DevStack) -> str:
    async with await RunwardClient.connect(
        dev.temporal_address,
        issuer=dev.issuer,
        database_url=dev.database_url,
        task_queue=QUEUE,
    ) as door:
        result = await door.acting_as("ada", tenant="acme").execute("quick", "hello")
    return result.output


def health(folder: Path) -> WorkerHealth:
    return read(folder / "health")[0]


async def stopped(worker: Command) -> int:
    worker.process.send_signal(signal.SIGTERM)
    return await worker.ended()


async def test_waits_for_servers_that_are_away_at_its_start(
    dev: DevStack, folder: Path, store: Gate, temporal: Gate
) -> None:
    await temporal.away()
    await store.away()
    async with runward(folder, *words(dev, store, temporal)) as worker:
        await worker.says("Temporal is away, what needs it waits: Temporal at '127.0.0.1:")
        assert not health(folder).temporal.up
        await temporal.back()
        await worker.says("Temporal is back after ")
        await worker.says("the store is away, what needs it waits: the store at 127.0.0.1:")
        assert health(folder).temporal.up and not health(folder).store.up
        await store.back()
        await worker.says("the store is back after ")
        await worker.says(" polls ")
        assert await answer(dev) == "quick answer"
        assert health(folder).ready
        assert await stopped(worker) == 0


async def test_can_be_stopped_while_it_waits(
    dev: DevStack, folder: Path, store: Gate, temporal: Gate
) -> None:
    await store.away()
    async with runward(folder, *words(dev, store, temporal)) as worker:
        await worker.says("the store is away")
        assert await stopped(worker) == 0


async def test_says_once_which_server_goes_away_and_when_it_is_back(
    dev: DevStack, folder: Path, store: Gate, temporal: Gate
) -> None:
    async with runward(folder, *words(dev, store, temporal)) as worker:
        await worker.says(" polls ")
        for name, gate in (("the store", store), ("Temporal", temporal)):
            await gate.away()
            await worker.says(f"{name} is away, what needs it waits: ")
            await gate.back()
            await worker.says(f"{name} is back after ")
        assert await comes_true(lambda: health(folder).ready)
        assert await answer(dev) == "quick answer"
        assert await stopped(worker) == 0

    said = [line for line in worker.err if " is away" in line or " is back" in line]
    assert len(said) == 4, said
    assert "asyncpg" not in "".join(worker.err)  # its pool has a trace for every try
    assert health(folder).draining
