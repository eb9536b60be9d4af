"""A user of the wheel writes rules and providers, and assembles an app; checkers read this only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, assert_type

from temporalio import activity
from temporalio.client import ClientConfig
from temporalio.worker import ReplayerConfig, Worker, WorkerConfig

from runward import Agent, Budget, Cap, PerUserPermissions, RunwardPlugin, StandardPermissions, tool
from runward.contracts.identity import Principal
from runward.contracts.policy import Misnamed, Mode, Policy, Verdict, Word
from runward.contracts.providers import (
    ModelError,
    ModelRequest,
    ModelResponse,
    OutputSpec,
    Provider,
    Stop,
    ToolSpec,
)
from runward.contracts.tools import Tool
from runward.contracts.transcript import (
    AssistantMessage,
    FileRef,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from runward.contracts.usage import Usage
from runward.workers.governance import Assembly


@tool(effect="money")
def refund(order_id: str) -> str:
    """Pays an order back."""
    return order_id


@activity.defn
async def charge_card(card: str) -> str:
    """Charges a card, in a workflow of the user's own."""
    return card


support = Agent("support", model="echo:m", tools=[refund])


class Frugal:
    """A policy of the user's own."""

    @property
    def body(self) -> dict[str, Any]:
        """Returns the policy as data."""
        return {"kind": "frugal"}

    def judge(self, tool: Tool, principal: Principal) -> Verdict:
        """Returns the verdict on a tool."""
        return Verdict("ask" if tool.destructive else "allow", principal.user, "frugal")

    def judge_agent(self, agent: Agent[Any], model: str, principal: Principal) -> Verdict:
        """Returns the verdict on an agent."""
        return Verdict("deny", f"{agent.name} on {model}", "frugal")


def rules_are_typed(
    policy: Policy,
    verdict: Verdict,
    standard: StandardPermissions,
    users: PerUserPermissions,
    principal: Principal,
) -> None:
    """Every policy answers alike."""
    assert_type(policy.judge(refund, principal), Verdict)
    assert_type(policy.judge_agent(support, "anthropic:m", principal), Verdict)
    assert_type(policy.body, dict[str, Any])
    assert_type(verdict.word, Word)
    assert_type(verdict.reason, str)
    assert_type(verdict.rule, str)
    assert_type(standard.judge(refund, principal), Verdict)
    assert_type(standard.judge_agent(support, "anthropic:m", principal), Verdict)
    assert_type(standard.body, dict[str, Any])
    assert_type(standard.mode, Mode)
    assert_type(standard.allowed_tools, Sequence[str] | None)
    assert_type(standard.denied_tools, Sequence[str])
    assert_type(standard.allowed_agents, Sequence[str] | None)
    assert_type(standard.denied_agents, Sequence[str])
    assert_type(standard.allowed_models, Sequence[str] | None)
    assert_type(users.judge(refund, principal), Verdict)
    assert_type(users.judge_agent(support, "anthropic:m", principal), Verdict)
    assert_type(users.body, dict[str, Any])
    assert_type(users.policies, Mapping[tuple[str, str], Policy])
    assert_type(users.default, Policy)


class Echo:
    """A provider of the user's own."""

    name = "echo"

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns what was said last."""
        last = request.messages[-1]
        assert_type(last, UserMessage | AssistantMessage | ToolMessage)
        if isinstance(last, UserMessage):
            call = ToolCall(id="1", name="lookup_order", arguments='{"order_id": "17"}')
            message = AssistantMessage(text=last.text, calls=(call,))
            return ModelResponse(message, Usage(input=3, output=4), "tools")
        if isinstance(last, ToolMessage):
            return ModelResponse(AssistantMessage(text=last.text), Usage(), "end", metered=False)
        raise ModelError("echo was asked nothing", retryable=False, unbilled=True)


def providers_are_typed(provider: Provider, asked: ModelRequest, said: ModelResponse) -> None:
    """What a provider is asked and answers, and the messages that tests make."""
    provider = Echo()
    assert_type(provider.name, str)
    assert_type(asked.model, str)
    assert_type(asked.instructions, str)
    assert_type(asked.messages, tuple[UserMessage | AssistantMessage | ToolMessage, ...])
    assert_type(asked.tools, tuple[ToolSpec, ...])
    assert_type(asked.max_output_tokens, int)
    assert_type(asked.idempotency_key, str)
    assert_type(asked.output, OutputSpec | None)
    assert_type(asked.files, Mapping[str, bytes])
    assert_type(said.message, AssistantMessage)
    assert_type(said.usage, Usage)
    assert_type(said.stop, Stop)
    assert_type(said.metered, bool)
    assert_type(said.reasoning, str)
    photo = FileRef(digest="d", size=1, media_type="image/png", name="a.png")
    assert_type(UserMessage(text="Hello", files=(photo,)).files, tuple[FileRef, ...])
    assert_type(ToolMessage(call_id="1", name="refund", text="paid", is_error=False).text, str)


async def calls_are_typed(provider: Provider, asked: ModelRequest, error: ModelError) -> None:
    """A call answers, or says why not."""
    assert_type(await provider.call(asked), ModelResponse)
    assert_type(error.retryable, bool)
    assert_type(error.unbilled, bool)
    assert_type(error.retry_after_s, float | None)


app = RunwardPlugin(
    agents=[support, Agent("count", model="echo:m", output_type=int)],
    deps=object(),
    policy=PerUserPermissions({("acme", "ada"): Frugal()}, default=StandardPermissions("plan")),
    budget=Budget(user=Cap(usd=5, calls=3, per="day"), on_exceeded="park"),
    approver_role="finance",
    approval_ttl=timedelta(hours=1),
    execution_ttl=timedelta(minutes=5),
    providers=[Echo()],
    govern=[tool(charge_card, effect="money")],
    govern_unlisted="deny",
    database_url="postgresql://localhost/runward",
)


async def apps_are_typed(
    plugin: RunwardPlugin,
    worker: Worker,
    misnamed: Misnamed,
    client: ClientConfig,
    config: WorkerConfig,
    replayer: ReplayerConfig,
) -> None:
    """What Temporal asks of a plugin."""

    async def run(worker: Worker) -> None:
        await worker.run()

    assert_type(plugin.agents, tuple[Agent[Any], ...])
    assert_type(plugin.misnamed, tuple[Misnamed, ...])
    assert_type(misnamed.rule, str)
    assert_type(misnamed.name, str)
    assert_type(misnamed.near, str | None)
    assert_type(plugin.database_url, str | None)
    assert_type(plugin.configure_client(client), ClientConfig)
    assert_type(plugin.configure_worker(config), WorkerConfig)
    assert_type(plugin.configure_replayer(replayer), ReplayerConfig)
    assert_type(plugin.assembly_of(worker), Assembly)
    await plugin.run_worker(worker, run)
