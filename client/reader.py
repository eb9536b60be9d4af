"""How a client reads the store: directly, in processes that may hold its DSN.

A client changes no row: whatever does so goes through a workflow. What it puts there is content
that a request refers to, under its own digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from runward.client.watching import Watching
from runward.contracts.approvals import Approval, ApprovalState, missing
from runward.contracts.content import Content
from runward.contracts.encoding import is_clean
from runward.contracts.errors import ConfigurationError
from runward.contracts.progress import Offset, Progress, Watched
from runward.contracts.story import RunQuery, RunRow, Story, UserUsage

if TYPE_CHECKING:
    from runward.store.pool import Store


ROLE = "runward_reader"  # taken by every connection: a client may read, and put content
CONNECTIONS_MAX = 4


class Reader(Protocol):
    """What a client needs to see; each call names the tenant, and sees no other."""

    async def approvals(self, tenant: str, state: ApprovalState) -> list[Approval]:
        """Returns the tenant's requests in that state, newest first."""
        ...

    async def approval(self, tenant: str, approval_id: str) -> Approval | None:
        """Returns one request, None if the tenant has none of that id."""
        ...

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """Returns the run, None if the tenant has none of that id."""
        ...

    async def runs(self, tenant: str, query: RunQuery) -> list[RunRow]:
        """Returns the tenant's runs that the query asks for, newest first."""
        ...

    async def story(self, tenant: str, run_id: str) -> Story | None:
        """Returns the run with all its calls, None if the tenant has none of that id."""
        ...

    async def usage(self, tenant: str, user: str, since: datetime) -> UserUsage:
        """Returns what the user's models answered since then, and the user's caps."""
        ...

    def watch(self, tenant: str, run_id: str, after: Offset) -> AsyncIterator[tuple[Progress, ...]]:
        """Yields the run's events behind the offset, again and again; () where there are none."""
        ...

    async def content(self, tenant: str, digest: str) -> bytes | None:
        """Returns a message by its digest, None if it is not there."""
        ...

    def chunks(self, tenant: str, run_id: str, digest: str) -> AsyncIterator[bytes]:
        """Yields large content that the run uses, in chunks; none if it is not there.

        Errors: Changed, before the last chunk, where the whole is not what the digest names.
        """
        ...

    async def put(self, tenant: str, content: Content) -> None:
        """Stores content for a run that is about to be started."""
        ...

    async def close(self) -> None:
        """Lets go of all connections."""
        ...


class DirectReader:
    """Reads the store itself, over a DSN; connects on the first call. For trusted processes."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._opened: Store | None = None
        self._opening = asyncio.Lock()
        self._exit = AsyncExitStack()
        self._watching = Watching(self._look)

    async def approvals(self, tenant: str, state: ApprovalState) -> list[Approval]:
        """Returns the tenant's requests in that state, newest first."""
        async with self._store() as store:
            return list(await store.approvals.list(tenant, state))

    async def approval(self, tenant: str, approval_id: str) -> Approval | None:
        """Returns one request, None if the tenant has none of that id."""
        async with self._store() as store:
            return await store.approvals.get(tenant, approval_id)

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """Returns the run, None if the tenant has none of that id."""
        async with self._store() as store:
            return await store.reads.run(tenant, run_id)

    async def runs(self, tenant: str, query: RunQuery) -> list[RunRow]:
        """Returns the tenant's runs that the query asks for, newest first."""
        async with self._store() as store:
            return list(await store.reads.runs(tenant, query))

    async def story(self, tenant: str, run_id: str) -> Story | None:
        """Returns the run with all its calls, None if the tenant has none of that id."""
        async with self._store() as store:
            return await store.stories.story(tenant, run_id)

    async def usage(self, tenant: str, user: str, since: datetime) -> UserUsage:
        """Returns what the user's models answered since then, and the user's caps."""
        async with self._store() as store:
            return await store.stories.usage(tenant, user, since)

    def watch(self, tenant: str, run_id: str, after: Offset) -> AsyncIterator[tuple[Progress, ...]]:
        """Yields the run's events behind the offset, again and again; () where there are none."""
        return self._watching.batches(tenant, run_id, after)

    async def content(self, tenant: str, digest: str) -> bytes | None:
        """Returns a message by its digest, None if it is not there."""
        async with self._store() as store:
            return await store.transcripts.content(tenant, digest)

    async def chunks(self, tenant: str, run_id: str, digest: str) -> AsyncIterator[bytes]:
        """Yields large content that the run uses, in chunks; none if it is not there.

        Errors: Changed, before the last chunk, where the whole is not what the digest names.
        """
        async with self._store() as store:
            if await store.content.used(tenant, run_id, digest):
                async for chunk in store.content.chunks(tenant, digest):
                    yield chunk

    async def put(self, tenant: str, content: Content) -> None:
        """Stores content for a run that is about to be started."""
        async with self._store() as store:
            await store.content.put(tenant, content)

    async def close(self) -> None:
        """Lets go of all connections; a later call connects again."""
        await self._watching.close()
        async with self._opening:
            self._opened = None
            await self._exit.aclose()

    async def _look(self, watched: Sequence[Watched]) -> Sequence[tuple[Progress, ...]]:
        async with self._store() as store:
            return await store.progress.since(watched)

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store]:
        async with self._opening:
            if self._opened is None:
                # Here and not above: a client that reads no store needs no database driver.
                from runward.store.pool import Store

                self._opened = await self._exit.enter_async_context(
                    Store(self._dsn, role=ROLE, connections_max=CONNECTIONS_MAX)
                )
        yield self._opened


def needs_reader(reader: Reader | None, asked: str) -> Reader:
    """Returns the reader; raises ConfigurationError, naming the setting, if there is none."""
    if reader is None:
        raise ConfigurationError(
            asked,
            "It is in the store, and this client has no way to read it",
            "Connect with database_url=, or set RUNWARD_DATABASE_URL",
        )
    return reader


async def approval_of(reader: Reader, tenant: str, approval_id: str) -> Approval:
    """Returns one request; raises NotFound if the tenant has none of that id."""
    known = is_clean(approval_id)  # what the store cannot hold, it has not
    found = await reader.approval(tenant, approval_id) if known else None
    if found is None:
        raise missing(approval_id, tenant)
    return found
