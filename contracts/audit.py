"""Audit records: who did what, on whose behalf, under which rule; exact bytes and their leaf hash.

Intent is recorded before an effect and the outcome after it, in the transactions of the step.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

from runward.contracts.encoding import canonical

LEAF_BYTES_MAX = 65_535  # tlog-tiles entries have a 16-bit length

RecordKind = Literal["run_started", "intent", "outcome", "approval", "run_ended"]


@dataclass(frozen=True, slots=True)
class Record:
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
        # Not asdict: it copies deeply, which costs ten times the rest.
        data = {name: value for name in _FIELDS if (value := getattr(self, name)) != ""}
        return canonical({**data, "at": self.at.isoformat(), "v": 1})


_FIELDS = tuple(one.name for one in fields(Record))


def leaf_hash(leaf: bytes) -> str:
    """Returns the RFC 6962 leaf hash in base64url: SHA-256 over 0x00 and the record's bytes."""
    raw = hashlib.sha256(b"\x00" + leaf).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
