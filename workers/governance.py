"""Assembly of one worker's governance: which shape stands for which activity type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

from temporalio.client import Client

from runward.activities.closing import ClosingRuns
from runward.activities.deciding import Deciding
from runward.activities.history import history_of
from runward.activities.model import ModelCall
from runward.activities.providers import Providers
from runward.activities.tool import ToolCalls
from runward.activities.transcripts import Transcripts
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.approvals import ApprovalTerms
from runward.contracts.budget import Budget
from runward.contracts.policy import Policy
from runward.contracts.shapes import Shape
from runward.contracts.tools import Tool
from runward.interceptors.approvals import Approvals
from runward.interceptors.budget import Budgets
from runward.interceptors.describing import describer
from runward.interceptors.foreign import ForeignCall
from runward.interceptors.identity import Identity
from runward.interceptors.permissions import Permissions
from runward.interceptors.step import Governance
from runward.store.pool import Store
from runward.store.prices import price


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a user gave to `RunwardPlugin`, checked."""

    agents: Mapping[str, Agent[Any]]
    governed: Mapping[str, Tool]  # users' own activity types
    policy: Policy
    budget: Budget | None
    approvals: ApprovalTerms
    providers: Providers
    deps: Any


class Deps:
    """What tools get as `ctx.deps`; a context manager is entered when the worker starts to run."""

    def __init__(self, given: Any) -> None:
        self._given = given
        self._entered: Any = None
        self._stack = AsyncExitStack()

    async def enter(self) -> None:
        """Enters the context manager, where one was given."""
        if isinstance(self._given, AbstractAsyncContextManager):
            self._entered = await self._stack.enter_async_context(self._given)
        else:
            self._entered = self._given

    async def leave(self) -> None:
        """Leaves the context manager."""
        await self._stack.aclose()

    def __call__(self) -> Any:
        return self._entered


@dataclass(frozen=True, slots=True)
class Assembly:
    """What one worker runs with."""

    governance: Governance
    activities: Sequence[Callable[..., Any]]
    transcripts: Transcripts
    deps: Deps


def assemble(client: Client, store: Store, given: Definitions) -> Assembly:
    """Returns everything that one worker needs, wired; nothing is opened yet."""
    for agent in given.agents.values():
        given.providers.check(agent)
    deps = Deps(given.deps)
    transcripts = Transcripts(store, history_of(client))
    identity = Identity(store, describer(client), given.agents, given.policy)
    model = ModelCall(given.agents, given.providers, transcripts, price, store.reads.tried)
    tools = ToolCalls(given.agents, transcripts, deps)
    shapes: dict[str, Shape] = {names.CALL_MODEL: model}
    bodies: list[Callable[..., Any]] = [
        model.call_model,
        ClosingRuns(store, transcripts, identity.run_of).close,
        Deciding(store).decide,
    ]
    for name, body in tools.activities():
        shapes[name] = tools
        bodies.append(body)
    for name, tool in given.governed.items():
        shapes[name] = ForeignCall(tool)
    governance = Governance(
        store,
        shapes,
        identity,
        Permissions(given.policy),
        Budgets(given.budget),
        Approvals(given.approvals),
    )
    return Assembly(governance, bodies, transcripts, deps)
