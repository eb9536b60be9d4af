"""The store as one object: open it, check its schema, use its parts."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from runward.contracts.errors import ConfigurationError
from runward.store.approvals import ApprovalStore
from runward.store.content import ContentStore
from runward.store.database import CONNECTIONS_MAX, FAILURES, Database, Failure, translate
from runward.store.issuers import IssuerStore
from runward.store.migrate import check
from runward.store.progress import ProgressStore
from runward.store.reads import ReadStore
from runward.store.retention import RetentionStore
from runward.store.runs import RunStore
from runward.store.steps import StepStore
from runward.store.stories import StoryStore
from runward.store.transcript import TranscriptStore

# As an error, and not as a row: then the connection is given up, too.
_WRITABLE = """
do $$ begin
  if current_setting('transaction_read_only')::boolean then
    raise read_only_sql_transaction;
  end if;
end $$
"""


class Store:
    """An async context manager over one database; it belongs to the event loop that opened it.

    `role` is taken by every connection, so that a DSN of the owner's can serve a worker:
    `Store(dsn, role="runward_worker")`.
    """

    def __init__(
        self, dsn: str, *, role: str | None = None, connections_max: int = CONNECTIONS_MAX
    ) -> None:
        self._database = Database(dsn, role=role, connections_max=connections_max)
        self.steps = StepStore(self._database)
        self.runs = RunStore(self._database)
        self.approvals = ApprovalStore(self._database)
        self.issuers = IssuerStore(self._database)
        self.transcripts = TranscriptStore(self._database)
        self.content = ContentStore(self._database)
        self.reads = ReadStore(self._database)
        self.stories = StoryStore(self._database, self.reads, self.approvals)
        self.progress = ProgressStore(self._database)
        self.retention = RetentionStore(self._database)

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.steps.drain()
        await self._database.close()

    @property
    def failure(self) -> Failure | None:
        """Returns the last time that the store was away from here, None if it never was."""
        return self._database.failure

    async def check_writable(self) -> None:
        """Raises StoreUnavailable for a store that is away or only reads, as a standby does."""
        await self._database.fetch(_WRITABLE)

    async def check_schema(self) -> None:
        """Refuses a database whose schema is missing, older, newer or edited.

        Errors: ConfigurationError, StoreUnavailable.
        """
        try:
            async with self._database.pool.acquire() as connection:
                found = await check(connection)
        except FAILURES as error:
            raise translate(error) from error
        if found.pending:
            raise ConfigurationError(
                "the store's schema",
                f"{len(found.pending)} of its migrations are not applied, from {found.pending[0]}",
                "Run `runward db migrate`",
            )
