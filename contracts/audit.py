"""Audit records: who did what, on whose behalf, under which rule; exact bytes and their leaf hash.

Intent is recorded before an effect and the outcome after it, in the transactions of the step.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Literal, NamedTuple

from runward.contracts.encoding import canonical
from runward.contracts.steps import Run

LEAF_BYTES_MAX = 65_535  # tlog-tiles entries have a 16-bit length

RecordKind = Literal["run_started", "intent", "outcome", "approval", "run_ended"]


class Record(NamedTuple):
    """One entry; content enters as digests only. Nothing that SQL decides is in it."""

    kind: RecordKind
    tenant: str
    user: str
    session: str
    run: str
    workflow: str
    step: str
    attempt: int
    actor: str
    agent: str
    action: str
    digest: str
    at: datetime
    rule: str = ""
    policy: str = ""
    outcome: str = ""
    result: str = ""

    @property
    def leaf(self) -> bytes:
        """Returns the exact bytes that are stored and hashed."""
        data = {name: value for name, value in self._asdict().items() if value != ""}
        data["at"], data["v"] = self.at.isoformat(), 1
        return canonical(data)


def run_record(
    kind: RecordKind,
    run: Run,
    *,
    action: str,
    actor: str,
    at: datetime,
    digest: str = "",
    outcome: str = "",
    result: str = "",
) -> Record:
    """Returns a record about the run itself."""
    return Record(
        kind=kind,
        tenant=run.tenant,
        user=run.user,
        session=run.session,
        run=run.run_id,
        workflow=run.workflow_id,
        step="",
        attempt=0,
        actor=actor,
        agent=run.agent,
        action=action,
        digest=digest,
        at=at,
        policy=run.policy,
        outcome=outcome,
        result=result,
    )


def leaf_hash(leaf: bytes) -> str:
    """Returns the RFC 6962 leaf hash in base64url: SHA-256 over 0x00 and the record's bytes."""
    raw = hashlib.sha256(b"\x00" + leaf).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
