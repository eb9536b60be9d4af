"""Retention: what ended runs leave goes in bounded batches; open runs, ledgers and records stay."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from runward.contracts.budget import Bound
from runward.contracts.encoding import digest
from runward.contracts.errors import RequestRefused
from runward.contracts.steps import Refused, TranscriptRow
from runward.contracts.transcript import GENESIS
from runward.store.retention import Due, Part
from tests.store_case import Case, tokens

LARGE = b"l" * 40_000
TABLES = ("step", "hold", "approval", "transcript", "content", "content_use", "retired")
KEPT = {"run": 1, "execution": 1, "bucket": 1}


async def lived(case: Case, *, days: int | None = 40, content: bytes = LARGE) -> Case:
    """A run with every kind of row; it ended so many days ago, or is still open."""
    draft = await case.admit(case.first(**tokens(case, 5)))
    row = TranscriptRow("head-1", GENESIS, "message-1", b"hello", 5)
    said: dict[str, Any] = {"head": "head-1", "message": "message-1", "transcript": (row,)}
    await case.close(draft, b"answer", resolution="settle", actual=Bound(output_tokens=5), **said)
    asked = await case.asked(case.draft(verdict="ask", arguments='{"order": 17}'))
    await case.decide(asked)
    paid = await case.admit(case.draft(verdict="ask", approval_id=asked.request.id))
    closing = None if days is None else case.closing()
    await case.close(paid, b"paid", message=digest(content), content=content, closing=closing)
    if days is not None:
        await aged(case, days)
    return case


async def aged(case: Case, days: int) -> None:
    await case.owner.execute(
        "update runward.run set closed_at = now() - make_interval(days => $3)"
        " where tenant = $1 and run_id = $2",
        case.tenant,
        case.run,
        days,
    )


async def due(case: Case, part: Part, days: int) -> tuple[Due, ...]:
    """What is due of this case's tenant; other tests share the database."""
    found = await case.store.retention.due(part, days, limit=10_000)
    return tuple(one for one in found if one.tenant == case.tenant)


async def retired(case: Case, part: Part, days: int = 30, *, batch: int = 1000) -> int:
    """Marks what is due and deletes it; returns how many batches that took."""
    await case.store.retention.retire(part, days, await due(case, part, days))
    batches = 0
    while await case.store.retention.delete(batch):
        batches += 1
    return batches


async def rows(case: Case, *tables: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in tables or TABLES:
        found[table] = await case.owner.fetchval(
            f"select count(*) from runward.{table} where tenant = $1", case.tenant
        )
    return found


async def test_steps_go_with_everything_that_was_said(case: Case) -> None:
    await lived(case)
    before = await rows(case, *KEPT, "audit_record")
    assert all((await rows(case, *TABLES[:-1])).values())

    await retired(case, "steps")

    assert await rows(case) == dict.fromkeys(TABLES, 0)
    assert await rows(case, *KEPT, "audit_record") == before
    assert await case.counters("tokens") == (0, 5, 0)
    assert await due(case, "steps", 30) == await due(case, "content", 30) == ()


async def test_content_goes_and_the_steps_story_stays(case: Case) -> None:
    await lived(case)
    before = await rows(case, "step", "hold", "approval")

    await retired(case, "content")

    assert await rows(case, "transcript", "content", "content_use", "retired") == {
        "transcript": 0, "content": 0, "content_use": 0, "retired": 0
    }  # fmt: skip
    assert await rows(case, "step", "hold", "approval") == before
    assert set(await case.states("outcome", "step", "step")) == {b""}
    assert await case.states("arguments", "approval", "id") == [""]
    assert [one.run_id for one in await due(case, "steps", 30)] == [case.run]
    assert await due(case, "content", 30) == ()

    await retired(case, "steps")
    assert await rows(case) == dict.fromkeys(TABLES, 0)


@pytest.mark.parametrize("part", ["content", "steps"])
async def test_nothing_of_an_open_or_a_younger_run_goes(case: Case, part: Part) -> None:
    open_run = await lived(case, days=None)
    young = await lived(case.another_run(), days=29, content=b"y" * 40_000)
    before = await rows(case)
    every = [Due(case.tenant, one.run, "", await _now(case)) for one in (open_run, young)]

    assert await due(case, part, 30) == ()
    assert await case.store.retention.retire(part, 30, every) == 0
    await retired(case, part)

    assert await rows(case) == before


async def _now(case: Case) -> Any:
    return await case.owner.fetchval("select now()")


async def test_nobody_can_delete_what_is_younger_than_a_day(case: Case) -> None:
    await lived(case, days=0)
    run = Due(case.tenant, case.run, "", await _now(case))

    for days in (0, -1):
        with pytest.raises(RequestRefused):
            await case.store.retention.retire("steps", days, [run])
    assert await case.store.retention.retire("steps", 1, [run]) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "delete from runward.step",
        "delete from runward.retired",
        "insert into runward.retired values ('t', 'r', 'steps')",
        "update runward.run set content_gone_at = now()",
        "select runward.delete_content('t', 'r', 1)",
        "select runward.use_content('t', 'r', 'd', '')",
    ],
)
async def test_the_worker_role_may_not_delete_by_itself(
    owner: asyncpg.Connection[asyncpg.Record], statement: str
) -> None:
    await owner.execute("set role runward_worker")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.execute(statement)
    finally:
        await owner.execute("reset role")


async def test_batches_are_bounded_and_the_run_is_marked_before_the_first(case: Case) -> None:
    await case.started()
    for number in range(30):
        await case.close(await case.admit(case.draft(f"x.{number}")))
    run = await case.store.runs.find(case.workflow, case.run)
    assert run is not None
    await case.store.runs.close(run, case.closing())
    await aged(case, 40)
    await case.store.retention.retire("steps", 30, await due(case, "steps", 30))

    first = await case.store.retention.delete(10)
    left = await rows(case, "step", "hold", "transcript")

    assert first == 10
    assert sum(left.values()) == 31 + 31 + 1 - 10
    assert await case.store.retention.since(case.workflow, case.run) is not None
    assert await retired(case, "steps", batch=10) >= 5
    assert await rows(case) == dict.fromkeys(TABLES, 0)


async def test_content_that_another_run_uses_stays_until_that_run_is_due(case: Case) -> None:
    await lived(case)
    other = await lived(case.another_run(), days=None)

    await retired(case, "steps")
    assert await rows(case, "content", "content_use") == {"content": 1, "content_use": 1}
    assert await case.store.transcripts.content(case.tenant, digest(LARGE)) == LARGE

    run = await other.store.runs.find(other.workflow, other.run)
    assert run is not None
    await other.store.runs.close(run, other.closing())
    await aged(other, 40)
    await retired(case, "steps")
    assert await rows(case) == dict.fromkeys(TABLES, 0)


async def test_content_that_a_step_is_about_to_use_stays(case: Case) -> None:
    """Its use is not committed yet, so the deletion cannot see it: the lock speaks for it."""
    await lived(case)
    async with case.owner.transaction():
        await case.owner.execute(
            "select runward.use_content($1, 'another', $2, $3)", case.tenant, digest(LARGE), LARGE
        )
        await retired(case, "steps")
        assert (await rows(case, "content"))["content"] == 1
        assert (await rows(case, "retired"))["retired"] == 1  # it is tried again

    await retired(case, "steps")
    assert await rows(case, "content", "content_use", "retired") == {
        "content": 1, "content_use": 1, "retired": 0
    }  # fmt: skip


async def test_a_run_with_a_hold_that_nobody_has_charged_is_left(case: Case) -> None:
    await case.started()
    await case.admit(case.draft(**tokens(case, 5)))
    run = await case.store.runs.find(case.workflow, case.run)
    assert run is not None
    await case.store.runs.close(run, case.closing())
    await aged(case, 40)

    await retired(case, "steps")
    assert (await case.holds(), await case.counters("tokens")) == (["R", "H"], (5, 0, 0))

    await case.owner.execute(
        "update runward.hold set expires_at = now() where tenant = $1", case.tenant
    )
    while await case.store.runs.forfeit_expired():
        pass
    await retired(case, "steps")
    assert (await case.holds(), await case.counters("tokens")) == ([], (0, 5, 0))


async def test_a_busy_run_and_a_second_sweeper_wait_for_nothing(case: Case) -> None:
    await lived(case)
    found = await due(case, "steps", 30)
    async with case.owner.transaction():
        await case.owner.execute(
            "select pg_advisory_xact_lock(runward.run_key($1, $2))", case.tenant, case.run
        )
        assert await case.store.retention.retire("steps", 30, found) == 0
    await case.store.retention.retire("steps", 30, found)
    async with case.owner.transaction():
        await case.owner.execute("select runward.delete_retired(1)")
        assert await case.store.retention.delete(1000) == 0

    assert await retired(case, "steps") == 1


async def test_a_reset_is_refused_and_begins_nothing(case: Case) -> None:
    await lived(case)
    await retired(case, "content")

    with pytest.raises(RequestRefused):
        await case.store.runs.adopt(case.workflow, "execution-2", case.run, "reset")
    answer = await case.open(case.draft("t1.tool.1"))

    assert isinstance(answer, Refused) and "deleted by retention" in answer.reason
    run = await case.store.runs.find(case.workflow, case.run)
    assert run is not None and run.state == "answered"


async def test_a_further_round_lives_and_goes_again(case: Case) -> None:
    """A cron's next execution needs nothing of those before it."""
    await lived(case)
    await case.store.retention.retire("steps", 30, await due(case, "steps", 30))
    await case.store.runs.adopt(case.workflow, "execution-2", case.run, "retried")
    await case.close(await case.admit(case.draft(round=1)))

    await retired(case, "steps")
    assert (await rows(case))["step"] == 3
    assert await case.store.retention.since(case.workflow, case.run) is None

    run = await case.store.runs.find(case.workflow, "execution-2")
    assert run is not None
    await case.store.runs.close(run, case.closing())
    await aged(case, 40)
    await retired(case, "steps")
    assert await rows(case) == dict.fromkeys(TABLES, 0)


async def test_a_list_of_what_is_due_goes_on_behind_its_last(case: Case) -> None:
    for _ in range(3):
        await lived(case.another_run(), content=b"")
    found = await due(case, "steps", 30)
    behind = await case.store.retention.due("steps", 30, after=found[0], limit=10_000)

    assert [one for one in behind if one.tenant == case.tenant] == list(found[1:])
