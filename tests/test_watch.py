"""Watching runs: every event once, in order, under an offset that one can go on from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from runward.client import watching
from runward.client.events import ASK_AFTER_LOOKS, events
from runward.client.run_handle import RunHandle
from runward.contracts.errors import RequestRefused, StoreUnavailable
from runward.contracts.progress import Offset, Progress, Watched
from runward.store.pool import Store
from runward.store.progress import ProgressStore
from runward.testing.scripts import ask, say
from runward.testing.stack import Stack
from tests.client_stand_in import MemoryReader
from tests.store_case import Case
from tests.support import App, reset

KINDS = [
    ("run_started", ""),
    ("call_started", "t1.model"),
    ("call_ended", "t1.model"),
    ("approval_requested", "t1.tool.0"),
    ("approval_decided", "t1.tool.0"),
    ("call_started", "t1.tool.0"),
    ("call_ended", "t1.tool.0"),
    ("call_started", "t2.model"),
    ("call_ended", "t2.model"),
    ("run_ended", ""),
]


async def watched(run: RunHandle[str], after: str = "") -> list[Progress]:
    async with asyncio.timeout(30):
        return [one async for one in run.watch(after)]


async def refunded(stack: Stack) -> tuple[RunHandle[str], list[Progress]]:
    """Returns a run that asked for approval and got it, and what a watcher saw meanwhile."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", roles=["finance"])
    async with stack.worker(stack.plugin(**app.given)):
        run = await ada.start("support", "Refund 17")
        watching = asyncio.create_task(watched(run))
        await bob.approvals.approve((await run.next_approval()).id)
        return run, await watching


async def test_a_watcher_sees_the_whole_run_once_and_in_order(stack: Stack) -> None:
    run, seen = await refunded(stack)

    assert [(one.kind, one.step) for one in seen] == KINDS
    decided, ended = seen[4], seen[-1]
    assert (decided.by, decided.outcome, decided.approval_id) == (
        "bob",
        "approve",
        seen[3].approval_id,
    )
    assert (seen[5].name, seen[5].rule, ended.outcome) == ("refund", "mode:default", "answered")
    assert await watched(run) == seen


async def test_watching_goes_on_behind_any_offset(stack: Stack) -> None:
    run, seen = await refunded(stack)

    for place, one in enumerate(seen, start=1):
        assert await watched(run, one.offset) == seen[place:]


async def test_a_run_that_was_reset_has_more_to_watch(stack: Stack) -> None:
    app = App([say("Once.")])
    ada = await stack.acting_as("ada")
    async with stack.worker(stack.plugin(**app.given)):
        run = await ada.start("support", "Hello")
        first = await watched(run)
        await reset(stack, run.id, 1)
        await ada.get(run.id).result()
        both = await watched(ada.get(run.id))

    assert both[: len(first)] == first
    assert [one.kind for one in both].count("run_ended") == 2


async def test_a_run_that_never_opened_ends_its_watchers(stack: Stack) -> None:
    app = App([say("Hello.")])
    ada = await stack.acting_as("ada")
    async with stack.worker(stack.plugin(**app.given)):
        run = await ada.start("nobody", "Hello")
        seen = await watched(run)

    assert [one.kind for one in seen] in ([], ["run_started", "call_ended", "run_ended"])


async def test_an_offset_behind_the_end_ends_its_watchers(stack: Stack) -> None:
    """Such as one of another run: transactions are counted by the store."""
    run, seen = await refunded(stack)
    behind = Offset.parse(seen[-1].offset)

    assert await watched(run, str(behind._replace(transaction=behind.transaction + 1))) == []


class Still(MemoryReader):
    """A reader of runs that tell nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0

    async def watch(
        self, tenant: str, run_id: str, after: Offset
    ) -> AsyncIterator[tuple[Progress, ...]]:
        self.begun += 1
        for _ in range(ASK_AFTER_LOOKS):
            yield ()


@pytest.mark.parametrize(("state", "begun"), [("open", 1), ("answered", 2)])
async def test_only_a_closed_run_is_read_again_to_its_end(state: str, begun: int) -> None:
    """Its execution is over in both cases; what closes the row of the first is still to come."""
    reader = Still()
    reader.answered("acme", "r", "Hello.")
    reader.rows["acme", "r"] = replace(reader.rows["acme", "r"], state=state)

    async def over() -> bool:
        return True

    assert [one async for one in events(reader, "acme", "r", "", over)] == []
    assert reader.begun == begun


NO_OFFSETS = ["yesterday", "1", "1-1\n", "\u0663-\u0661", f"{2**64}-1"]


@pytest.mark.parametrize("text", NO_OFFSETS)
def test_what_is_no_offset_is_refused(text: str) -> None:
    """Before it comes into the query that all watchers of a client share."""
    with pytest.raises(RequestRefused, match="no offset"):
        Offset.parse(text)


async def test_watchers_of_a_client_that_is_closed_are_told(stack: Stack) -> None:
    """Waiting for ever they would look like those of a run in which nothing happens."""
    app = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    ada = await stack.acting_as("ada")
    async with stack.worker(stack.plugin(**app.given)):
        run = await ada.start("support", "Refund 17")
        watching = [asyncio.create_task(watched(run)) for _ in range(2)]
        await run.next_approval()
        await (await stack.client()).close()
        for one in watching:
            with pytest.raises(RequestRefused, match=r"client was closed.*`offset` of the last"):
                await one


async def test_a_connection_that_was_cut_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is looked at again at once; where it is away, only as often as ever."""
    monkeypatch.setattr(watching, "LOOK_EVERY_S", 3600)
    looks = 0

    async def look(watched: Sequence[Watched]) -> list[tuple[Progress, ...]]:
        nonlocal looks
        looks += 1
        if looks == 1 or looks > 2:
            raise StoreUnavailable("the store", "It did not answer", "Try again")
        return [() for _ in watched]

    cut = watching.Watching(look)
    async with asyncio.timeout(10):
        assert await anext(cut.batches("acme", "one", Offset())) == ()
    assert looks == 2
    away = watching.Watching(look)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await anext(away.batches("acme", "one", Offset()))
    assert looks == 4
    await cut.close()


async def insert(connection: asyncpg.Connection[asyncpg.Record], case: Case, action: str) -> None:
    leaf = {"kind": "intent", "action": action, "attempt": 1, "user": "ada"}
    leaf["at"] = datetime.now(UTC).isoformat()
    await connection.execute(
        "insert into runward.audit_record (tenant, kind, run_id, leaf) values ($1, $2, $3, $4)",
        *(case.tenant, "intent", case.run, json.dumps(leaf).encode()),
    )


@pytest.fixture
async def reader(database_url: str) -> AsyncIterator[ProgressStore]:
    async with Store(database_url, role="runward_reader", connections_max=1) as store:
        yield store.progress


async def test_no_event_comes_in_before_one_that_was_shown(
    reader: ProgressStore, case: Case, database_url: str
) -> None:
    """A transaction that began first and commits last is shown first, and holds the others up."""
    slow = await asyncpg.connect(database_url)
    try:
        transaction = slow.transaction()
        await transaction.start()
        await insert(slow, case, "first")
        await insert(case.owner, case, "second")
        (early,) = await reader.since([Watched(case.tenant, case.run)])
        await transaction.commit()
        (late,) = await reader.since([Watched(case.tenant, case.run)])
    finally:
        await slow.close()

    assert early == ()
    assert [one.name for one in late] == ["first", "second"]
    (rest,) = await reader.since([Watched(case.tenant, case.run, Offset.parse(late[0].offset))])
    assert rest == late[1:]
