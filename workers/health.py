"""What a worker says of its servers: a line when one goes away and when it is back, and a file.

Steps wait for a server that is away and try again, each for itself; this says it once for all of
them. A probe asks both servers every other second. It changes nothing, so a store on a full disk
still answers it: what steps meet counts, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from runward.contracts.errors import RunwardError, StoreUnavailable, TemporalUnavailable
from runward.store.pool import Store
from runward.workers.health_file import Server, ServerState, WorkerHealth, write

T = TypeVar("T")

AGAIN_S = 1.0  # between two tries to reach a server at the start
PROBE_EVERY_S = 2.0
PROBE_S_MAX = 5.0
QUIET_S = 5.0  # without a step that the store failed: waiting steps ask again within two seconds
NOT_YET = "not reached yet"
_LOG = logging.getLogger("runward.worker")
_NAMES: dict[Server, str] = {"store": "the store", "temporal": "Temporal"}


class Health:
    """The state of a worker's servers, in a file if one is given."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._draining = False
        self._unwritten = ""  # why the file could not be written the last time
        self._states = {one: ServerState.now(up=False, reason=NOT_YET) for one in _NAMES}
        self._gone: dict[Server, float] = {}  # since when, by the clock that is never stepped

    def up(self, server: Server) -> None:
        """Notes that the server answers; says so if it had gone away."""
        if not self._states[server].up:
            self._states[server] = ServerState.now(up=True)
        self._write()
        if (gone := self._gone.pop(server, None)) is not None:
            _LOG.warning("%s is back after %.0f s", _NAMES[server], time.monotonic() - gone)

    def down(self, server: Server, reason: str) -> None:
        """Notes that the server is away; says so if that is new."""
        new = server not in self._gone
        if new:
            self._gone[server] = time.monotonic()
            self._states[server] = ServerState.now(up=False, reason=reason)
        self._write()
        if new:
            _LOG.warning("%s is away, what needs it waits: %s", _NAMES[server], reason)

    def drains(self) -> None:
        """Notes that the worker takes nothing new."""
        self._draining = True
        self._write()

    async def watch(self, store: Store, steps: Store, client: Client) -> None:
        """Probes until it is cancelled; `steps` is the store as the governed steps have it."""
        while True:
            await asyncio.gather(
                self._probe("store", _store_answers(store, steps)),
                self._probe("temporal", _temporal_answers(client)),
            )
            await asyncio.sleep(PROBE_EVERY_S)

    async def _probe(self, server: Server, answers: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(PROBE_S_MAX):
                await answers
        except TimeoutError:
            self.down(server, f"It did not answer within {PROBE_S_MAX:g} s")
        except (RunwardError, RPCError) as error:
            self.down(server, str(error))
        else:
            self.up(server)

    def _write(self) -> None:
        if self._file is None:
            return
        said = WorkerHealth(os.getpid(), **self._states, draining=self._draining, at=time.time())
        try:
            write(self._file, said)
            why = ""
        except OSError as error:
            why = str(error)
        if why and why != self._unwritten:  # it is tried every other second
            _LOG.warning("the health file cannot be written: %s", why)
        self._unwritten = why


async def reached(
    server: Server, ask: Callable[[], Awaitable[T]], health: Health, stop: asyncio.Event
) -> T | None:
    """Returns what `ask` does once the server is there; None if the worker is to stop first."""
    while not stop.is_set():
        try:
            found = await ask()
        except (StoreUnavailable, TemporalUnavailable) as error:
            health.down(server, str(error))
        else:
            health.up(server)
            return found
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await stop.wait()
    return None


async def _store_answers(store: Store, steps: Store) -> None:
    """Returns if the store can be written to, and did not fail a step a moment ago."""
    await store.check_writable()
    if (failure := steps.failure) is not None and time.monotonic() - failure.at < QUIET_S:
        raise failure.error


async def _temporal_answers(client: Client) -> None:
    await client.service_client.check_health(timeout=timedelta(seconds=PROBE_S_MAX))
