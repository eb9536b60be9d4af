"""Where a run began, by its history's first event: an agent's, or a user's own workflow."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes
from temporalio.client import WorkflowHandle
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from runward.client.answering import LIST_RUNS, answered
from runward.client.confirmation import Origin
from runward.client.reader import Reader
from runward.contracts import names
from runward.contracts.errors import NotFound, RequestRefused
from runward.contracts.identity import named_tenant
from runward.contracts.runs import RunInput
from runward.workflows.payloads import read

USE_TEMPORAL = "Use the Temporal client for your own workflows"


async def started(
    handle: WorkflowHandle[Any, Any], asked: str
) -> WorkflowExecutionStartedEventAttributes:
    """Returns what the newest execution was started with."""
    first = await answered(anext(handle.fetch_history_events(page_size=1)), asked)
    return first.workflow_execution_started_event_attributes


async def agents_origin(
    start: WorkflowExecutionStartedEventAttributes, converter: DataConverter, asked: str
) -> Origin:
    """Returns where an agent's run began; raises RequestRefused for any other workflow."""
    if start.workflow_type.name != names.AGENT_RUN:
        raise no_agent_run(asked)
    given = await converter.decode(start.input.payloads, [RawValue])
    try:
        request = read(RunInput, given[0]).request
    except (ValidationError, AttributeError, IndexError):
        raise no_agent_run(asked) from None
    return Origin(start.first_execution_run_id, request.session_id)


async def governed_id(
    start: WorkflowExecutionStartedEventAttributes,
    converter: DataConverter,
    reader: Reader,
    tenant: str,
    asked: str,
) -> str:
    """Returns under which run id the store knows a user's own workflow, or may come to know it.

    The store says whose it is; before its first governed call only its ticket does. Raises NotFound
    for one of another tenant, RequestRefused for one that nobody governs.
    """
    run_id = start.first_execution_run_id
    if await reader.run(tenant, run_id) is not None:
        return run_id
    headers = start.header.fields
    if names.TICKET_HEADER in headers:
        given = await converter.decode([headers[names.TICKET_HEADER]], [RawValue])
        if _tenant(given[0]) == tenant:
            return run_id
    elif names.STEP_HEADER not in headers:  # what continued as new has that in the ticket's place
        holds = "This workflow is no agent run, and the store has no governed call of it"
        raise RequestRefused(asked, holds, USE_TEMPORAL)
    raise NotFound(asked, f"Tenant {tenant!r} has no run of that id", LIST_RUNS)


def no_agent_run(asked: str) -> RequestRefused:
    """Returns the error for a workflow that is none of ours; what it was given stays with it."""
    instead = f"{USE_TEMPORAL}; story() and watch() tell of those that a worker governs"
    return RequestRefused(asked, "This workflow is no agent run", instead)


def _tenant(header: RawValue) -> str | None:
    try:
        return named_tenant(str(json.loads(header.payload.data)))
    except ValueError:  # under a codec that this client lacks
        return None
