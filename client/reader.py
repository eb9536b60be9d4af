"""How a client reads the store: directly, in processes that may hold its DSN.

A client never writes to the store. Whatever changes a row goes through a workflow.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from runward.contracts.approvals import Approval, ApprovalState

if TYPE_CHECKING:
    from runward.store.pool import Store


ROLE = "runward_reader"  # taken by every connection: a client may read, and nothing else
CONNECTIONS_MAX = 4


@dataclass(frozen=True, slots=True)
class RunRow:
    """What the store says of a run; `result_digest` is that of the answer's UTF-8 bytes."""

    user: str
    agent: str
    session: str
    state: str
    reason: str
    result_digest: str
    content_gone_at: datetime | None = None  # since then retention deletes what was said


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

    async def content(self, tenant: str, digest: str) -> bytes | None:
        """Returns a message by its digest, None if it is not there."""
        ...

    async def close(self) -> None:
        """Lets go of all connections."""
        ...


class DirectReader:
    """Reads the store itself, over a DSN; connects on the first call. For trusted processes."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._store: Store | None = None
        self._opening = asyncio.Lock()
        self._exit = AsyncExitStack()

    async def approvals(self, tenant: str, state: ApprovalState) -> list[Approval]:
        """Returns the tenant's requests in that state, newest first."""
        store = await self._opened()
        return list(await store.approvals.list(tenant, state))

    async def approval(self, tenant: str, approval_id: str) -> Approval | None:
        """Returns one request, None if the tenant has none of that id."""
        store = await self._opened()
        return await store.approvals.get(tenant, approval_id)

    async def run(self, tenant: str, run_id: str) -> RunRow | None:
        """Returns the run, None if the tenant has none of that id."""
        store = await self._opened()
        row = await store.reads.run(tenant, run_id)
        if row is None:
            return None
        return RunRow(row.user, row.agent, row.session, row.state, row.reason, row.result_digest,
                      row.content_gone_at)  # fmt: skip

    async def content(self, tenant: str, digest: str) -> bytes | None:
        """Returns a message by its digest, None if it is not there."""
        store = await self._opened()
        return await store.transcripts.content(tenant, digest)

    async def close(self) -> None:
        """Lets go of all connections; a later call connects again."""
        async with self._opening:
            self._store = None
            await self._exit.aclose()

    async def _opened(self) -> Store:
        async with self._opening:
            if self._store is None:
                # Here and not above: a client that reads no store needs no database driver.
                from runward.store.pool import Store

                self._store = await self._exit.enter_async_context(
                    Store(self._dsn, role=ROLE, connections_max=CONNECTIONS_MAX)
                )
            return self._store
