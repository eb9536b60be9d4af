"""The governed step's two commits: may this attempt run, and how did it end."""

from __future__ import annotations

from collections.abc import Sequence

from runward.contracts.errors import RequestRefused
from runward.contracts.shapes import Onward
from runward.contracts.steps import Answer, Close, Closed, Draft, Refused, StepKey
from runward.store.batch import LOCKED, GroupCommit, Locked
from runward.store.database import Database
from runward.store.wire import Encoded, decode_answer, encode_close, encode_draft, statement

_OPEN = "select answer, outcome from runward.step_open($1::jsonb, $2::bytea[], $3::int[], $4)"
_CLOSE = "select outcome, late from runward.step_close($1::jsonb, $2::bytea[], $3::int[], $4)"

_LOCKED = '{"a": "locked"}'


class StepStore:
    """Opens and closes steps, many of them in one commit."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.opens: GroupCommit[Encoded, Answer] = GroupCommit(self._open)
        self.closes: GroupCommit[Encoded, Closed] = GroupCommit(self._close)

    async def open(self, draft: Draft) -> Answer:
        """Returns whether this attempt may run; sent again with the same nonce, the same answer.

        Errors: StoreUnavailable; then nothing may run, and the attempt is to be repeated.
        """
        try:
            item = encode_draft(draft)
        except RequestRefused as error:
            return Refused("input", str(error))
        return await self.opens.submit(item, tenant=draft.key.tenant, size=item.size)

    async def close(self, close: Close) -> Closed:
        """Returns the step's recorded outcome: ours, or the one that was there first (`late`).

        A late close of a step that has no outcome returns b"". Errors: StoreUnavailable;
        RequestRefused for a close that cannot be stored.
        """
        item = encode_close(close)
        return await self.closes.submit(item, tenant=close.key.tenant, size=item.size)

    async def failed(self, key: StepKey, nonce: str, onward: Onward, unreadable: int) -> None:
        """Notes which model the next attempt asks, and how many answers of it were unreadable.

        Only for the attempt that is open. Errors: StoreUnavailable; noting it again is harmless.
        """
        await self._database.row(
            "select runward.step_failed($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            key.tenant,
            key.run_id,
            key.round,
            key.epoch,
            key.step,
            nonce,
            onward.place,
            onward.model,
            unreadable,
        )

    async def drain(self) -> None:
        """Waits until everything that was queued is answered."""
        await self.opens.drain()
        await self.closes.drain()

    async def _open(self, items: Sequence[Encoded], wait_ms: int) -> list[Answer | Locked]:
        body, blobs, firsts = statement(items)
        rows = await self._database.fetch(_OPEN, body, blobs, firsts, wait_ms)
        return [
            LOCKED if answer == _LOCKED else decode_answer(answer, outcome)
            for answer, outcome in rows
        ]

    async def _close(self, items: Sequence[Encoded], wait_ms: int) -> list[Closed | Locked]:
        body, blobs, firsts = statement(items)
        rows = await self._database.fetch(_CLOSE, body, blobs, firsts, wait_ms)
        return [LOCKED if late is None else Closed(outcome or b"", late) for outcome, late in rows]
