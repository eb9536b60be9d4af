"""What was said and what steps came to, for workers that rebuild a conversation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runward.contracts.encoding import digest as digest_of_bytes
from runward.contracts.steps import StepKey, StepState, TranscriptRow
from runward.store.content import ContentStore
from runward.store.database import Database, Row

_COLUMNS = "head, previous, digest, content, prefix_bytes"
_CHAIN = f"""
with recursive chain as (
  select {_COLUMNS}, 1 as place from runward.transcript
   where tenant = $1 and run_id = $2 and head = $3
  union all
  select t.head, t.previous, t.digest, t.content, t.prefix_bytes, c.place + 1
    from chain c join runward.transcript t
      on t.tenant = $1 and t.run_id = $2 and t.head = c.previous
)
select {_COLUMNS} from chain order by place desc"""
_OUTCOMES = """
select distinct on (step) step, state, digest, outcome, head, message, grants, epoch
  from runward.step
 where tenant = $1 and run_id = $2 and round = $3 and epoch <= $4 and step = any($5::text[])
   and outcome is not null
 order by step, epoch desc"""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """The newest recorded outcome of a step."""

    step: str
    state: StepState
    digest: str
    outcome: bytes
    head: str
    message: str
    grants: tuple[str, ...]
    epoch: int


class TranscriptStore:
    """Reads messages by their heads and digests. They are written by `step_close` only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._large = ContentStore(database)

    async def messages(
        self, tenant: str, run_id: str, head: str | None = None
    ) -> tuple[TranscriptRow, ...]:
        """Returns the messages up to `head` in their order, () if that head is unknown.

        Without a head: every message of the run, shortest prefix first; after a reset these fork.
        A message that is large has no content here; `content` has it.
        """
        if head is not None:
            rows = await self._database.fetch(_CHAIN, tenant, run_id, head)
        else:
            rows = await self._database.fetch(
                f"select {_COLUMNS} from runward.transcript where tenant = $1 and run_id = $2"
                " order by prefix_bytes, head",
                tenant,
                run_id,
            )
        return tuple(map(_row, rows))

    async def prefix_bytes(self, tenant: str, run_id: str, head: str) -> int | None:
        """Returns the bytes of all messages up to that head, None if it is unknown."""
        found = await self._database.value(
            "select prefix_bytes from runward.transcript"
            " where tenant = $1 and run_id = $2 and head = $3",
            tenant,
            run_id,
            head,
        )
        return None if found is None else int(found)

    async def outcomes(self, key: StepKey, steps: Iterable[str]) -> dict[str, StepOutcome]:
        """Returns the recorded outcomes of those steps, as the key's round and epoch see them."""
        rows = await self._database.fetch(
            _OUTCOMES, key.tenant, key.run_id, key.round, key.epoch, list(steps)
        )
        return {
            row["step"]: StepOutcome(**{**dict(row), "grants": tuple(row["grants"])})
            for row in rows
        }

    async def content(self, tenant: str, digest: str) -> bytes | None:
        """Returns the message of that digest, large or not, None if it is unknown.

        Checked against its digest: what a database hands out may have been changed.
        """
        found = await self._database.value(
            "select content from runward.content where tenant = $1 and digest = $2", tenant, digest
        )
        if found is None:
            return await self._large.read(tenant, digest)
        data = bytes(found)
        return data if digest_of_bytes(data) == digest else None


def _row(row: Row) -> TranscriptRow:
    return TranscriptRow(**dict(row))
