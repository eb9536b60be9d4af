"""Starting runs and reading their ends, against a real server with a stand-in for the run."""

from __future__ import annotations

from datetime import UTC, datetime
from traceback import format_exception
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import (
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryRejectedError,
)
from temporalio.exceptions import CancelledError

from runward.client.runward_client import RunwardClient
from runward.contracts.agents import Agent
from runward.contracts.encoding import digest_of
from runward.contracts.errors import (
    AgentError,
    NotFound,
    RequestRefused,
)
from runward.contracts.identity import verify
from runward.contracts.usage import Usage

from .client_stand_in import Desk, UsersOwn, registered


async def test_result_has_what_the_run_returned(desk: Desk) -> None:
    run = await desk.ada.start("support", "say hello", session_id="s-1")
    desk.confirm(run, "hello")

    result = await run.result(timeout=20)

    assert (result.output, result.parsed, result.turns) == ("hello", "hello", 1)
    assert (result.usage, str(result.cost)) == (Usage(7, 0, 0, 3), "0.0000015")
    assert (result.session_id, result.interrupted) == ("s-1", False)


async def test_run_of_another_process_is_read_from_its_history(desk: Desk) -> None:
    run = await desk.ada.start("support", "say hello", session_id="s-1")
    desk.confirm(run, "hello")

    result = await desk.ada.get(run.id).result(timeout=20)

    assert (result.session_id, result.run_id) == ("s-1", (await run.result()).run_id)


async def test_answer_is_parsed_as_the_agents_output(desk: Desk) -> None:
    agent: Agent[list[int]] = Agent("support", model="scripted:x", output_type=list[int])
    run = await desk.ada.start(agent, "say [1,2]")
    desk.confirm(run, "[1,2]")

    assert (await run.result(timeout=20)).parsed == [1, 2]


async def test_answer_of_another_shape_is_an_agent_error(desk: Desk) -> None:
    agent: Agent[list[int]] = Agent("support", model="scripted:x", output_type=list[int])
    run = await desk.ada.start(agent, "say nonsense")
    desk.confirm(run, "nonsense")

    with pytest.raises(AgentError, match=r"does not fit \(all of it: json_invalid\)") as caught:
        await run.result(timeout=20)
    assert "nonsense" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize("given", [[], [{"a": "nonsense"}]], ids=["nothing", "something"])
async def test_workflow_that_is_no_agent_run_is_told_without_its_input(
    desk: Desk, given: list[dict[str, str]]
) -> None:
    other = await desk.rw.temporal.start_workflow(
        "other", args=given, id=f"other-{uuid4().hex}", task_queue="empty"
    )
    run = desk.ada.get(other.id)

    for ask in (run.story(), anext(run.watch()), anext(run.content("d"))):
        with pytest.raises(RequestRefused, match="no agent run") as caught:
            await ask
        assert "nonsense" not in "".join(format_exception(caught.value))


@pytest.mark.parametrize("recorded", [None, "another answer"])
async def test_answer_that_the_store_does_not_confirm_is_refused(
    desk: Desk, recorded: str | None
) -> None:
    run = await desk.ada.start("support", "say forged")
    if recorded is not None:
        desk.confirm(run, recorded)

    with pytest.raises(AgentError, match="does not confirm"):
        await run.result(timeout=20)


async def test_interrupted_run_returns_with_its_reason(desk: Desk) -> None:
    agent: Agent[list[int]] = Agent("support", model="scripted:x", output_type=list[int])

    run = await desk.ada.start(agent, "limit")
    desk.interrupted(run, "max_turns_exceeded")
    result = await run.result(timeout=20)

    assert (result.interrupted, result.interruption_reason) == (True, "max_turns_exceeded")
    assert result.parsed is None


@pytest.mark.parametrize("recorded", [None, "budget:per_user_max_tokens"])
async def test_interruption_that_the_store_does_not_confirm_is_refused(
    desk: Desk, recorded: str | None
) -> None:
    run = await desk.ada.start("support", "limit")
    if recorded is not None:
        desk.interrupted(run, recorded)

    with pytest.raises(AgentError, match="does not confirm"):
        await run.result(timeout=20)


async def test_interrupted_run_has_no_answer_whatever_stands_there(desk: Desk) -> None:
    run = await desk.ada.start("support", "limit It is safe.")
    desk.interrupted(run, "max_turns_exceeded")

    assert (await run.result(timeout=20)).output == ""


@pytest.mark.parametrize("doing", ["result", "status", "cancel", "terminate", "next_approval"])
async def test_run_of_another_tenant_is_not_there(desk: Desk, doing: str) -> None:
    run = await desk.ada.start("support", "wait")
    theirs = desk.rw.acting_as("eve", tenant=uuid4().hex).get(run.id)
    calls = {
        "result": lambda one: one.result(timeout=20),
        "status": lambda one: one.status(),
        "cancel": lambda one: one.cancel(),
        "terminate": lambda one: one.terminate("mine"),
        "next_approval": lambda one: one.next_approval(timeout=5),
    }

    with pytest.raises(RequestRefused, match="has no run of that id"):
        await calls[doing](theirs)

    assert (await desk.bob.get(run.id).status()).state == "running"


async def test_run_under_another_tag_key_is_known_by_the_store(desk: Desk) -> None:
    other = RunwardClient(
        desk.rw.temporal, issuer=desk.key, reader=desk.reader, tag_key="a key of sixteen chars"
    )
    run = await desk.ada.start("support", "wait")
    again = other.acting_as("ada", tenant=desk.tenant).get(run.id)
    with pytest.raises(RequestRefused, match="has no run of that id"):
        await again.status()
    desk.confirm(run, "")

    assert (await again.status()).state == "running"


async def test_failed_run_is_an_agent_error_with_its_reason(desk: Desk) -> None:
    with pytest.raises(AgentError, match="the model was away"):
        await desk.ada.execute("support", "fail the model was away")


async def test_cancelled_run_is_temporals_own_error(desk: Desk) -> None:
    run = await desk.ada.start("support", "wait")
    await run.cancel()

    with pytest.raises(WorkflowFailureError) as ended:
        await run.result(timeout=20)

    assert isinstance(ended.value.cause, CancelledError)


async def test_terminated_run_is_an_agent_error_with_the_reason(desk: Desk) -> None:
    run = await desk.ada.start("support", "wait")
    await run.terminate("out of hand")

    with pytest.raises(AgentError, match="out of hand"):
        await run.result(timeout=20)


async def test_an_ended_run_is_not_terminated_again(desk: Desk) -> None:
    run = await desk.ada.start("support", "wait")
    await run.terminate("out of hand")

    with pytest.raises(RequestRefused, match=r"It has ended already\. `runward runs show`") as told:
        await run.terminate("once more")
    assert not isinstance(told.value, NotFound)


async def test_a_run_that_just_continues_as_new_has_not_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may find the execution closed that it was about to ask; the next one goes on."""
    run = await desk.ada.start("support", "wait")
    ask, rejected = WorkflowHandle.query, 0

    async def query(*given: Any, **named: Any) -> Any:
        nonlocal rejected
        if rejected < 2:
            rejected += 1
            raise WorkflowQueryRejectedError(WorkflowExecutionStatus.CONTINUED_AS_NEW)
        return await ask(*given, **named)

    monkeypatch.setattr(WorkflowHandle, "query", query)

    assert (await run.status()).state == "running"
    assert rejected == 2


async def test_result_waits_no_longer_than_asked(desk: Desk) -> None:
    run = await desk.ada.start("support", "wait")

    with pytest.raises(TimeoutError):
        await run.result(timeout=0.2)


async def test_same_key_and_request_is_the_same_run(desk: Desk) -> None:
    first = await desk.ada.start("support", "wait", key="k")
    running = await desk.ada.start("support", "wait", key="k")
    await first.terminate("enough")
    ended = await desk.ada.start("support", "wait", key="k")

    assert first.id == running.id == ended.id
    assert first._origin == running._origin == ended._origin


async def test_same_key_for_another_request_is_refused(desk: Desk) -> None:
    await desk.ada.start("support", "wait", key="k")

    with pytest.raises(RequestRefused, match="'k'"):
        await desk.ada.start("support", "wait longer", key="k")


async def test_unknown_run_is_refused(desk: Desk) -> None:
    with pytest.raises(RequestRefused, match="rw-none"):
        await desk.ada.get("rw-none").result(timeout=20)


async def test_run_carries_a_ticket_for_exactly_this_request(desk: Desk) -> None:
    run = await desk.ada.start("support", "ticket", session_id="s")

    ticket = verify(await desk.unconfirmed(run.id), registered(desk.key), at=datetime.now(UTC))

    assert (ticket.principal, ticket.operation) == (desk.ada.principal, "start")
    wanted = digest_of({"agent": "support", "prompt": "ticket", "session": "s"})
    assert (ticket.subject, ticket.digest) == (run.id, wanted)


async def test_users_own_workflow_carries_a_ticket_for_its_type(desk: Desk) -> None:
    workflow_id = uuid4().hex

    token = await desk.ada.temporal.execute_workflow(
        UsersOwn.run, id=workflow_id, task_queue=desk.rw.task_queue
    )
    ticket = verify(token, registered(desk.key), at=datetime.now(UTC))

    assert (ticket.subject, ticket.digest) == (workflow_id, digest_of({"workflow": "users-own"}))


@pytest.mark.parametrize("name", ["", "\ud800", "a\x00b"])
async def test_what_cannot_be_an_id_is_not_there(desk: Desk, name: str) -> None:
    ada = desk.rw.acting_as("ada", tenant=desk.tenant)

    with pytest.raises(NotFound):
        ada.get(name)
    with pytest.raises(NotFound):
        await ada.approvals.get(name)


async def test_key_that_is_no_text_is_refused(desk: Desk) -> None:
    with pytest.raises(RequestRefused, match="half a character"):
        await desk.rw.acting_as("ada", tenant=desk.tenant).start("support", "say", key="\ud800")


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        ({"limit": 0}, "at least 1 and at most 10000"),
        ({"limit": -1}, "at least 1 and at most 10000"),
        ({"limit": 10_001}, "at least 1 and at most 10000"),
        ({"state": "bogus"}, "open, answered, interrupted, cancelled, failed, ended"),
        ({"user": "a\x00"}, "No run has such a name"),
        ({"agent": "\ud800"}, "No run has such a name"),
        ({"session_id": "\x00"}, "No run has such a name"),
    ],
)
async def test_list_of_what_no_run_can_have_is_refused(
    desk: Desk, asked: dict[str, Any], holds: str
) -> None:
    with pytest.raises(RequestRefused) as caught:
        await desk.rw.acting_as("ada", tenant=desk.tenant).list(**asked)

    assert holds in caught.value.holds
