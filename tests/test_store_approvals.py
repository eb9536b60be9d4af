"""Approvals: bound to one call, decided once by somebody else, consumed once, and they expire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
import pytest

from runward.contracts.approvals import DecisionResult
from runward.contracts.steps import Admitted, Asked, Draft, Refused, Settled, Short
from runward.store.wire import Encoded, encode_draft
from tests.store_case import Case, tokens


def money(case: Case, **changes: Any) -> Draft:
    """Returns a call that a person has to allow."""
    given: dict[str, Any] = {"verdict": "ask", "reason": "refund: money call", "idempotent": False}
    return case.draft(**(given | changes))


async def backdate(case: Case, column: str) -> None:
    """Plays two days that passed."""
    await case.owner.execute(
        f"update runward.approval set {column} = {column} - interval '2 days' where tenant = $1",
        case.tenant,
    )


async def test_an_approved_call_runs_once(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    assert await case.decide(asked) == DecisionResult(
        accepted=True, state="approved", reason="checked"
    )

    draft = await case.admit(money(case, approval_id=asked.request.id))
    await case.close(draft, state=None)
    again = await case.open(money(case, approval_id=asked.request.id))

    assert isinstance(again, Asked) and again.request.id != asked.request.id
    assert await case.states("state", "approval", "created_at") == ["consumed", "pending"]


async def test_a_request_shows_what_will_run_and_is_made_once(case: Case) -> None:
    await case.started()
    first = await case.asked(money(case, arguments='{"order": 17}'))
    second = await case.asked(money(case, attempt=2))

    listed = await case.store.approvals.list(case.tenant)

    assert second.request == first.request and first.request.title == "refund: money call"
    assert [(one.id, one.arguments, one.requester) for one in listed] == [
        (first.request.id, '{"order": 17}', "ada")
    ]


async def test_a_worker_of_the_release_before_names_no_rule(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_before(draft: Draft) -> Encoded:
        item = encode_draft(draft)
        body = orjson.loads(item.body)
        del body["rule"]
        return replace(item, body=orjson.dumps(body).decode())

    monkeypatch.setattr("runward.store.steps.encode_draft", of_before)
    await case.started()
    await case.asked(money(case, rule="mode:default"))

    assert [one.rule for one in await case.store.approvals.list(case.tenant)] == [""]


async def test_an_approval_passes_later_attempts_of_an_idempotent_call(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case, idempotent=True))
    await case.decide(asked)
    again = {"idempotent": True, "approval_id": asked.request.id}

    await case.close(await case.admit(money(case, **again)), state=None)

    assert await case.open(money(case, **again)) == Admitted()


async def test_an_approval_whose_ask_was_never_heard_of_is_used(case: Case) -> None:
    await case.started()
    await case.decide(await case.asked(money(case)))

    assert await case.open(money(case)) == Admitted()


async def test_an_approval_of_another_call_is_refused(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await case.decide(asked)
    refused = Refused("approval", "the approval is not for this call")
    other = case.another_run()
    await other.started()

    for draft in (
        money(case, key=case.key("t2.tool.0"), approval_id=asked.request.id),
        money(case, key=case.key("t3.tool.0"), digest="other", approval_id=asked.request.id),
        money(other, approval_id=asked.request.id),
        money(case, approval_id=uuid4().hex),
    ):
        assert await case.open(draft) == refused


async def test_a_declined_call_is_denied_with_the_reason(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await case.decide(asked, "reject", reason="too much")

    answer = await case.open(money(case, approval_id=asked.request.id))

    assert answer == Settled("denied", "approval declined: too much")


async def test_without_an_approver_it_is_denied(case: Case) -> None:
    await case.started()

    answer = await case.open(money(case, approver_role=None))

    assert answer == Settled("denied", "approval required; no approver")


async def test_a_refused_hold_consumes_no_approval(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await case.decide(asked)
    given = {"approval_id": asked.request.id}

    short = await case.open(money(case, **given, **tokens(case, 10, cap=5)))

    assert isinstance(short, Short)
    assert await case.open(money(case, **given, **tokens(case, 10, cap=50))) == Admitted()


async def test_a_request_expires(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await backdate(case, "expires_at")

    late = await case.decide(asked)
    answer = await case.open(money(case, approval_id=asked.request.id))

    assert late == DecisionResult(accepted=False, state="expired", reason="approval expired")
    assert answer == Settled("denied", "approval expired")


async def test_an_expired_request_is_seen_without_a_decision(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await backdate(case, "expires_at")

    answer = await case.open(money(case, approval_id=asked.request.id))

    assert answer == Settled("denied", "approval expired")


async def test_an_approval_that_nobody_used_expires(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await case.decide(asked)
    await backdate(case, "decided_at")

    answer = await case.open(money(case, approval_id=asked.request.id))

    assert answer == Settled("denied", "approval expired")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"by_user": "ada"}, "the requester may not approve"),
        ({"roles": frozenset({"clerk"})}, "the approver's role is missing"),
        ({"digest": "another"}, "the decision is about another call"),
    ],
)
async def test_who_may_not_decide(case: Case, changes: dict[str, Any], reason: str) -> None:
    await case.started()
    asked = await case.asked(money(case))

    result = await case.decide(asked, **changes)

    assert result == DecisionResult(accepted=False, state="pending", reason=reason)
    assert await case.asked(money(case, approval_id=asked.request.id)) == asked


async def test_a_request_of_another_tenant_is_unknown(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))

    result = await case.store.approvals.decide(
        "another", asked.request.id, asked.request.digest, "approve",
        by_user="bob", roles=frozenset({"finance"}), reason="", record=b"approval",
    )  # fmt: skip

    assert (result.accepted, result.reason) == (False, "unknown request")


async def test_the_first_decision_wins_and_may_be_said_twice(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    await case.decide(asked)

    twice = await case.decide(asked)
    other_word = await case.decide(asked, "reject")
    other_user = await case.decide(asked, by_user="eve")

    assert twice == DecisionResult(accepted=True, state="approved", reason="checked")
    assert (other_word.accepted, other_word.reason) == (False, "already approved")
    assert (other_user.accepted, other_user.reason) == (False, "already approved")
    assert [kind for kind, *_ in await case.audit()].count("approval") == 1


async def test_a_closed_run_voids_what_it_asked(case: Case) -> None:
    await case.started()
    asked = await case.asked(money(case))
    run = await case.store.runs.find(case.workflow, case.run)
    assert run is not None
    await case.store.runs.close(run, case.closing("cancelled"))

    result = await case.decide(asked)

    assert (result.accepted, result.reason) == (False, "already void")
