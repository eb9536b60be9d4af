"""A workflow of somebody else's under a run's name: told of as such, and without its contents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from traceback import format_exception
from typing import Any
from uuid import uuid4

import pytest
from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from runward.client.run_handle import RunHandle
from runward.contracts import names
from runward.contracts.errors import RequestRefused
from tests.client_stand_in import Desk

NONE_OF_OURS = "This workflow is no agent run. Use the Temporal client"
Ask = Callable[[RunHandle[str]], Awaitable[object]]


@workflow.defn(name="stranger", sandboxed=False)
class Stranger:
    """Waits, and returns or raises what it is told; its queries have the names of ours."""

    def __init__(self) -> None:
        self.end = ""

    @workflow.run
    async def run(self) -> str | None:
        """Returns what it is told, None for `return`."""
        await workflow.wait_condition(lambda: bool(self.end))
        if self.end == "fail":
            raise ApplicationError("nonsense", non_retryable=True)
        return None if self.end == "return" else self.end

    @workflow.signal
    def ends(self, end: str) -> None:
        """Lets it end so."""
        self.end = end

    @workflow.query(name=names.STATUS_QUERY)
    def status(self) -> dict[str, str]:
        """Returns what is no status of a run."""
        return {"state": "nonsense"}

    @workflow.query(name=names.PENDING_QUERY)
    def pending(self) -> list[str]:
        """Returns what are no requests."""
        return ["nonsense"]


@workflow.defn(name="silent-stranger", sandboxed=False)
class SilentStranger:
    """Has no query at all."""

    @workflow.run
    async def run(self) -> None:
        """Waits for ever."""
        await asyncio.Event().wait()


@pytest.fixture
async def queue(desk: Desk) -> AsyncIterator[str]:
    queue = uuid4().hex
    kinds = [Stranger, SilentStranger]
    async with Worker(desk.rw.temporal, task_queue=queue, workflows=kinds):
        yield queue


async def stranger(desk: Desk, queue: str, kind: str = "stranger") -> WorkflowHandle[Any, Any]:
    return await desk.rw.temporal.start_workflow(kind, id=uuid4().hex, task_queue=queue)


async def refused(run: RunHandle[str], ask: Ask) -> str:
    """Returns what is said of it; nothing of the workflow's is in it, nor in its traceback."""
    with pytest.raises(RequestRefused) as caught:
        await ask(run)
    assert "nonsense" not in "".join(format_exception(caught.value))
    return str(caught.value)


ENDED: list[Ask] = [lambda run: run.result(timeout=20), lambda run: run.status()]


@pytest.mark.parametrize("ask", ENDED, ids=["result", "status"])
@pytest.mark.parametrize("end", ["fail", "return", "nonsense"])
async def test_how_it_ended_is_not_told(desk: Desk, queue: str, end: str, ask: Ask) -> None:
    other = await stranger(desk, queue)
    await other.signal("ends", end)
    try:
        await other.result()
    except WorkflowFailureError:
        assert end == "fail"

    assert NONE_OF_OURS in await refused(desk.ada.get(other.id), ask)


OPEN: list[Ask] = [*ENDED, lambda run: run.next_approval(timeout=20)]


@pytest.mark.parametrize("ask", OPEN, ids=["result", "status", "next_approval"])
async def test_what_it_answers_is_not_told(desk: Desk, queue: str, ask: Ask) -> None:
    other = await stranger(desk, queue)

    assert NONE_OF_OURS in await refused(desk.ada.get(other.id), ask)


async def test_whose_approvals_can_be_waited_for_is_said(desk: Desk, queue: str) -> None:
    """Workflows of users' own ask for them, too, so that it is none of ours says nothing."""
    other = await stranger(desk, queue, "silent-stranger")

    said = await refused(desk.ada.get(other.id), OPEN[-1])

    assert "where a worker governs them" in said
