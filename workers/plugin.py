"""`RunwardPlugin`: the one assembly object. It goes on the client, and so onto its workers."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Literal

from temporalio import activity
from temporalio.client import ClientConfig
from temporalio.common import HeaderCodecBehavior
from temporalio.plugin import SimplePlugin
from temporalio.worker import Interceptor, ReplayerConfig, Worker, WorkerConfig

from runward.activities.providers import Providers
from runward.contracts.agents import Agent
from runward.contracts.approvals import APPROVAL_TTL, EXECUTION_TTL, ApprovalTerms
from runward.contracts.budget import Budget
from runward.contracts.errors import ConfigurationError
from runward.contracts.policy import Misnamed, Policy, StandardPermissions, misnamed
from runward.contracts.providers import Provider
from runward.contracts.tools import Tool
from runward.interceptors.workflow import GovernedWorkflow
from runward.store.pool import Store
from runward.workers.governance import Assembly, Definitions, assemble
from runward.workflows.agent_run import AgentRun

WORKER_ROLE = "runward_worker"
_LOG = logging.getLogger("runward.worker")


class RunwardPlugin(SimplePlugin):
    """Agents, tools, policy and budget of an app, as a Temporal plugin.

    Without a `database_url` it does the client's share only, and replays; a worker refuses to run.
    `govern` are tools made of your own activities: `tool(charge_card, effect="money")`. A request
    for an approval that nobody decides expires after `approval_ttl`, an approval that nobody uses
    after `execution_ttl`; both from a second to 30 days.
    """

    def __init__(
        self,
        *,
        agents: Sequence[Agent[Any]] = (),
        deps: Any = None,
        policy: Policy | None = None,
        budget: Budget | None = None,
        approver_role: str | None = None,
        approval_ttl: timedelta = APPROVAL_TTL,
        execution_ttl: timedelta = EXECUTION_TTL,
        providers: Iterable[Provider] = (),
        govern: Sequence[Tool] = (),
        govern_unlisted: Literal["pass", "deny"] = "pass",
        database_url: str | None = None,
    ) -> None:
        super().__init__("runward")
        self.database_url = database_url
        self._deny_unlisted = govern_unlisted == "deny"
        self._given = Definitions(
            agents=_by_name(agents),
            governed={_activity_type(one): one for one in govern},
            policy=policy or StandardPermissions(),
            budget=budget,
            approvals=ApprovalTerms(approver_role, approval_ttl, execution_ttl),
            providers=Providers(providers),
            deps=deps,
        )
        self._assemblies: dict[int, tuple[Store, Assembly]] = {}

    @property
    def agents(self) -> tuple[Agent[Any], ...]:
        """Returns the agents of this app."""
        return tuple(self._given.agents.values())

    @property
    def misnamed(self) -> tuple[Misnamed, ...]:
        """Returns what the policy's lists name and this app does not have; told by its workers."""
        tools = [tool for one in self.agents for tool in one.tools]
        known = {
            "tools": [one.name for one in (*tools, *self._given.governed.values())],
            "agents": list(self._given.agents),
            "models": [model for one in self.agents for model in one.models],
        }
        return tuple(misnamed(self._given.policy, known))

    def configure_client(self, config: ClientConfig) -> ClientConfig:
        """Encodes headers with the client's codec; its data converter stays as it is."""
        config = super().configure_client(config)
        config["header_codec_behavior"] = HeaderCodecBehavior.CODEC
        return config

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Adds workflows, activities and the governed step, which stands nearest to the bodies."""
        config = super().configure_worker(config)
        interceptors = list(config.get("interceptors") or ())
        workflow = GovernedWorkflow(self._is_governed)
        if self.database_url is None:
            raise ConfigurationError(
                "A worker with RunwardPlugin",
                "No database_url names the store, so nothing could be governed",
                "Pass database_url=, or run it with `runward worker` or `runward dev`",
            )
        self._unlisted(config)
        store = Store(self.database_url, role=WORKER_ROLE)
        assembly = assemble(config["client"], store, self._given)
        config["interceptors"] = [*interceptors, workflow, assembly.governance]
        config["activities"] = [*(config.get("activities") or ()), *assembly.activities]
        if self._given.agents:
            config["workflows"] = [*(config.get("workflows") or ()), AgentRun]
        self._assemblies[id(assembly.governance)] = (store, assembly)
        return config

    def configure_replayer(self, config: ReplayerConfig) -> ReplayerConfig:
        """Adds what replay needs: the workflow and what rides on workflows. No database."""
        config = super().configure_replayer(config)
        workflow = GovernedWorkflow(self._is_governed)
        config["interceptors"] = [*(config.get("interceptors") or ()), workflow]
        config["workflows"] = [*(config.get("workflows") or ()), AgentRun]
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """Runs the worker while the store is open and the users' deps are entered."""
        interceptors = list(worker.config(active_config=True).get("interceptors") or ())
        store, assembly = self._mine(interceptors)
        _check_nearest(interceptors, assembly)
        # Now and not before: plugins behind ours may have added activities.
        unlisted = self._unlisted(worker.config(active_config=True), assembly.activities)
        if unlisted:
            _LOG.info("not governed, passing untouched: %s", ", ".join(unlisted))
        for one in self.misnamed:
            _LOG.warning("permissions: %s", one)
        async with store:
            await store.check_schema()
            await assembly.deps.enter()
            try:
                await next(worker)
            finally:
                await assembly.deps.leave()
                await self._given.providers.close()

    def assembly_of(self, worker: Worker) -> Assembly:
        """Returns what a worker of this plugin runs with."""
        return self._mine(list(worker.config(active_config=True).get("interceptors") or ()))[1]

    def _mine(self, interceptors: list[Any]) -> tuple[Store, Assembly]:
        for one in interceptors:
            if id(one) in self._assemblies:
                return self._assemblies[id(one)]
        raise ConfigurationError(
            "A worker with RunwardPlugin",
            "Its interceptors were replaced after ours were added",
            "Let other plugins add to them",
        )

    def _is_governed(self, activity_type: str) -> bool:
        return activity_type in self._given.governed

    def _unlisted(self, config: WorkerConfig, ours: Sequence[Callable[..., Any]] = ()) -> list[str]:
        """Returns the types that pass untouched, or refuses them if asked to."""
        types = (activity._Definition.must_from_callable(one).name or "dynamic"
                 for one in config.get("activities") or () if one not in ours)  # fmt: skip
        unlisted = sorted(one for one in types if one not in self._given.governed)
        if unlisted and self._deny_unlisted:
            raise ConfigurationError(
                "govern_unlisted='deny'",
                f"These activities are not governed: {', '.join(unlisted)}",
                "Add them to govern=, or take them off this worker",
            )
        return unlisted


def _by_name(agents: Sequence[Agent[Any]]) -> dict[str, Agent[Any]]:
    found = {one.name: one for one in agents}
    if len(found) < len(agents):
        raise ConfigurationError(
            "RunwardPlugin(agents=...)", "Two agents have the same name", "Rename one"
        )
    return found


def _activity_type(tool: Tool) -> str:
    definition = activity._Definition.from_callable(tool.body)
    if definition is None or definition.name is None:
        raise ConfigurationError(
            f"govern=[{tool.name}]",
            "It is not an activity",
            "Decorate the function with @activity.defn; tools of agents go into Agent(tools=...)",
        )
    if tool.retries:
        raise ConfigurationError(
            f"govern=[{tool.name}] with retries={tool.retries}",
            "Your workflow schedules this activity, and its retry policy retries it",
            "Set maximum_attempts there",
        )
    return definition.name


def _check_nearest(interceptors: list[Any], assembly: Assembly) -> None:
    """Refuses interceptors nearer to the body: they could change arguments after the verdict."""
    ours = next(index for index, one in enumerate(interceptors) if one is assembly.governance)
    for one in interceptors[ours + 1 :]:
        method = getattr(type(one), "intercept_activity", None)
        if method is not Interceptor.intercept_activity:
            raise ConfigurationError(
                f"The interceptor {type(one).__name__}",
                "It stands between the governed step and the activity",
                "Put its plugin before RunwardPlugin",
            )
