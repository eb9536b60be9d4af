"""Runs: the executions of a chain, resets, ends, and steps whose activity failed for good."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from runward.contracts.approvals import Approval
from runward.contracts.errors import RequestRefused
from runward.contracts.identity import Issuer
from runward.contracts.steps import Admitted, Asked, Recorded, Refused, Run
from runward.store.approvals import ApprovalStore
from runward.store.pool import Store
from runward.store.runs import Adoption, Ending
from tests.store_case import Case, tokens

ACTED = Ending("unknown", b"unknown", b"outcome", "message-u")
IDLE = Ending("failed", b"failed", b"outcome", "message-f")


async def found(case: Case, execution: str | None = None) -> Run:
    run = await case.store.runs.find(case.workflow, execution or case.run)
    assert run is not None
    return run


async def adopted(case: Case, execution: str, kind: Adoption) -> Run:
    run = await case.store.runs.adopt(case.workflow, execution, case.run, kind)
    assert run is not None
    return run


async def test_a_run_is_found_by_its_execution(case: Case) -> None:
    await case.started()

    run = await found(case)

    assert (run.tenant, run.run_id, run.user) == (case.tenant, case.run, "ada")
    assert (run.roles, run.policy, run.state) == (frozenset({"clerk"}), "policy-1", "open")
    assert await case.store.runs.find("another", case.run) is None
    assert await case.store.runs.adopt(case.workflow, "x", "unknown", "continued") is None


@pytest.mark.parametrize(
    ("kind", "epoch", "round_"), [("continued", 0, 0), ("reset", 1, 0), ("retried", 0, 1)]
)
async def test_a_further_execution_belongs_to_the_run(
    case: Case, kind: Adoption, epoch: int, round_: int
) -> None:
    await case.started()

    run = await adopted(case, "execution-2", kind)
    again = await adopted(case, "execution-2", kind)

    assert (run.run_id, run.epoch, run.round) == (case.run, epoch, round_)
    assert again == run == await found(case, "execution-2")


async def test_an_execution_that_a_reset_left_behind_begins_and_closes_nothing(
    case: Case,
) -> None:
    await case.started()
    before = await found(case)
    await adopted(case, "execution-2", "reset")

    answer = await case.open(case.draft())

    assert answer == Refused("closed", "the execution was superseded")
    assert await case.store.runs.close(before, case.closing("ended")) == "open"


async def test_a_reset_opens_a_closed_run_and_voids_what_was_asked(case: Case) -> None:
    await case.started()
    asked = await case.asked(case.draft(verdict="ask"))
    await adopted(case, "execution-2", "reset")
    assert await case.states("state", "approval", "created_at") == ["void"]

    again = await case.asked(case.draft(epoch=1, verdict="ask", approval_id=asked.request.id))

    assert again.request.id != asked.request.id


async def test_after_a_reset_an_approval_still_holds_for_its_own_digest_only(case: Case) -> None:
    await case.started()
    asked = await case.asked(case.draft(verdict="ask"))
    await case.decide(asked)
    await adopted(case, "execution-2", "reset")
    given: dict[str, Any] = {"epoch": 1, "verdict": "ask", "approval_id": asked.request.id}

    other = await case.open(case.draft(digest="another", **given))

    assert other == Refused("approval", "the approval is not for this call")
    assert await case.open(case.draft(**given)) == Admitted()


async def test_a_closed_run_is_open_again_after_a_reset(case: Case) -> None:
    await case.started()
    assert await case.store.runs.close(await found(case), case.closing("failed")) == "failed"
    await adopted(case, "execution-2", "reset")

    assert (await found(case, "execution-2")).state == "open"
    assert await case.open(case.draft(epoch=1)) == Admitted()


async def test_after_a_reset_a_model_step_runs_anew_and_a_tool_step_does_not(case: Case) -> None:
    first = await case.started()
    tool = await case.admit(case.draft())
    await case.close(tool, b"paid", message="said")
    await adopted(case, "execution-2", "reset")

    assert await case.open(case.draft(epoch=1)) == Recorded(b"paid")
    assert (
        await case.open(case.first(key=case.key("t1.model", epoch=1), opening=None)) == Admitted()
    )
    seen = await case.store.transcripts.outcomes(case.key("", epoch=1), [tool.key.step])
    assert (seen[tool.key.step].epoch, seen[tool.key.step].message) == (1, "said")
    assert first.key.epoch == 0


async def test_after_a_reset_another_effect_of_a_tool_that_acted_is_asked(case: Case) -> None:
    await case.started()
    await case.close(await case.admit(case.draft(idempotent=False)))
    await adopted(case, "execution-2", "reset")

    answer = await case.open(
        case.draft(epoch=1, digest="another", idempotent=False, rule="allowed_tools")
    )

    assert isinstance(answer, Asked) and answer.request.kind == "call"
    (listed,) = await case.store.approvals.list(case.tenant)
    assert listed.rule == "allowed_tools"  # of the verdict, which allowed it
    assert answer.request.title == "refund: before the reset it ran with other arguments"


async def test_a_story_names_the_rule_that_asked_until_a_record_names_one(
    case: Case, database_url: str
) -> None:
    """Each call that of its own epoch."""
    ask: dict[str, Any] = {"verdict": "ask", "idempotent": False}
    await case.admit(case.first(intent=intent("0.0.t1.model", "allowed_models")))
    await case.asked(case.draft(rule="tool", **ask))
    await adopted(case, "execution-2", "reset")
    asked = await case.asked(case.draft(epoch=1, rule="mode:default", **ask))

    assert await rules(case, database_url) == {
        "t1.model/0": "allowed_models",
        "t1.tool.1/0": "tool",
        "t1.tool.1/1": "mode:default",
    }
    await case.decide(asked, record=b"{}")
    await case.admit(case.draft(epoch=1, intent=intent("0.1.t1.tool.1", "allowed_tools")))
    assert (await rules(case, database_url))["t1.tool.1/1"] == "allowed_tools"


def intent(step: str, rule: str) -> bytes:
    """Returns as much of a record as a story reads."""
    return orjson.dumps({"step": step, "rule": rule})


async def rules(case: Case, database_url: str) -> dict[str, str]:
    """Returns the rules that the run's story names."""
    async with Store(database_url, role="runward_reader") as reader:
        story = await reader.stories.story(case.tenant, case.run)
    assert story is not None
    return {f"{one.step}/{one.epoch}": one.rule for one in story.steps}


async def test_a_story_does_not_mix_the_times_before_and_after_a_reset(
    case: Case, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await case.admit(case.first(intent=intent("0.0.t1.model", "")))
    of_run = ApprovalStore.of_run

    async def just_then(self: ApprovalStore, tenant: str, run_id: str) -> tuple[Approval, ...]:
        if (await found(case, case.run)).epoch == 0:
            await adopted(case, "execution-2", "reset")
            await case.admit(case.first(epoch=1, intent=intent("0.1.t1.model", "")))
        return await of_run(self, tenant, run_id)

    monkeypatch.setattr(ApprovalStore, "of_run", just_then)
    async with Store(database_url, role="runward_reader") as reader:
        story = await reader.stories.story(case.tenant, case.run)
        nobody = await reader.stories.story("another", case.run)

    assert story is not None and nobody is None
    assert (story.run.epoch, max(one.epoch for one in story.steps)) == (1, 1)


async def test_after_a_reset_a_call_that_was_inside_is_unknown(case: Case) -> None:
    await case.started()
    await case.admit(case.draft(idempotent=False, **tokens(case, 5)))
    await adopted(case, "execution-2", "reset")

    for _ in range(2):
        answer = await case.open(case.draft(epoch=1, idempotent=False, **tokens(case, 5)))
        assert isinstance(answer, Asked) and answer.request.kind == "unknown"
    assert await case.counters("tokens") == (0, 5, 0)


async def test_a_new_round_runs_everything_anew(case: Case) -> None:
    await case.started()
    await case.close(await case.admit(case.draft()))
    await adopted(case, "execution-2", "retried")

    assert await case.open(case.draft(round=1)) == Admitted()


async def test_the_first_closing_wins(case: Case) -> None:
    draft = await case.admit(case.first())
    await case.close(draft, closing=case.closing("answered"))

    assert await case.store.runs.close(await found(case), case.closing("cancelled")) == "answered"
    assert [kind for kind, *_ in await case.audit()].count("run_ended") == 1


async def test_a_step_with_an_attempt_inside_resolves_as_acted(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft(**tokens(case, 5)))

    resolved = await case.store.runs.resolve(draft.key, acted=ACTED, idle=IDLE)

    assert resolved == ("unknown", b"unknown")
    assert await case.counters("tokens") == (0, 5, 0)
    assert await case.open(case.draft()) == Recorded(b"unknown")


async def test_a_step_that_never_ran_or_gave_up_resolves_as_idle(case: Case) -> None:
    await case.started()
    draft = await case.admit(case.draft("a"))
    await case.close(draft, state=None)

    for key in (draft.key, case.key("never")):
        resolved = await case.store.runs.resolve(key, acted=ACTED, idle=IDLE)
        assert resolved == ("failed", b"failed")


async def test_resolving_returns_what_is_recorded_and_proves_no_success(case: Case) -> None:
    draft = await case.started()

    resolved = await case.store.runs.resolve(draft.key, acted=ACTED, idle=IDLE)

    assert resolved == ("done", b"answer 1")
    with pytest.raises(RequestRefused):
        await case.store.runs.resolve(draft.key, acted=Ending("done", b"x", b"y"), idle=IDLE)


async def test_a_sweep_looks_at_open_runs_where_nothing_happens(case: Case) -> None:
    await case.started()
    other = case.another_run()
    await other.started()
    await other.admit(other.draft())
    for table in ("run", "step"):
        await case.owner.execute(
            f"update runward.{table} set opened_at = opened_at - interval '3 hours'"
            f" where tenant = $1 and run_id = any($2)",
            case.tenant,
            [case.run] if table == "step" else [case.run, other.run],
        )

    runs = await case.store.runs.candidates(timedelta(hours=2), limit=10_000)

    assert [run.run_id for run in runs if run.tenant == case.tenant] == [case.run]


async def test_a_revoked_issuer_begins_nothing(case: Case) -> None:
    await case.started()
    await case.owner.execute(
        "insert into runward.issuer values ('kid-' || $1, '{}', '{}', '{}', '{}', now(), now())",
        case.tenant,
    )
    await case.owner.execute(
        "update runward.run set kid = 'kid-' || tenant where tenant = $1", case.tenant
    )

    assert await case.open(case.draft()) == Refused("ticket", "its issuer was revoked")


async def test_issuers_are_registered_once_and_revoked_for_good(
    case: Case, database_url: str
) -> None:
    from runward.contracts.errors import ConfigurationError
    from runward.store.pool import Store

    issuer = Issuer(f"kid-{case.tenant}", {"kty": "OKP"}, ("*",), ("a", "b"), ("start",))
    async with Store(database_url) as owner:
        await owner.issuers.add(issuer)
        await owner.issuers.add(issuer)
        assert await case.store.issuers.find(issuer.kid) == issuer
        with pytest.raises(ConfigurationError, match="other content"):
            await owner.issuers.add(Issuer(issuer.kid, {}, (), (), ()))

        assert await owner.issuers.revoke(issuer.kid)
        assert not await owner.issuers.revoke("unknown")
    revoked = await case.store.issuers.find(issuer.kid)
    assert revoked is not None and revoked.revoked
    assert await case.store.issuers.find("nul\x00") is None
