"""Holds: all or nothing, exact at the edge, and never given back without proof."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from runward.contracts.budget import AMOUNT_MAX, Bound, Bucket
from runward.contracts.steps import Admitted, Draft, Refused, Resolution, Short
from runward.store.pool import Store
from tests.store_case import CAP, Case, tokens

WAYS: tuple[Resolution, ...] = ("settle", "release", "forfeit")


async def test_a_hold_is_settled_with_what_was_used(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft(**tokens(case, 400)))
    assert await case.counters("tokens") == (400, 0, 0)

    await case.close(draft, resolution="settle", actual=Bound(output_tokens=150))

    assert await case.counters("tokens") == (0, 150, 0)
    assert await case.store.reads.spend(case.tenant, "user", case.user) == {"tokens": 150}


@pytest.mark.parametrize(
    ("resolution", "actual", "expected"),
    [
        ("release", 0, (0, 0, 0)),
        ("forfeit", 0, (0, 400, 0)),
        ("settle", 400, (0, 400, 0)),
        ("settle", 700, (0, 400, 300)),
        ("settle", AMOUNT_MAX, (0, 400, AMOUNT_MAX - 400)),
    ],
)
async def test_how_a_hold_ends(
    case: Case, resolution: Resolution, actual: int, expected: tuple[int, int, int]
) -> None:
    await case.started()
    draft = await case.admit(case.draft(**tokens(case, 400)))

    await case.close(draft, resolution=resolution, actual=Bound(output_tokens=actual))

    assert await case.counters("tokens") == expected


async def test_a_hold_is_taken_from_every_bucket_or_from_none(case: Case) -> None:
    await case.started()
    buckets = (
        Bucket("run", case.run, "tokens", "run", 1_000),
        Bucket("user", case.user, "calls", "day", 0),
    )

    answer = await case.open(case.draft(bound=Bound(calls=1, output_tokens=10), buckets=buckets))

    assert isinstance(answer, Short) and (answer.bucket, answer.contended) == (1, False)
    assert await case.counters("tokens") == (0, 0, 0)


async def test_room_behind_open_holds_is_contended_and_an_exhausted_bucket_is_not(
    case: Case,
) -> None:
    await case.started()
    first = await case.admit(case.draft("a", **tokens(case, 700)))
    contended = await case.open(case.draft("b", **tokens(case, 700)))
    await case.close(first, resolution="forfeit")
    exhausted = await case.open(case.draft("b", **tokens(case, 700)))

    assert isinstance(contended, Short) and isinstance(exhausted, Short)
    assert (contended.available, contended.contended) == (300, True)
    assert (exhausted.available, exhausted.contended) == (300, False)
    assert exhausted.window_end is not None and exhausted.window_end > datetime.now(UTC)


async def test_an_exhausted_bucket_is_named_before_a_contended_one(case: Case) -> None:
    await case.started()
    await case.admit(case.draft("a", **tokens(case, CAP)))
    buckets = (
        Bucket("user", case.user, "tokens", "day", CAP),
        Bucket("user", case.user, "calls", "day", 0),
    )

    answer = await case.open(case.draft("b", bound=Bound(1, output_tokens=1), buckets=buckets))

    assert isinstance(answer, Short) and (answer.bucket, answer.contended) == (1, False)


async def test_a_shrunk_request_is_admitted_under_the_same_nonce(case: Case) -> None:
    await case.started()
    draft = case.draft(**tokens(case, CAP + 1))
    assert isinstance(await case.open(draft), Short)

    draft.bound = Bound(output_tokens=CAP)

    assert await case.open(draft) == Admitted()


async def test_the_latest_cap_holds(case: Case) -> None:
    await case.started()
    await case.admit(case.draft("a", **tokens(case, 600)))

    lowered = await case.open(case.draft("b", **tokens(case, 1, cap=500)))
    raised = await case.open(case.draft("b", **tokens(case, 1_400, cap=2_000)))

    assert isinstance(lowered, Short) and lowered.available == 0
    assert raised == Admitted()
    assert [view.cap for view in await case.store.reads.buckets(case.tenant)] == [2_000]


async def test_windows_follow_utc(case: Case, owner: asyncpg.Connection[asyncpg.Record]) -> None:
    query = "select runward.window_start($1, $2), runward.window_end($1, $2)"
    at = datetime(2028, 2, 29, 23, 59, 59, 999_999, UTC)
    await owner.execute("set timezone = 'Pacific/Kiritimati'")

    day = tuple(await owner.fetchrow(query, "day", at) or ())
    month = tuple(await owner.fetchrow(query, "month", at) or ())

    assert day == (datetime(2028, 2, 29, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC))
    assert month == (datetime(2028, 2, 1, tzinfo=UTC), datetime(2028, 3, 1, tzinfo=UTC))


async def test_a_new_window_is_a_new_row_and_holds_settle_where_they_were_taken(
    case: Case, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await case.started()
    old = await case.admit(case.draft("a", **tokens(case, CAP)))
    # Yesterday's row: as if midnight had passed between the two calls.
    await owner.execute(
        "update runward.bucket set window_start = window_start - interval '1 day',"
        " window_end = window_end - interval '1 day' where tenant = $1",
        case.tenant,
    )

    await case.admit(case.draft("b", **tokens(case, CAP)))
    await case.close(old, resolution="settle", actual=Bound(output_tokens=7))

    views = await case.store.reads.buckets(case.tenant)
    assert [(view.held, view.settled) for view in views] == [(CAP, 0), (0, 7)]


async def test_usage_that_arrives_late_replaces_what_was_forfeited(
    case: Case, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    await case.started()
    first = await case.admit(case.draft(**tokens(case, 400)))
    await case.admit(case.draft(attempt=2, **tokens(case, 400)))
    assert await case.counters("tokens") == (400, 400, 0)

    await case.close(first, resolution="settle", actual=Bound(output_tokens=30))

    assert await case.holds() == ["R", "S", "H"]  # the first is of the run's first step
    assert await case.counters("tokens") == (400, 30, 0)


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release", "forfeit"])
async def test_what_is_settled_or_released_stays_so(
    case: Case, first: Resolution, second: Resolution
) -> None:
    await case.started()
    draft = await case.admit(case.draft(**tokens(case, 400)))
    await case.close(draft, resolution=first, actual=Bound(output_tokens=100))
    before = await case.counters("tokens")

    await case.close(draft, b"other", resolution=second, actual=Bound(output_tokens=300))

    assert await case.counters("tokens") == before


async def test_a_forfeited_hold_is_never_released(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft(**tokens(case, 400)))
    await case.close(draft, resolution="forfeit")

    await case.close(draft, b"other", resolution="release")

    assert await case.counters("tokens") == (0, 400, 0)


async def test_expired_holds_are_charged(case: Case, store: Store) -> None:
    await case.started()
    await case.admit(case.draft("a", hold_ttl_s=0, **tokens(case, 400)))
    await case.admit(case.draft("b", hold_ttl_s=900, **tokens(case, 300)))

    assert await store.runs.forfeit_expired() >= 1
    assert await case.counters("tokens") == (300, 400, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"bound": Bound(output_tokens=-1)},
        {"bound": Bound(output_tokens=AMOUNT_MAX + 1)},
        {"buckets": (Bucket("user", "ada", "tokens", "day", 9),) * 2},
    ],
)
async def test_a_bad_amount_fails_alone(case: Case, changes: dict[str, Any]) -> None:
    await case.started()
    bad = case.draft("bad", **(tokens(case, 1) | changes))

    answers = await asyncio.gather(case.open(bad), case.open(case.draft("good")))

    assert isinstance(answers[0], Refused) and answers[0].code == "input"
    assert answers[1] == Admitted()


async def test_a_cap_is_exact_under_64_callers(case: Case) -> None:
    """64 callers want 30 each, 1000 fit: exactly 33 are admitted, in whatever batches."""
    await case.started()
    drafts = [case.draft(f"t1.tool.{n}", **tokens(case, 30)) for n in range(64)]

    answers = await asyncio.gather(*map(case.open, drafts))

    assert answers.count(Admitted()) == CAP // 30
    assert all(isinstance(a, Short) and a.contended for a in answers if a != Admitted())
    assert await case.counters("tokens") == (990, 0, 0)


async def test_no_bucket_passes_its_cap_while_64_callers_reserve_and_settle(
    case: Case, database_url: str
) -> None:
    await case.started()
    watcher = await asyncpg.connect(database_url)
    over = 0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal over
        while not done.is_set():
            over += await watcher.fetchval(
                "select count(*) from runward.bucket"
                " where tenant = $1 and held + settled + overrun > cap",
                case.tenant,
            )

    async def caller(n: int) -> None:
        for turn in range(5):
            draft = case.draft(f"t{turn}.tool.{n}", **tokens(case, 1 + n % 7, cap=300))
            if await case.open(draft) == Admitted():
                way = WAYS[(n + turn) % 3]
                await case.close(draft, resolution=way, actual=Bound(output_tokens=1))

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(caller, range(64)))
    done.set()
    await watching
    await watcher.close()

    assert over == 0
    await assert_no_drift(case)


async def assert_no_drift(case: Case) -> None:
    """The counters are what the holds add up to."""
    drift = await case.owner.fetchval(
        """
        select count(*) from runward.bucket b
          cross join lateral (
            select coalesce(sum(h.amounts[p]) filter (where h.state = 'H'), 0) as held,
                   coalesce(sum(h.actuals[p]) filter (where h.state in ('S', 'F', 'R')), 0) as used
              from runward.hold h, generate_subscripts(h.buckets, 1) p
             where h.tenant = b.tenant and h.buckets[p] = b.id) t
         where b.tenant = $1 and (b.held <> t.held or b.settled + b.overrun <> t.used)
        """,
        case.tenant,
    )
    assert drift == 0


@pytest.mark.parametrize("seed", range(8))
async def test_any_sequence_keeps_the_cap_and_the_sums(case: Case, seed: int) -> None:
    """Against a model of a few lines: state, amount and charge of each hold."""
    await case.started()
    play = random.Random(seed)
    model: dict[int, tuple[str, int, int]] = {}
    drafts: dict[int, Draft] = {}
    for _ in range(20):
        slot, amount = play.randrange(6), play.randrange(500)
        state, held, _charged = model.get(slot, ("", 0, 0))
        if state == "":
            used = sum(h if s == "H" else c for s, h, c in model.values())
            drafts[slot] = case.draft(f"t1.tool.{slot}", **tokens(case, amount))
            admitted = await case.open(drafts[slot]) == Admitted()
            assert admitted == (used + amount <= CAP)
            if admitted:
                model[slot] = ("H", amount, 0)
            continue
        way = play.choice(WAYS)
        closed: dict[str, Any] = {"resolution": way, "actual": Bound(output_tokens=amount)}
        await case.close(drafts[slot], state=None, **closed)
        if way == "settle" and state in ("H", "F"):
            model[slot] = ("S", held, amount)
        elif state == "H":
            model[slot] = ("R", held, 0) if way == "release" else ("F", held, held)

        open_, charged = (
            sum(h for s, h, _ in model.values() if s == "H"),
            sum(c for _, _, c in model.values()),
        )
        now_held, settled, overrun = await case.counters("tokens")
        assert (now_held, settled + overrun) == (open_, charged)
    await assert_no_drift(case)
