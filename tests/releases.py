"""Two releases of one app, and which build of a deployment new runs go to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentVersionRequest,
    DescribeWorkerDeploymentVersionResponse,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import WorkerDeploymentConfig

from runward.client.settings import Deployment
from runward.contracts.agents import Agent
from runward.testing.scripts import (
    MemoryLedger,
    Script,
    ScriptedProvider,
    Slow,
    Turn,
    ask,
    failing,
    say,
)
from runward.testing.stack import Stack
from runward.workers.deployment import versioned
from tests.support import Shop, shop_tools

LOOKUP = ask("lookup_order", order_id="17")
REFUND = ask("refund", order_id="17", amount="5.00")
LOOK_AGAIN_S = 0.05
# Settings of a development server that looks for drained builds early.
EARLY_DRAINAGE = (
    'matching.wv.VersionDrainageStatusVisibilityGracePeriod="1s"',
    'matching.wv.VersionDrainageStatusRefreshInterval="1s"',
)


@dataclass
class Release:
    """One release: its number is in its instructions, its tools' definitions and its answers.

    The agent `support` refunds, which a person must approve. `reader` looks orders up, so many
    times; the model's second answer comes when the gate is open.
    """

    number: str
    lookups: int = 2
    without: Sequence[str] = ()  # tools and agents that this release lacks
    shop: Shop = field(default_factory=Shop)
    bills: MemoryLedger = field(default_factory=MemoryLedger)
    inside: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def given(self) -> dict[str, Any]:
        """Returns what the plugin takes."""
        agents = [self._agent(name) for name in ("support", "reader") if name not in self.without]
        provider = ScriptedProvider(
            {
                "support": Script([LOOKUP, REFUND, say(f"Refunded by {self.number}.")]),
                "reader": Script(self._reading),
            },
            ledger=self.bills,
            sleep=self._held,
        )
        return {"agents": agents, "providers": [provider], "deps": self.shop}

    @property
    def _reading(self) -> list[Turn]:
        turns = [LOOKUP] * self.lookups
        turns[1] = failing(LOOKUP, Slow(1), Slow(1), Slow(1))
        return [*turns, say(f"Read by {self.number}.")]

    def _agent(self, name: str) -> Agent[str]:
        tools = [
            replace(one, description=f"{one.description} Release {self.number}.")
            for one in shop_tools()
            if one.name not in self.without
        ]
        return Agent(
            name,
            model=f"scripted:{name}",
            instructions=f"Release {self.number}.",
            tools=tools,
            approver_role="finance",
        )

    async def _held(self, _: float) -> None:
        self.inside.set()
        await self.gate.wait()


def build(stack: Stack, number: str) -> WorkerDeploymentConfig:
    """Returns what makes a worker this build; each stack has a deployment of its own."""
    return versioned(Deployment(stack.task_queue, number))


async def make_current(stack: Stack, number: str) -> None:
    """Sends new runs to this build, as soon as the server has seen it poll."""
    temporal = await Client.connect(stack.temporal_address)
    wanted = SetWorkerDeploymentCurrentVersionRequest(
        namespace=temporal.namespace, deployment_name=stack.task_queue, build_id=number
    )
    async with asyncio.timeout(30):
        while True:
            try:
                await temporal.workflow_service.set_worker_deployment_current_version(wanted)
                return
            except RPCError as error:
                if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION):
                    raise
            await asyncio.sleep(LOOK_AGAIN_S)


async def described(stack: Stack, number: str) -> DescribeWorkerDeploymentVersionResponse:
    """Returns what the server says of this build."""
    temporal = await Client.connect(stack.temporal_address)
    wanted = DescribeWorkerDeploymentVersionRequest(namespace=temporal.namespace)
    wanted.deployment_version.deployment_name = stack.task_queue
    wanted.deployment_version.build_id = number
    return await temporal.workflow_service.describe_worker_deployment_version(wanted)
