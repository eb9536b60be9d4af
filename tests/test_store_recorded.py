"""A recorded outcome is the answer for ever; other digests, lost acks and late ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from runward.contracts.errors import RequestRefused
from runward.contracts.steps import Admitted, Closed, Recorded, Refused, Settled, Wait
from tests.store_case import Case


async def test_a_step_of_an_unknown_run_waits(case: Case) -> None:
    assert await case.open(case.draft()) == Wait("unknown run")


async def test_a_recorded_outcome_beats_a_denial_and_a_closed_run(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft())
    await case.close(draft, b"paid", closing=case.closing())

    again = case.draft(verdict="deny", reason="no")

    assert await case.open(again) == Recorded(b"paid")
    assert await case.open(case.draft("t9.tool.0")) == Refused("closed", "the run is answered")


async def test_another_digest_is_refused_before_and_after_the_outcome(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft())
    other = case.draft(digest="another")
    refused = Refused("digest", "the step was called with another digest")

    assert await case.open(other) == refused
    await case.close(draft)
    assert await case.open(other) == refused


async def test_an_open_whose_ack_was_lost_is_admitted_once(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft())

    assert await case.open(draft) == Admitted()
    assert [kind for kind, step, _ in await case.audit() if step == draft.key.step] == ["intent"]
    assert (await case.store.reads.tried(draft.key)).tries == 1


async def test_an_ended_attempt_does_not_begin_again(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft())
    await case.close(draft, state=None)

    answer = await case.open(draft)

    assert isinstance(answer, Refused) and answer.code == "input"


async def test_a_close_whose_ack_was_lost_is_not_late(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft())
    await case.close(draft)
    before = await case.audit()

    assert await case.close(draft) == Closed(b"outcome", late=False)
    assert await case.audit() == before


async def test_the_first_outcome_stays_and_a_later_one_is_marked_late(case: Case) -> None:
    await case.started()
    first = await case.admit(case.draft())
    second = await case.admit(case.draft())
    await case.close(second, b"second")

    assert await case.close(first, b"first") == Closed(b"second", late=True)
    assert (await case.audit())[-1] == ("outcome", first.key.step, True)
    assert await case.open(case.draft()) == Recorded(b"second")


async def test_an_attempt_that_was_overtaken_records_nothing(case: Case) -> None:
    await case.started()
    first = await case.admit(case.draft())
    second = await case.admit(case.draft())

    assert await case.close(first, b"first") == Closed(b"", late=True)
    assert await case.close(second, b"second") == Closed(b"second")


async def test_a_step_left_open_runs_again(case: Case) -> None:
    await case.started()
    first = await case.admit(case.draft())

    assert await case.close(first, b"", state=None) == Closed(b"")
    await case.admit(case.draft(attempt=2))
    assert (await case.store.reads.tried(first.key)).tries == 2


async def test_a_denial_is_recorded_without_an_attempt(case: Case) -> None:
    await case.started()
    draft = case.draft(verdict="deny", reason="refund: denied by policy")

    assert await case.open(draft) == Settled("denied", "refund: denied by policy")
    assert await case.close(draft, b"denied", state="denied", nonce="") == Closed(b"denied")
    assert await case.open(case.draft()) == Recorded(b"denied")


async def test_a_settled_close_cannot_end_a_live_attempt(case: Case) -> None:
    await case.started()
    live = await case.admit(case.draft())

    assert await case.close(live, b"denied", state="denied", nonce="") == Closed(b"", late=True)
    assert await case.close(live, b"paid") == Closed(b"paid")


async def test_nothing_is_done_without_having_been_admitted(case: Case) -> None:
    await case.started()

    assert await case.close(case.draft(), b"forged") == Closed(b"", late=True)
    await case.admit(case.draft())


async def test_a_ticket_opens_one_run(case: Case) -> None:
    await case.started()
    other = case.another_run(jti=case.jti)

    assert await other.open(other.first()) == Refused("ticket", "the ticket opened another run")


async def test_a_run_is_opened_by_one_ticket(case: Case) -> None:
    await case.admit(case.first())
    other = replace(case.opening(), jti=uuid4().hex)

    answer = await case.open(case.first(opening=other))

    assert answer == Refused("ticket", "the run was opened by another ticket")


async def test_opening_twice_starts_once(case: Case) -> None:
    await case.admit(case.first())
    await case.admit(case.first(attempt=2))

    kinds = [kind for kind, *_ in await case.audit()]
    assert kinds == ["run_started", "intent", "intent"]


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "nul\x00"},
        {"nonce": ""},
        {"name": "lone \ud800"},
        {"attempt": 2**31},
        {"hold_ttl_s": -1},
        {"workflow_id": "x" * 1001},
        {"intent": b"x" * 65_536},
    ],
)
async def test_what_cannot_be_stored_is_refused_alone(case: Case, changes: dict[str, Any]) -> None:
    await case.started()

    answer = await case.open(case.draft(**changes))

    assert isinstance(answer, Refused) and answer.code == "input"


async def test_a_close_that_cannot_be_stored_is_refused(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft())

    with pytest.raises(RequestRefused, match="message"):
        await case.close(draft, message="nul\x00")


async def test_arguments_with_a_nul_are_shown_without_it(case: Case) -> None:
    await case.started()

    asked = await case.asked(case.draft(verdict="ask", arguments='{"a": "\x00\ud800"}'))

    shown = await case.store.approvals.get(case.tenant, asked.request.id)
    assert shown is not None and shown.arguments == '{"a": "\ufffd?"}'
