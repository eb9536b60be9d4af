"""A user of the wheel starts, watches, decides and reads runs; checkers read this only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, assert_type

from pydantic import BaseModel
from temporalio.client import Client, WorkflowHistory

from runward import (
    Agent,
    AgentError,
    ApprovalRefused,
    ConfigurationError,
    File,
    KeyFile,
    NotFound,
    NoWorkerAnswered,
    OutputValidationError,
    RequestRefused,
    RunResult,
    RunwardClient,
    RunwardError,
    StoreUnavailable,
    TemporalUnavailable,
    TicketRefused,
)
from runward.client.approvals import Approvals
from runward.client.keys import TicketSource
from runward.client.labels import Tags
from runward.client.run_handle import RunHandle
from runward.client.runs import ActingClient
from runward.contracts.approvals import Approval, DecisionResult, DecisionWord
from runward.contracts.errors import OutputProblem
from runward.contracts.identity import START_TTL, Operation, Principal
from runward.contracts.progress import Progress
from runward.contracts.runs import RunStatus
from runward.contracts.story import RunRow, Story, UserUsage

Answer = TypeVar("Answer")


class Parcel(BaseModel):
    """Where an order is."""

    days_left: int


class Signer:
    """Signs tickets where the key is, which is not here."""

    def ticket(
        self,
        principal: Principal,
        operation: Operation,
        *,
        subject: str,
        digest: str,
        decision: DecisionWord | None = None,
        ttl: timedelta = START_TTL,
    ) -> str:
        """Returns a signed ticket."""
        return f"{principal.user} {operation} {subject} {digest} {decision} {ttl}"


text = Agent("text", model="anthropic:m")
shipping = Agent("shipping", model="anthropic:m", output_type=Parcel)


async def clients_are_typed(
    client: RunwardClient, key: KeyFile, temporal: Client, signer: TicketSource
) -> None:
    """Connected here, or on a Temporal client that the user has; with a key, or what signs."""
    signer = Signer()
    assert_type(KeyFile.create(Path("dev.key"), kid="dev"), KeyFile)
    assert_type(key.kid, str)
    assert_type(key.path, Path)
    assert_type(key.public_key, dict[str, Any])
    ada = Principal("acme", "ada", frozenset({"finance"}))
    assert_type(key.ticket(ada, "start", subject="id", digest="d"), str)
    assert_type(signer.ticket(ada, "decide", subject="id", digest="d", decision="approve"), str)
    assert_type(
        await RunwardClient.connect("localhost:7233", issuer=key, namespace="default"),
        RunwardClient,
    )
    assert_type(RunwardClient(temporal, issuer=signer), RunwardClient)
    async with client as entered:
        assert_type(entered, RunwardClient)
    assert_type(client.temporal, Client)
    assert_type(client.task_queue, str)
    assert_type(client.acting_as("ada", tenant="acme", roles=["finance"]), ActingClient)
    await client.close()


async def runs_are_typed(ada: ActingClient, key: str | None, files: list[File]) -> None:
    """An agent's name brings text, an `Agent` what it answers with."""
    assert_type(await ada.start("shipping", "Where?", key=key, files=files), RunHandle[str])
    assert_type(await ada.start(text, "Where?", session_id="s"), RunHandle[str])
    assert_type(await ada.start(shipping, "Where?"), RunHandle[Parcel])
    assert_type(await ada.execute("shipping", "Where?", files=[*files]), RunResult[str])
    assert_type(await ada.execute(text, "Where?"), RunResult[str])
    assert_type(await ada.execute(shipping, "Where?", key="case-17"), RunResult[Parcel])
    assert_type((await ada.execute(shipping, "Where?")).parsed.days_left, int)
    assert_type(ada.get("id"), RunHandle[str])
    assert_type(ada.get("id", shipping), RunHandle[Parcel])
    assert_type(ada.get("id", agent=None), RunHandle[str])
    assert_type(await ada.list(user="ada", agent="text", state="open", limit=5), list[RunRow])
    assert_type(await ada.usage_for("ada"), UserUsage)
    assert_type(await ada.usage_for("ada", datetime.now()), UserUsage)
    assert_type(ada.approvals, Approvals)
    assert_type(ada.temporal, Client)
    assert_type(ada.tags, Tags)
    assert_type(ada.tags.of(ada.principal, "text"), dict[str, str])
    assert_type(ada.principal, Principal)
    assert_type(ada.task_queue, str)


async def asked(ada: ActingClient, agent: Agent[Answer], prompt: str) -> RunResult[Answer]:
    """Returns what any agent answers: the type goes through code of the user's own."""
    run = await ada.start(agent, prompt)
    assert_type(run, RunHandle[Answer])
    return await run.result()


async def either(ada: ActingClient, agent: Agent[Parcel] | str, like: Agent[Parcel] | None) -> None:
    """Whoever does not know which of the two it has gets either."""
    assert_type(await ada.execute(agent, "Where?"), RunResult[Parcel] | RunResult[str])
    assert_type(ada.get("id", like), RunHandle[Parcel] | RunHandle[str])
    assert_type(await asked(ada, shipping, "Where?"), RunResult[Parcel])
    assert_type(await asked(ada, text, "Where?"), RunResult[str])


async def handles_are_typed(run: RunHandle[Parcel]) -> None:
    """What a run says, and what may be done to it."""
    assert_type(run.id, str)
    assert_type(await run.result(), RunResult[Parcel])
    assert_type(await run.result(timeout=5), RunResult[Parcel])
    assert_type(await run.status(), RunStatus)
    assert_type(await run.next_approval(timeout=5), Approval)
    assert_type(await run.story(), Story)
    assert_type(await run.history(), WorkflowHistory)
    assert_type(run.watch(), AsyncIterator[Progress])
    assert_type(run.content("digest"), AsyncIterator[bytes])
    offset = ""
    async for event in run.watch(after=offset):
        assert_type(event, Progress)
        offset = event.offset
    async for chunk in run.content("digest"):
        assert_type(chunk, bytes)
    await run.reset("t3.model", "a better prompt")
    await run.check()
    await run.cancel()
    await run.terminate("a mistake")


async def approvals_are_typed(approvals: Approvals, one: Approval) -> None:
    """Requests, and decisions on them."""
    assert_type(await approvals.list(), list[Approval])
    assert_type(await approvals.list("approved"), list[Approval])
    assert_type(await approvals.get("id"), Approval)
    assert_type(await approvals.approve(one.id, reason="checked"), DecisionResult)
    assert_type(await approvals.reject(one.id), DecisionResult)
    await approvals.signal_decision(one.id, "approve", "checked")


async def errors_are_typed(run: RunHandle[Parcel]) -> str:
    """One hierarchy: the narrow ones come first."""
    try:
        await run.result()
    except OutputValidationError as error:
        assert_type(error.received, str)
        assert_type(error.problems, tuple[OutputProblem, ...])
        assert_type(error.problems[0].location, str)
        assert_type(error.expected, dict[str, Any] | None)
        return error.code
    except NotFound as error:
        refused: RequestRefused = error
        return refused.code
    except (AgentError, ApprovalRefused, ConfigurationError, TicketRefused) as error:
        ended: RunwardError = error
        return ended.code
    except (NoWorkerAnswered, StoreUnavailable, TemporalUnavailable) as error:
        away: RunwardError = error
        return away.code
    except RunwardError as error:
        assert_type(error.code, str)
        assert_type(error.asked, str)
        assert_type(error.holds, str)
        assert_type(error.instead, str)
        assert_type(error.traceback, str)
        return error.code
    return ""
