"""What people see of a run that waits, or that ended: its story, its lines, its status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from bench.outage_gate import Gate, through
from runward.cli import times
from runward.cli.calls import story_rows
from runward.client.run_handle import RunHandle
from runward.client.runward_client import RunwardClient
from runward.client.stories import pending_calls
from runward.contracts import names
from runward.contracts.budget import Budget, Cap
from runward.contracts.errors import NotFound
from runward.contracts.runs import RunStatus
from runward.contracts.story import RunRow, Story, StoryStep
from runward.testing.scripts import Fail, ask, bill_as, failing, say
from runward.testing.stack import Stack
from runward.workers.plugin import RunwardPlugin
from tests.support import App, reset

REFUND = ask("refund", order_id="17", amount="5.00")
AWAY = "the store. It did not answer"
BEGUN = datetime(2026, 1, 31, 23, 59, tzinfo=UTC)


@pytest.fixture
async def store(stack: Stack) -> AsyncIterator[Gate]:
    async with Gate(int(stack.database_url.rpartition(":")[2].partition("/")[0])) as gate:
        yield gate


async def shows(run: RunHandle[str], enough: Callable[[Story], object]) -> Story:
    """Returns the story as soon as it shows that."""
    async with asyncio.timeout(30):
        while True:
            with suppress(NotFound):  # it has just begun
                story = await run.story()
                if enough(story):
                    return story
            await asyncio.sleep(0.1)


async def test_a_call_that_waits_for_a_person_says_which_rule_asks(stack: Stack) -> None:
    async with stack.worker(stack.plugin(**App([REFUND, say("Refunded.")]).given)):
        run = await (await stack.acting_as("ada")).start("support", "Refund 17")
        asked = await run.next_approval()
        row = story_rows(await run.story())[-1]

    assert asked.title == "refund: money call requires approval"
    assert (row["call"], row["state"], row["rule"]) == ("t1.tool.0", "waiting", "mode:default")
    until = times.text(asked.expires_at)
    assert row["note"] == (
        f"{asked.title}; approval pending; finance may approve {asked.id} until {until}"
    )


async def test_a_provider_that_is_away_is_told_while_it_is_and_counts_afterwards(
    stack: Stack,
) -> None:
    """The store has the time of the last try only in the step's row; its records have the first."""
    app = App([failing(say("Hello."), Fail(503), Fail(429, 3.0))])
    async with stack.worker(stack.plugin(**app.given)):
        run = await (await stack.acting_as("ada")).start("support", "Hello")
        waiting = await shows(run, _second_try_has_failed)
        await run.result()
        done = await run.story()

    (call,) = waiting.pending
    assert (call.step, call.name, call.attempt) == ("t1.model", "call_model", 3)
    assert call.next_try_at is not None
    (row,) = story_rows(waiting)
    assert (row["state"], row["tries"]) == ("waiting", 2)
    assert row["note"] == f"{call.reason}; attempt 3 at {times.clock(call.next_try_at)}"
    (step,) = done.steps
    assert (step.tries, done.pending) == (3, ())
    assert step.seconds is not None and step.seconds >= 4.0
    assert story_rows(done)[0]["note"] is None


def _second_try_has_failed(story: Story) -> bool:
    """Returns whether both say so: the store is read a moment before Temporal."""
    recorded = [(one.state, one.tries) for one in story.steps] == [("idle", 2)]
    return recorded and any("429" in call.reason for call in story.pending)


async def test_a_store_that_is_away_from_its_workers_is_told(stack: Stack, store: Gate) -> None:
    app = App([REFUND, say("Refunded.")])
    plugin = RunwardPlugin(database_url=through(stack.database_url, store.port), **app.given)
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(plugin):
        run = await ada.start("support", "Refund 17")
        asked = await run.next_approval()
        await store.away()
        await bob.approvals.signal_decision(asked.id, "approve")
        waiting = await shows(run, lambda one: any(AWAY in call.reason for call in one.pending))
        later = await ada.start("support", "Refund 17")
        async with asyncio.timeout(30):
            while AWAY not in (said := await untold(later)):  # noqa: ASYNC110  # Temporal tells
                await asyncio.sleep(0.1)
        found = await ada.temporal.get_workflow_handle(later.id).describe()
        (step,) = found.raw_description.pending_activities
        await store.back()
        await run.result()

    *_, refund, decision = story_rows(waiting)
    assert (refund["call"], refund["state"]) == ("t1.tool.0", "waiting")
    assert (decision["name"], decision["state"]) == ("approval.decide", "waiting")
    assert decision["note"].startswith(AWAY)
    assert said.startswith(f"No step of it has reached the store yet: {AWAY}")
    # What Temporal's UI shows; with its causes it could be too long for that.
    assert step.last_failure.message.startswith(AWAY)
    assert not step.last_failure.HasField("cause")


async def untold(run: RunHandle[str]) -> str:
    """Returns why the run has no story."""
    with pytest.raises(NotFound) as caught:
        await run.story()
    return caught.value.holds


@workflow.defn(name="Calls", sandboxed=False)
class Calls:
    """Calls an activity that fails at length, and one that nobody has."""

    @workflow.run
    async def run(self, nowhere: str) -> None:
        limit = timedelta(minutes=1)
        await asyncio.gather(
            workflow.execute_activity("fails", start_to_close_timeout=limit),
            workflow.execute_activity("none", task_queue=nowhere, start_to_close_timeout=limit),
        )


@activity.defn(name="fails")
async def fails() -> None:
    raise RuntimeError("At length: " + "x" * 5000)


async def test_a_failure_that_the_server_finds_too_long_keeps_its_words(stack: Stack) -> None:
    client = await Client.connect(stack.temporal_address)
    queue, nowhere = stack.task_queue, f"{stack.task_queue}-nobody"
    async with Worker(client, task_queue=queue, workflows=[Calls], activities=[fails]):
        run = await client.start_workflow(Calls.run, nowhere, id=stack.tenant, task_queue=queue)
        async with asyncio.timeout(30):
            while True:
                pending = {one.name: one for one in await pending_calls(await run.describe())}
                if pending.keys() == {"fails", "none"} and pending["fails"].attempt > 1:
                    break
                await asyncio.sleep(0.1)
        await run.terminate()

    assert pending["fails"].reason.startswith("At length: xxx")
    assert (pending["none"].reason, pending["none"].attempt) == ("no worker has taken it", 1)
    assert pending["none"].next_try_at is None


async def test_what_no_worker_takes_is_told(stack: Stack) -> None:
    ada = await stack.acting_as("ada")
    idle = await ada.start("support", "Refund 17")
    untaken = "no worker has taken it"
    assert await untold(idle) == f"No step of it has reached the store yet: {untaken}"
    app = App([REFUND, say("Refunded.")])
    async with stack.worker(stack.plugin(**app.given)):
        await idle.next_approval()
    await ada.temporal.get_workflow_handle(idle.id).signal(names.BUDGET_RAISED_SIGNAL)

    row = story_rows(await idle.story())[-1]

    assert (row["call"], row["name"]) == (None, "workflow")
    assert row["note"] == untaken


async def test_a_parked_run_says_that_it_is_and_why(stack: Stack) -> None:
    app, small = App([REFUND, say("Hello.")]), Budget(run=Cap(calls=1), on_exceeded="park")
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(budget=small, **app.given)):
        run = await ada.start("support", "Hello")
        await bob.approvals.approve((await run.next_approval()).id)
        parked = await shows(run, lambda one: one.steps[-1].step == "t2.model")
        status = await run.status()

    assert (status.state, status.reason) == ("parked", "budget:max_calls")
    row = story_rows(parked)[-1]
    assert (row["state"], row["note"]) == (
        "waiting",
        "parked: it goes on once its budget is raised or its window turns",
    )


@pytest.mark.parametrize("how", ["cancelled", "ended", "failed", "interrupted", "answered"])
async def test_the_status_of_an_ended_run_says_how_it_ended(stack: Stack, how: str) -> None:
    """Without a worker; of one that was terminated no row says so before the next sweep."""
    bills = [bill_as(one, input=100, output=20) for one in (REFUND, say("Refunded."))]
    plan = {
        "failed": [bills[0], failing(bills[1], Fail(400))],
        "interrupted": [bill_as(ask("lookup_order", order_id="17"), input=100, output=20)],
    }
    options = {"max_turns": 1} if how == "interrupted" else {}
    app = App(plan.get(how, bills), agent_options=options)
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**app.given)):
        run = await ada.start("support", "Refund 17")
        if how != "interrupted":
            asked = await run.next_approval()
        match how:
            case "cancelled":
                await run.cancel()
            case "ended":
                await run.terminate("out of hand")
            case "failed" | "answered":
                await bob.approvals.approve(asked.id)
        await asyncio.wait([asyncio.ensure_future(run.result())])
    status, story = await ada.get(run.id).status(), await run.story()

    reasons = {
        "cancelled": "cancelled by request",
        "ended": "execution terminated",
        "failed": "scripted answered 400",
        "interrupted": "max_turns_exceeded",
    }
    turns = {"answered": 2, "failed": 2}.get(how, 1)
    used = (200, 0, 0, 40) if how == "answered" else (100, 0, 0, 20)
    nano = 1000 * used[0] + 5000 * used[3]
    assert status == RunStatus(
        state=how, turn=turns, usage=used, cost=nano, reason=reasons.get(how, "")
    )
    assert (story.run.state, story.run.reason) == (how, reasons.get(how, ""))
    assert story.run.closed_at is not None
    if how in ("cancelled", "ended"):
        assert story_rows(story)[-1]["state"] == "unfinished"


async def test_the_status_of_an_ended_run_without_a_store_is_its_last_word(stack: Stack) -> None:
    ada = await stack.acting_as("ada")
    poor = RunwardClient((await stack.client()).temporal, issuer=stack.key)
    async with stack.worker(stack.plugin(**App([REFUND]).given)):
        run = await ada.start("support", "Refund 17")
        await run.next_approval()
        await run.terminate("out of hand")
        status = await poor.acting_as("ada", tenant=stack.tenant).get(run.id).status()

    assert (status.state, status.reason, status.turn) == ("ended", "execution terminated", 1)
    assert status.usage[3] > 0


async def test_a_reset_leaves_what_it_cut_off_unfinished(stack: Stack) -> None:
    async with stack.worker(stack.plugin(**App([REFUND, say("Refunded.")]).given)):
        run = await (await stack.acting_as("ada")).start("support", "Refund 17")
        await run.next_approval()
        await reset(stack, run.id, 2)
        story = await shows(run, lambda one: len(one.steps) > 2)

    states = [one["state"] for one in story_rows(story) if one["call"] == "t1.tool.0"]
    assert states[0] == "unfinished"


def stored(*steps: StoryStep, state: str = "open") -> Story:
    """Returns a story of such steps."""
    run = RunRow(
        tenant="acme", run_id="r", workflow_id="w", user="ada", agent="support", session="",
        state=state, reason="", epoch=0, round=0, opened_at=BEGUN, closed_at=None,
        result_digest="",
    )  # fmt: skip
    return Story(run, steps)


def call(step: str, after_s: float, took_s: float, **more: object) -> StoryStep:
    """Returns a call that began so long after the run, and ended."""
    kind = "model" if step.endswith("model") else "tool"
    began = BEGUN + timedelta(seconds=after_s)
    found = StoryStep(
        step=step, epoch=0, round=0, kind=kind, name="n", state="done", tries=1, opened_at=began,
        closed_at=began + timedelta(seconds=took_s),
    )  # fmt: skip
    return replace(found, **more)  # type: ignore[arg-type]


def test_a_call_that_could_not_begin_for_long_says_for_how_long() -> None:
    """After its model, for a tool; after the turn before, for a model; at once is not worth it."""
    story = stored(
        call("t1.model", 0, 1),
        call("t1.tool.0", 1, 2),
        call("t1.tool.1", 43, 1),
        call("t2.model", 60, 1),
        call("t3.model", 62, 1),
        call("a1", 900, 1),
    )

    notes = [row["note"] for row in story_rows(story)]

    assert notes == [None, None, "waited 42 s to begin", "waited 16 s to begin", None, None]


def test_the_day_stands_beside_the_time_where_it_is_another_one() -> None:
    story = stored(call("t1.model", 0, 1), call("t1.tool.0", 120, 1))

    assert [row["began"] for row in story_rows(story)] == ["23:59:00Z", "2026-02-01 00:01:00Z"]
