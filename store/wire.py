"""Drafts and closes as the step functions take them: JSON, and the bytes it points to by index.

Everything is checked here, before it is queued: a NUL or a number out of range that PostgreSQL
refuses would fail the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

import orjson

from runward.contracts.approvals import ApprovalRequest
from runward.contracts.audit import LEAF_BYTES_MAX
from runward.contracts.budget import AMOUNT_MAX, Dimension
from runward.contracts.encoding import clean
from runward.contracts.errors import RequestRefused
from runward.contracts.steps import (
    Admitted,
    Answer,
    Asked,
    Close,
    Draft,
    Opening,
    Recorded,
    Refused,
    Settled,
    Short,
    StepKey,
    Wait,
)

TEXT_BYTES_MAX = 1_000  # Temporal's own bound on ids, and far below an index entry's
ARGUMENTS_BYTES_MAX = 1024 * 1024
BLOB_BYTES_MAX = 16 * 1024 * 1024
INT_MAX = 2**31 - 1
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)


@dataclass(slots=True)
class Encoded:
    """One item of a batch."""

    body: str = ""
    blobs: list[bytes] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Returns about how many bytes the item adds to a statement."""
        return len(self.body) + sum(map(len, self.blobs))

    def put(self, name: str, blob: bytes, *, bytes_max: int = BLOB_BYTES_MAX) -> int:
        """Returns the index under which the item's JSON names these bytes."""
        if len(blob) > bytes_max:
            raise _out_of_range(name, f"{len(blob)} bytes", f"at most {bytes_max} bytes")
        self.blobs.append(blob)
        return len(self.blobs) - 1

    def leaf(self, name: str, blob: bytes) -> int:
        """Returns the index of an audit leaf."""
        return self.put(name, blob, bytes_max=LEAF_BYTES_MAX)


def statement(items: Sequence[Encoded]) -> tuple[str, list[bytes], list[int]]:
    """Returns the arguments of one batch: all items, all bytes, where each item's bytes begin."""
    blobs: list[bytes] = []
    firsts = []
    for item in items:
        firsts.append(len(blobs) + 1)
        blobs += item.blobs
    return "[" + ",".join(item.body for item in items) + "]", blobs, firsts


def encode_draft(draft: Draft) -> Encoded:
    """Returns the draft as an item. Errors: RequestRefused for what cannot be stored."""
    item = Encoded()
    body: dict[str, Any] = _key(draft.key) | {
        "kind": draft.kind,
        "name": text("name", draft.name),
        "digest": text("digest", draft.digest, least=1),
        "workflow_id": text("workflow_id", draft.workflow_id),
        "execution_run_id": text("execution_run_id", draft.execution_run_id),
        "attempt": whole("attempt", draft.attempt),
        "nonce": text("nonce", draft.nonce, least=1),
        "idempotent": draft.idempotent,
        "on_unknown": draft.on_unknown,
        "arguments": _long("arguments", draft.arguments),
        "verdict": draft.verdict,
        "reason": _long("reason", draft.reason),
        "rule": _long("rule", draft.rule),
        "approval_id": None if draft.approval_id is None else text("approval", draft.approval_id),
        "approver_role": None
        if draft.approver_role is None
        else text("approver_role", draft.approver_role),
        "approval_ttl_s": whole("approval_ttl_s", draft.approval_ttl_s),
        "execution_ttl_s": whole("execution_ttl_s", draft.execution_ttl_s),
        "hold_ttl_s": whole("hold_ttl_s", draft.hold_ttl_s),
        "buckets": _buckets(draft),
        "intent": item.leaf("intent", draft.intent),
    }
    if draft.parent is not None:
        parent = draft.parent
        body["parent"] = {
            "model": text("parent", parent.model),
            "index": whole("index", parent.index),
            "head": text("head", parent.head),
            "messages": [[text("step", s), text("digest", d)] for s, d in parent.messages],
        }
    if draft.opening is not None:
        body["opening"] = _opening(draft.opening, item)
    item.body = orjson.dumps(body).decode()
    return item


def encode_close(close: Close) -> Encoded:
    """Returns the close as an item. Errors: RequestRefused for what cannot be stored."""
    item = Encoded()
    actual = {d: whole(d, close.actual.amount(d), most=AMOUNT_MAX) for d in DIMENSIONS}
    body: dict[str, Any] = _key(close.key) | {
        "nonce": text("nonce", close.nonce),
        "attempt": whole("attempt", close.attempt),
        "state": close.state,
        "outcome": item.put("outcome", close.outcome),
        "record": item.leaf("record", close.record),
        "resolution": close.resolution,
        "actual": actual,
        "head": text("head", close.head),
        "message": text("message", close.message),
        "grants": [text("grant", one) for one in close.grants],
        "transcript": [
            {
                "head": text("head", row.head, least=1),
                "previous": text("previous", row.previous),
                "digest": text("digest", row.digest),
                "content": item.put("content", row.content),
                "prefix_bytes": whole("prefix_bytes", row.prefix_bytes, most=AMOUNT_MAX),
            }
            for row in close.transcript
        ],
    }
    if close.content:
        body["content"] = item.put("content", close.content)
    if close.closing is not None:
        body["closing"] = {
            "state": text("state", close.closing.state),
            "reason": _long("reason", close.closing.reason),
            "result_digest": text("result_digest", close.closing.result_digest),
            "record": item.leaf("record", close.closing.record),
        }
    item.body = orjson.dumps(body).decode()
    return item


def decode_answer(data: str, outcome: bytes | None) -> Answer:
    """Returns what `step_open` answered."""
    found = orjson.loads(data)
    match found.pop("a"):
        case "admitted":
            return Admitted()
        case "recorded":
            assert outcome is not None, "a recorded step has an outcome"
            return Recorded(outcome)
        case "settled":
            return Settled(**found)
        case "asked":
            return Asked(ApprovalRequest.model_validate(found))
        case "short":
            until = found.pop("window_end")
            return Short(**found, window_end=None if until is None else _moment(until))
        case "wait":
            return Wait(**found)
        case "refused":
            return Refused(**found)
        case other:
            raise AssertionError(f"step_open answered {other!r}")


def text(name: str, value: str, *, least: int = 0) -> str:
    """Returns the text if an index and JSON can hold it. Errors: RequestRefused."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _out_of_range(name, "a lone surrogate", "UTF-8 text") from None
    if "\x00" in value or not least <= size <= TEXT_BYTES_MAX:
        raise _out_of_range(name, f"{size} bytes", f"{least} to {TEXT_BYTES_MAX} bytes, no NUL")
    return value


def whole(name: str, value: int, *, most: int = INT_MAX) -> int:
    """Returns the number if its column can hold it. Errors: RequestRefused."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise _out_of_range(name, repr(value), f"a whole number from 0 to {most}")
    return value


def _key(key: StepKey) -> dict[str, Any]:
    return {
        "tenant": text("tenant", key.tenant, least=1),
        "run_id": text("run_id", key.run_id, least=1),
        "step": text("step", key.step, least=1),
        "epoch": whole("epoch", key.epoch),
        "round": whole("round", key.round),
    }


def _opening(opening: Opening, item: Encoded) -> dict[str, Any]:
    names = ("user", "agent", "agent_digest", "policy", "session", "request_digest", "kid", "jti")
    return {name: text(name, getattr(opening, name)) for name in names} | {
        "roles": [text("role", role) for role in opening.roles],
        "record": item.leaf("record", opening.record),
        "agent_snapshot": item.put("agent_snapshot", opening.agent_snapshot),
        "policy_body": item.put("policy_body", opening.policy_body),
    }


def _buckets(draft: Draft) -> list[dict[str, Any]]:
    found = []
    for bucket in draft.buckets:
        text("scope_id", bucket.scope_id)
        amount = whole(bucket.dimension, draft.bound.amount(bucket.dimension), most=AMOUNT_MAX)
        whole("cap", bucket.cap, most=AMOUNT_MAX)
        found.append(
            {
                "scope": bucket.scope,
                "scope_id": bucket.scope_id,
                "dimension": bucket.dimension,
                "period": bucket.period,
                "cap": bucket.cap,
                "amount": amount,
            }
        )
    places = {(b["scope"], b["scope_id"], b["dimension"], b["period"]) for b in found}
    if len(places) != len(found):
        raise _out_of_range("buckets", "a bucket twice", "each bucket once")
    return found


def _long(name: str, value: str) -> str:
    cleaned = clean(value)
    if len(cleaned.encode()) > ARGUMENTS_BYTES_MAX:
        raise _out_of_range(name, "more", f"at most {ARGUMENTS_BYTES_MAX} bytes")
    return cleaned


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _out_of_range(name: str, found: str, holds: str) -> RequestRefused:
    return RequestRefused(f"{name}: {found}", f"It has to be {holds}", "Give less or another")
