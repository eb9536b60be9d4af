"""What happened in runs, in the order of the transactions that wrote it down.

A transaction is shown once all before it have ended, so that no event can come in before one that
was shown already. The price: while one writes for long, such as a migration, events come later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from runward.contracts.audit import RecordKind
from runward.contracts.progress import Offset, Progress, ProgressKind, Watched
from runward.store.database import Database, Row

EVENTS_MAX = 500  # of one run and one look; the rest comes with the next

# From the last transaction that was seen, and that one again: a watcher may have a part of it.
_SINCE = """
select w.place, e.*
  from unnest($1::text[], $2::text[], $3::text[]) with ordinality as w(tenant, run_id, xact, place),
       lateral (
         select a.xact, 0 as part, a.seq, a.kind, a.step, a.leaf, a.at, '' as id, '' as title
           from runward.audit_record a
          where a.tenant = w.tenant and a.run_id = w.run_id and not a.late
            and a.xact >= w.xact::xid8 and a.xact < pg_snapshot_xmin(pg_current_snapshot())
         union all
         select p.xact, 1, 0, 'requested', p.step, null, p.created_at, p.id, p.tool
           from runward.approval p
          where p.tenant = w.tenant and p.run_id = w.run_id
            and p.xact >= w.xact::xid8 and p.xact < pg_snapshot_xmin(pg_current_snapshot())
         order by 1, 2, 3, 8 limit $4
       ) e
 order by w.place, e.xact, e.part, e.seq, e.id"""

_KINDS: dict[RecordKind, ProgressKind] = {
    "run_started": "run_started",
    "intent": "call_started",
    "outcome": "call_ended",
    "approval": "approval_decided",
    "run_ended": "run_ended",
}
_PLACE = re.compile(r"^\d+\.\d+\.")  # round and epoch, before the step's id


class ProgressStore:
    """Reads events; nothing is written for those who watch."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def since(self, watched: Sequence[Watched]) -> list[tuple[Progress, ...]]:
        """Returns each run's events behind those that its watcher has, in one query."""
        rows = await self._database.fetch(
            _SINCE,
            [one.tenant for one in watched],
            [one.run_id for one in watched],
            [str(one.after.transaction) for one in watched],
            EVENTS_MAX,
        )
        found: dict[int, list[Row]] = {}
        for row in rows:
            found.setdefault(row["place"], []).append(row)
        return [
            tuple(_events(found.get(place, []), one.after))
            for place, one in enumerate(watched, start=1)
        ]


def _events(rows: Sequence[Row], after: Offset) -> Iterator[Progress]:
    for transaction, group in groupby(rows, key=lambda row: int(row["xact"])):
        for number, row in enumerate(group, start=1):
            offset = Offset(transaction, number)
            if offset > after:
                yield _event(row, str(offset))


def _event(row: Row, offset: str) -> Progress:
    if row["leaf"] is None:
        return Progress(
            offset=offset,
            at=row["at"],
            kind="approval_requested",
            step=row["step"],
            name=row["title"],
            approval_id=row["id"],
        )
    return _recorded(json.loads(row["leaf"]), offset)


def _recorded(said: dict[str, Any], offset: str) -> Progress:
    """Returns the event that an audit record tells of."""
    action, outcome = said["action"], said.get("outcome", "")
    kind = "call_retried" if outcome == "retry" else _KINDS[said["kind"]]
    decided = kind == "approval_decided"
    return Progress(
        offset=offset,
        at=datetime.fromisoformat(said["at"]),
        kind=kind,
        step=_PLACE.sub("", said.get("step", "")),
        name="" if decided else action,
        attempt=said["attempt"],
        outcome=action.removeprefix("approval.") if decided else outcome,
        rule=said.get("rule", ""),
        by=said["user"] if kind in ("run_started", "approval_decided") else "",
        approval_id=outcome if decided else "",
    )
