"""Transcripts, contents, lists and prices."""

from __future__ import annotations

import hashlib

import asyncpg

from runward.contracts.encoding import digest
from runward.contracts.steps import TranscriptRow
from runward.contracts.story import RunQuery
from runward.contracts.transcript import GENESIS
from runward.contracts.usage import Usage
from runward.store.prices import SCRIPTED, price
from runward.store.reads import RUNS_LISTED
from tests.store_case import Case


async def test_a_conversation_is_read_by_its_head(case: Case) -> None:
    await case.started("call-0")
    draft = await case.admit(case.draft("t2.model", kind="model"))
    rows = (
        TranscriptRow("head-2", "head-1", "message-2", b"tool", 9),
        TranscriptRow("head-3", "head-2", "message-3", b"model", 14),
    )
    fork = TranscriptRow("head-2b", "head-1", "message-2b", b"other", 10)
    await case.close(draft, head="head-3", transcript=(*rows, fork))
    read = case.store.transcripts

    first = TranscriptRow("head-1", GENESIS, "message-1", b"hello", 5)
    assert await read.messages(case.tenant, case.run, "head-3") == (first, *rows)
    assert await read.messages(case.tenant, case.run, "head-2b") == (first, fork)
    assert await read.messages(case.tenant, case.run, "unknown") == ()
    assert len(await read.messages(case.tenant, case.run)) == 4
    assert await read.prefix_bytes(case.tenant, case.run, "head-3") == 14
    assert await read.prefix_bytes(case.tenant, case.run, "unknown") is None


async def test_outcomes_are_read_by_step(case: Case) -> None:
    await case.started("call-0")
    await case.admit(case.draft())

    found = await case.store.transcripts.outcomes(case.key(""), ["t1.model", "t1.tool.1"])

    assert set(found) == {"t1.model"}
    assert (found["t1.model"].outcome, found["t1.model"].grants) == (b"answer 1", ("call-0",))


async def test_content_is_checked_against_its_digest(
    case: Case, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await case.started()
    large = b"x" * 100_000
    await case.close(await case.admit(case.draft()), message=digest(large), content=large)

    assert await case.store.transcripts.content(case.tenant, digest(large)) == large
    await owner.execute(
        "update runward.content set content = 'forged' where tenant = $1", case.tenant
    )
    assert await case.store.transcripts.content(case.tenant, digest(large)) is None
    assert await case.store.transcripts.content("another", digest(large)) is None


async def test_an_audit_record_carries_the_leaf_hash_of_its_bytes(case: Case) -> None:
    await case.started()

    rows = await case.owner.fetch(
        "select leaf, leaf_hash from runward.audit_record where tenant = $1", case.tenant
    )

    assert len(rows) == 3
    assert all(hashlib.sha256(b"\x00" + leaf).digest() == hash_ for leaf, hash_ in rows)


async def test_runs_and_steps_are_listed_for_their_tenant_only(case: Case) -> None:
    await case.started()
    await case.admit(case.draft())
    reads = case.store.reads

    (run,) = await reads.runs(case.tenant, RunQuery(user="ada", state="open"))

    assert run == await reads.run(case.tenant, case.run)
    assert await reads.run("another", case.run) is None
    assert await reads.runs(case.tenant, RunQuery(user="bob")) == ()
    steps = await reads.steps(case.tenant, case.run)
    assert [(s.step, s.state, s.tries) for s in steps] == [
        ("t1.model", "done", 1),
        ("t1.tool.1", "open", 1),
    ]


async def test_runs_are_listed_without_sorting_all_of_a_tenants(case: Case) -> None:
    # With so few rows the planner would read them all.
    await case.owner.execute("set enable_seqscan = off; set enable_bitmapscan = off")

    plan = await case.owner.fetch(
        f"explain {RUNS_LISTED}", case.tenant, None, None, None, None, 100
    )

    text = "\n".join(row[0] for row in plan)
    assert "run_listed" in text
    assert "Sort" not in text


def test_a_scripted_model_has_a_fixed_price() -> None:
    assert price("scripted:anything") == SCRIPTED
    assert SCRIPTED.cost(Usage(1, 1, 1, 1)) == 1_000 + 100 + 1_250 + 5_000


def test_a_known_model_is_priced_in_whole_nano_dollars() -> None:
    found = price("anthropic:claude-sonnet-4-5", 1_000)

    assert found is not None and found.version.startswith("genai-prices-")
    counters = (found.input, found.cache_read, found.cache_write, found.output)
    assert counters == (3_000, 300, 3_750, 15_000)


def test_without_a_size_the_highest_tier_counts() -> None:
    found = price("anthropic:claude-sonnet-4-5")

    assert found is not None and (found.input, found.output) == (6_000, 22_500)


def test_an_unknown_model_has_no_price() -> None:
    assert price("anthropic:no-such-model") is None
    assert price("nobody:claude-sonnet-4-5") is None
