"""A stack for one test: its own tenant and task queue on shared servers; tests never meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, Plugin, WorkflowHistory
from temporalio.worker import Worker

from runward.client.keys import KeyFile
from runward.client.reader import ROLE, DirectReader
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.client.runward_client import RunwardClient
from runward.contracts.identity import Issuer
from runward.store.pool import Store
from runward.testing.ran import Ran
from runward.workers.plugin import RunwardPlugin
from runward.workers.running import running

AFTER_GRACE_S_MAX = 15.0  # for activities that were cancelled at the end of a test


class PassingReader(DirectReader):
    """Reads the store with a connection for each call: it belongs to no event loop.

    A pool would outlive the loop of the test that opened it. A test reads a handful of rows.
    """

    @asynccontextmanager
    async def _store(self) -> AsyncIterator[Store]:
        async with Store(self._dsn, role=ROLE, connections_max=1) as store:
            yield store


class Stack:
    """Clients and workers of one tenant, on a task queue of its own.

    It holds nothing open but what `worker` runs, so tests may use it in any event loop.
    """

    def __init__(self, database_url: str, temporal_address: str, key: KeyFile) -> None:
        self.database_url = database_url
        self.temporal_address = temporal_address
        self.key = key
        self.tenant = f"t-{uuid4().hex[:12]}"
        self.task_queue = f"q-{uuid4().hex[:12]}"
        self._client: RunwardClient | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, database_url: str, temporal_address: str, *, key_file: Path
    ) -> AsyncIterator[Stack]:
        """Yields a stack whose issuer is registered; the database must be migrated."""
        yield await cls.create(database_url, temporal_address, key_file=key_file)

    @classmethod
    async def create(cls, database_url: str, temporal_address: str, *, key_file: Path) -> Stack:
        """Returns a stack whose issuer is registered; the database must be migrated."""
        key = KeyFile.create(key_file)
        stack = cls(database_url, temporal_address, key)
        async with Store(database_url, connections_max=1) as store:
            every = ("*",)
            await store.issuers.add(
                Issuer(str(key.key.kid), key.public_key, (stack.tenant,), every, every)
            )
        return stack

    async def client(self) -> RunwardClient:
        """Returns the tenant's client."""
        if self._client is None:
            temporal = await Client.connect(self.temporal_address)
            reader = PassingReader(self.database_url)
            self._client = RunwardClient(
                temporal, issuer=self.key, reader=reader, task_queue=self.task_queue
            )
        return self._client

    async def acting_as(self, user: str, roles: Iterable[str] = ()) -> ActingClient:
        """Returns the client of one user of the tenant."""
        return (await self.client()).acting_as(user, tenant=self.tenant, roles=roles)

    async def history(self, run: RunHandle[Any] | str) -> WorkflowHistory:
        """Returns the history of a run, or of the workflow of that id, to replay or to keep."""
        workflow_id = run if isinstance(run, str) else run.id
        temporal = (await self.client()).temporal
        return await temporal.get_workflow_handle(workflow_id).fetch_history()

    async def ran(self, run: RunHandle[Any]) -> Ran:
        """Returns what a run did so far: `calls`, `verdicts` and `spend`, to be asserted."""
        return Ran(await run.story())

    def plugin(self, **given: Any) -> RunwardPlugin:
        """Returns a plugin on this stack's store; takes what `RunwardPlugin` takes."""
        return RunwardPlugin(database_url=self.database_url, **given)

    @asynccontextmanager
    async def worker(
        self, plugin: RunwardPlugin, *, others: Sequence[Plugin] = (), **options: Any
    ) -> AsyncIterator[Worker]:
        """Yields a running worker; `options` go to Temporal's `Worker`."""
        client = await Client.connect(self.temporal_address, plugins=[*others, plugin])
        worker = Worker(client, task_queue=self.task_queue, **options)
        settings = worker.config(active_config=True)  # a plugin's, too
        grace = settings.get("graceful_shutdown_timeout", timedelta())
        async with running(worker, drain_s_max=grace.total_seconds() + AFTER_GRACE_S_MAX):
            yield worker
