"""A worker that died inside a call: what may run again, and who is asked."""

from __future__ import annotations

from typing import Any

from runward.contracts.budget import Bound
from runward.contracts.steps import Admitted, Asked, Closed, Draft, Recorded, Settled
from tests.store_case import Case, tokens


def risky(case: Case, **changes: Any) -> Draft:
    """Returns a call that must not run twice."""
    return case.draft(**({"idempotent": False} | changes))


async def test_an_idempotent_call_and_a_model_step_run_again_and_the_dead_hold_is_charged(
    case: Case,
) -> None:
    await case.started()
    for changes in ({"idempotent": True}, {"kind": "model", "idempotent": False}):
        step = f"t1.{changes.get('kind', 'tool')}.0"
        await case.admit(case.draft(step, **changes, **tokens(case, 10)))

        assert await case.open(case.draft(step, **changes, **tokens(case, 10))) == Admitted()
    assert await case.holds() == ["R", "F", "H", "F", "H"]
    assert await case.counters("tokens") == (20, 20, 0)


async def test_tell_settles_as_unknown_also_when_the_answer_was_lost(case: Case) -> None:
    await case.started()
    await case.admit(risky(case))
    settled = Settled("unknown", "the attempt ended inside the call")

    assert await case.open(risky(case, on_unknown="tell")) == settled
    assert await case.open(risky(case, on_unknown="tell")) == settled
    closed = await case.close(risky(case), b"unknown", state="unknown", nonce="")

    assert closed == Closed(b"unknown")
    assert await case.open(risky(case)) == Recorded(b"unknown")


async def test_retry_runs_again(case: Case) -> None:
    await case.started()
    await case.admit(risky(case))

    assert await case.open(risky(case, on_unknown="retry")) == Admitted()


async def test_ask_runs_once_more_when_approved(case: Case) -> None:
    await case.started()
    await case.admit(risky(case))
    asked = await case.asked(risky(case))
    assert asked.request.kind == "unknown"
    assert [one.rule for one in await case.store.approvals.list(case.tenant)] == [""]
    assert await case.asked(risky(case)) == asked
    await case.decide(asked)

    await case.admit(risky(case, approval_id=asked.request.id))
    once_more = await case.open(risky(case, approval_id=asked.request.id))

    assert isinstance(once_more, Asked) and once_more.request.id != asked.request.id


async def test_one_approval_of_the_unknown_passes_a_verdict_of_ask_too(case: Case) -> None:
    await case.started()
    first = await case.asked(risky(case, verdict="ask"))
    await case.decide(first)
    await case.admit(risky(case, verdict="ask", approval_id=first.request.id))
    second = await case.asked(risky(case, verdict="ask", approval_id=first.request.id))
    await case.decide(second)

    answer = await case.open(risky(case, verdict="ask", approval_id=second.request.id))

    assert (first.request.kind, second.request.kind) == ("call", "unknown")
    assert answer == Admitted()


async def test_ask_settles_as_unknown_when_declined_or_expired_or_nobody_can_answer(
    case: Case,
) -> None:
    await case.started()
    declined = {"key": case.key("a"), "digest": "a"}
    expired = {"key": case.key("b"), "digest": "b"}
    nobody = {"key": case.key("c"), "digest": "c", "approver_role": None}
    for each in (declined, expired, nobody):
        await case.admit(risky(case, **each))
    await case.decide(await case.asked(risky(case, **declined)), "reject", reason="no")
    await case.asked(risky(case, **expired))
    await case.owner.execute(
        "update runward.approval set expires_at = now() - interval '1 s'"
        " where tenant = $1 and step = 'b'",
        case.tenant,
    )

    assert await case.open(risky(case, **declined)) == Settled("unknown", "approval declined: no")
    assert await case.open(risky(case, **expired)) == Settled("unknown", "approval expired")
    assert await case.open(risky(case, **nobody)) == Settled(
        "unknown", "approval required; no approver"
    )


async def test_an_attempt_taken_for_dead_may_still_tell_what_happened(case: Case) -> None:
    """Its word is better than a person's guess: the question is withdrawn."""
    await case.started()
    slow = await case.admit(risky(case, **tokens(case, 400)))
    asked = await case.asked(risky(case, **tokens(case, 400)))

    closed = await case.close(slow, b"paid", resolution="settle", actual=Bound(output_tokens=9))

    assert closed == Closed(b"paid")
    assert await case.counters("tokens") == (0, 9, 0)
    assert await case.states("state", "approval", "created_at") == ["void"]
    assert await case.open(risky(case, approval_id=asked.request.id)) == Recorded(b"paid")
