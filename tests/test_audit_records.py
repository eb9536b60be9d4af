"""Records of runs as exact bytes: whoever checks a log computes its hashes from them."""

from __future__ import annotations

from datetime import UTC, datetime

from runward.contracts.audit import leaf_hash, run_record
from runward.contracts.steps import Run

RUN = Run("acme", "r1", "w1", "ada", frozenset({"sales"}), "support", "s1", "p1")
AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def test_a_runs_end_has_these_bytes() -> None:
    record = run_record(
        "run_ended", RUN, action="support", actor="sweeper", at=AT, outcome="terminated"
    )

    assert record.leaf == (
        b'{"action":"support","actor":"sweeper","agent":"support",'
        b'"at":"2026-01-02T03:04:05.000678+00:00","attempt":0,"kind":"run_ended",'
        b'"outcome":"terminated","policy":"p1","run":"r1","session":"s1","tenant":"acme",'
        b'"user":"ada","v":1,"workflow":"w1"}'
    )


def test_a_record_names_a_digest_and_a_result_only_where_there_is_one() -> None:
    plain = run_record("run_ended", RUN, action="support", actor="worker", at=AT).leaf
    full = run_record(
        "run_started", RUN, action="support", actor="user", at=AT, digest="d1", result="r9"
    ).leaf

    assert b'"digest"' not in plain and b'"result"' not in plain
    assert b'"digest":"d1"' in full and b'"result":"r9"' in full
    assert leaf_hash(plain) != leaf_hash(full)
