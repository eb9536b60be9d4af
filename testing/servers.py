"""A PostgreSQL and a Temporal server for a whole test session, on a thread of their own.

They outlive the event loops of the tests. With pytest-xdist one process starts them for all
(`sharing.py`).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from runward.contracts.errors import ConfigurationError
from runward.workers.child import ChildFailed
from runward.workers.embedded_postgres import EmbeddedPostgres
from runward.workers.temporal_binary import find_temporal
from runward.workers.temporal_dev_server import TemporalDevServer

CANNOT_START = (ConfigurationError, ChildFailed)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the servers are; plain text, so that it can be handed to other processes."""

    postgres: str
    temporal: str


class Servers:
    """Starts both servers at once and returns when they answer; `stop` ends them.

    `postgres` (a DSN whose user may create databases and roles) and `temporal` (host:port) name
    servers that exist: they are used and not stopped.
    """

    def __init__(self, *, postgres: str | None = None, temporal: str | None = None) -> None:
        self._postgres, self._temporal = postgres, temporal
        self._addresses: Addresses | None = None
        self._failure: BaseException | None = None
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="runward servers", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure

    @property
    def addresses(self) -> Addresses:
        """Returns where the servers are."""
        assert self._addresses is not None, "the constructor waits until they are known"
        return self._addresses

    def stop(self) -> None:
        """Stops the servers and waits until they are gone."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  # raised again on the thread that waits
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            postgres = self._postgres or await _start_postgres(stack)
            temporal = self._temporal or await _start_temporal(stack)
            self._addresses = Addresses(postgres, temporal)
            self._started.set()
            await self._stop.wait()


async def _start_postgres(stack: AsyncExitStack) -> str:
    return (await stack.enter_async_context(EmbeddedPostgres(None))).dsn


async def _start_temporal(stack: AsyncExitStack) -> str:
    binary = await find_temporal(None, progress=lambda text: print(text, file=sys.stderr))
    # A file, not memory: an interrupted query can cost the in-memory database its only
    # connection, and with it everything that was in it.
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="runward-temporal-"))
    server = TemporalDevServer(binary, Path(folder), ui=False)
    return (await stack.enter_async_context(server)).address
