"""`tool.<name>`: one call of one tool, with the arguments that were judged."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from temporalio import activity
from temporalio.common import RawValue

from runward.activities.results import Cut, encoded, shown
from runward.activities.transcripts import Transcripts, recorded, stored, written
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.budget import NOTHING
from runward.contracts.encoding import clean, digest
from runward.contracts.outcomes import (
    MESSAGE_INLINE_BYTES_MAX,
    PREVIEW_CHARS,
    Failed,
    Ref,
    ToolDone,
    effect_digest_v1,
    tool_message,
)
from runward.contracts.runs import RunRequest, ToolStep
from runward.contracts.shapes import (
    CURRENT,
    BodyFailed,
    Call,
    EffectUnknown,
    Ended,
    Facts,
    Forged,
    Later,
)
from runward.contracts.steps import Parent, Run
from runward.contracts.tools import Tool, ToolContext

DepsOf = Callable[[], Any]

REASON_CHARS_MAX = 1000  # of what a tool raised; the model reads it


class ToolCalls:
    """The bodies of all tools of this worker's agents, and what the governed step must know."""

    foreign = False

    def __init__(
        self, agents: Mapping[str, Agent[Any]], transcripts: Transcripts, deps_of: DepsOf
    ) -> None:
        self._agents = agents
        self._transcripts = transcripts
        self._deps_of = deps_of

    def activities(self) -> list[tuple[str, Callable[..., Any]]]:
        """Returns one activity per tool name, and the one for names that nobody knows."""
        tools = (one for agent in self._agents.values() for one in agent.tools)
        types = sorted({one.activity_type for one in tools} | {names.REFUSED_TOOL})
        return [(one, self._named(one)) for one in types]

    def _named(self, name: str) -> Callable[..., Any]:
        @activity.defn(name=name)
        async def call(given: RawValue) -> ToolDone | Cut | Failed:
            return await self._run()

        return call

    def opens(self, call: Call) -> RunRequest | str:
        """Returns nothing: a tool never opens a run."""
        return ""

    async def facts(self, run: Run, call: Call) -> Facts:
        """Returns the tool, its arguments as the model wrote them, and the digest over both."""
        step = ToolStep.model_validate_json(call.args[0])
        if call.step != f"t{step.turn}.tool.{step.index}":
            raise Forged("a tool step under another step's id")
        agent = self._agents.get(run.agent)
        tool = None if agent is None else agent.tool(step.name)
        schema = "" if tool is None else tool.schema_digest
        arguments = step.arguments
        if arguments is None:
            arguments = (await self._transcripts.call(run, step.turn, step.index)).arguments
        return Facts(
            kind="tool",
            name=step.name,
            digest=effect_digest_v1(step.name, schema, digest(arguments.encode())),
            tool=tool,
            agent=agent,
            budget=None if agent is None else agent.budget,
            approver_role=None if agent is None else agent.approver_role,
            arguments=arguments,
            parent=Parent(model=f"t{step.turn}.model", index=step.index),
            bound=NOTHING,
            prepared=step,
            problem="" if tool is not None else f"{step.name}: no such tool",
            retries=0 if tool is None else tool.retries,
        )

    async def _run(self) -> ToolDone | Cut | Failed:
        step = CURRENT.get()
        tool = step.facts.tool
        assert tool is not None, "an unknown tool is denied before its body"
        try:
            arguments = tool.arguments.model_validate_json(step.facts.arguments or "{}")
        except ValidationError as error:
            return ToolDone(text=f"invalid arguments: {_problems(error)}", is_error=True)
        context = ToolContext(
            tenant=step.run.tenant,
            user=step.run.user,
            run_id=step.run.run_id,
            step=step.call.step,
            idempotency_key=step.key,
            deps=self._deps_of(),
            heartbeat=_heartbeat(asyncio.get_running_loop()),
        )
        given = {name: getattr(arguments, name) for name in type(arguments).model_fields}
        try:
            async with asyncio.timeout(tool.timeout.total_seconds()) as limit:
                result = encoded(await _call(tool, context, given))
        except TimeoutError as error:
            if limit.expired():
                raise EffectUnknown(f"{tool.name}: no answer within {tool.timeout}") from error
            raise _raised(tool, error) from None
        except Exception as error:  # noqa: BLE001  # its step ends with it, or is tried again
            raise _raised(tool, error) from None  # its cause is too large and too private to send
        return await shown(tool.name, result)

    async def redefined(self, run: Run, facts: Facts) -> str:
        """Returns why this worker may not take a call that the model made exactly like that.

        The digest also holds the tool's definition: a worker of another release has another one.
        """
        step: ToolStep = facts.prepared
        try:
            asked = await self._transcripts.call(run, step.turn, step.index)
        except (Later, Forged):
            return ""
        if (asked.name, asked.arguments) != (step.name, facts.arguments):
            return ""
        return (
            f"{step.name}: this worker defines the tool otherwise than the one where the model"
            " called it. Run a worker of that release, or reset the run to before the call"
        )

    def waits(self, run: Run) -> None:
        """Lets go of the conversation, which the store has as well."""
        self._transcripts.release(run)

    def ended(self, run: Run, call: Call, facts: Facts, result: Any) -> Ended:
        """Returns the outcome, with a long text by reference."""
        step: ToolStep = facts.prepared
        outcome, whole = result if isinstance(result, Cut) else (result, None)
        message = tool_message(step.call_id, step.name, outcome)
        one = written(message)
        self._transcripts.keep(run, one)
        large = () if whole is None else (whole,)
        if isinstance(outcome, ToolDone) and len(one.content) > MESSAGE_INLINE_BYTES_MAX:
            ref = Ref(digest=one.digest, size=len(one.content),
                      preview=message.text[:PREVIEW_CHARS])  # fmt: skip
            short = outcome.model_copy(update={"text": None, "ref": ref})
            return Ended(short, NOTHING, message=one.digest, content=recorded(one),
                         large=(*large, *stored(one)))  # fmt: skip
        return Ended(outcome, NOTHING, message=one.digest, large=large)


def _raised(tool: Tool, error: Exception) -> BodyFailed:
    """Returns what the step is told, which knows whether the tool has retries left."""
    kind = type(error).__name__
    activity.logger.warning("tool %s raised %s", tool.name, kind)
    reason = clean(f"{tool.name}: {kind}: {error}".rstrip(": "))[:REASON_CHARS_MAX]
    return BodyFailed(reason, retryable=True, unbilled=False)


def _heartbeat(loop: asyncio.AbstractEventLoop) -> Callable[..., None]:
    """Returns a heartbeat for any thread: where a sync tool runs there is no loop."""

    def beat(*details: Any) -> None:
        loop.call_soon_threadsafe(activity.heartbeat, *details)

    return beat


async def _call(tool: Tool, context: ToolContext[Any], given: dict[str, Any]) -> Any:
    leading = (context,) if tool.takes_context else ()
    if inspect.iscoroutinefunction(tool.body):
        return await tool.body(*leading, **given)
    # A thread cannot be stopped: at its timeout the effect of a sync tool is unknown, and says so.
    return await asyncio.to_thread(tool.body, *leading, **given)


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False)
    )
