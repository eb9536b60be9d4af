"""What the face adds to a run of `AgentRun`: its functions' time in the worker, and its events.

The functions are wrapped, or emptied, from here; the product has no switch for it. They are all
that runs in a worker for those who look at runs:

- the current details, with the turn, the spend and the calls under way (`_say`, `_called`), and
  what a run waits for below them (`Waiting._show`);
- each step's summary, and the payload that the SDK makes of it;
- `RunwardState`, which a run upserts when it begins to wait and when it goes on (`show_state`).

`watch`, `runs show` and `runs list` have no function here: they read the rows and audit records
that the steps write for the books, and the one column that they are ordered by is filled in by
PostgreSQL. Labels and static summaries are of the client that starts a run.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from stack import ANSWER, PROMPT, QUEUE, TENANT, Servers
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.converter import PayloadConverter

from runward.client.keys import KeyFile
from runward.client.runward_client import RunwardClient
from runward.interceptors import waiting
from runward.workflows import agent_run

Part = tuple[Any, str]  # where a function stands, and its name
FACE: tuple[Part, ...] = (
    (agent_run.AgentRun, "_say"),
    (agent_run, "_called"),
    (agent_run, "_summary"),
    (agent_run, "show_state"),
    (waiting, "show_state"),
    (waiting.Waiting, "_show"),
)
# In a worker, of all that becomes a payload only summaries pass here: the rest comes as a list.
OF_SUMMARIES: Part = (PayloadConverter, "to_payload")
# How many tasks a workflow takes depends on which calls happen to end together. What causes a task
# is an event itself, so one that the face causes is not missed.
_TASKS = frozenset(
    number for name, number in EventType.items() if name.startswith("EVENT_TYPE_WORKFLOW_TASK_")
)


@contextmanager
def profiled() -> Iterator[list[int]]:
    """Yields a list that gets each call's CPU time in its thread, in nanoseconds."""
    spent: list[int] = []  # workflows run in several threads; to append is safe in all of them
    with ExitStack() as patches:
        for place, name in (*FACE, OF_SUMMARIES):
            timed = _timed(getattr(place, name), spent)
            patches.enter_context(patch.object(place, name, timed))
        yield spent


@contextmanager
def silenced() -> Iterator[None]:
    """Lets the face do nothing, in runs that begin and end within the block."""
    with ExitStack() as patches:
        for place, name in FACE:
            patches.enter_context(patch.object(place, name, _nothing))
        yield


async def events(where: Servers, turns: int) -> int:
    """Returns how many events a run has, beside those of workflow tasks."""
    temporal = await Client.connect(where.temporal)
    client = RunwardClient(temporal, issuer=KeyFile(where.key_file), task_queue=QUEUE)
    run = await client.acting_as("ada", tenant=TENANT).start(f"turns-{turns}", PROMPT)
    if (output := (await run.result()).output) != ANSWER:
        raise RuntimeError(f"the run answered {output!r}")
    return sum(one.event_type not in _TASKS for one in (await run.history()).events)


def _timed(function: Callable[..., Any], spent: list[int]) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*given: Any, **named: Any) -> Any:
        began = time.thread_time_ns()
        try:
            return function(*given, **named)
        finally:
            spent.append(time.thread_time_ns() - began)

    return timed


def _nothing(*_: Any, **__: Any) -> None:
    return None
