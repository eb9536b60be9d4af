"""`call_model`: one call of one provider, bounded before and metered after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from cachetools import LRUCache
from temporalio import activity
from temporalio.common import RawValue

from runward.activities.provider_answers import received
from runward.activities.providers import Providers
from runward.activities.transcripts import Loaded, Messages, Transcripts, rows, written
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.budget import Bound
from runward.contracts.encoding import digest
from runward.contracts.outcomes import (
    MESSAGE_INLINE_BYTES_MAX,
    PREVIEW_CHARS,
    CallStub,
    Failed,
    ModelDone,
    Opened,
    Ref,
    effect_digest_v1,
    model_digest_v1,
)
from runward.contracts.providers import (
    NO_ANSWER,
    ModelError,
    ModelRequest,
    ModelResponse,
    ToolSpec,
)
from runward.contracts.runs import ModelStep, RunRequest
from runward.contracts.shapes import CURRENT, BodyFailed, Call, Ended, Facts, Forged, Step
from runward.contracts.steps import Parent, Run
from runward.contracts.transcript import GENESIS, AssistantMessage
from runward.contracts.usage import Price, Usage

# A byte-level token is at least one byte, so bytes bound tokens; the rest is each message's frame.
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 64
TOKENS_WITH_TOOLS = 1024  # providers add a system prompt of their own to requests with tools

ANSWER_BYTES_MAX = 16 * 1024 * 1024  # of a message as it is stored, which takes no more
UNREADABLE_TRIES_MAX = 3  # a gateway's error page passes; each try may have been billed
STEPS_REMEMBERED = 1024  # of those whose last answer was unreadable

PriceOf = Callable[[str], Price | None]


class ModelCall:
    """The body, and what the governed step must know of it."""

    foreign = False

    def __init__(
        self,
        agents: Mapping[str, Agent[Any]],
        providers: Providers,
        transcripts: Transcripts,
        price_of: PriceOf,
    ) -> None:
        self._agents = agents
        self._providers = providers
        self._transcripts = transcripts
        self._price_of = price_of
        self._unreadable: LRUCache[str, int] = LRUCache(STEPS_REMEMBERED)

    def opens(self, call: Call) -> RunRequest | str:
        """Returns the request; a call without one opens nothing."""
        return _step(call).request or ""

    async def facts(self, run: Run, call: Call) -> Facts:
        """Returns the request that would be sent, and the most it can cost."""
        step = _step(call)
        named = model_digest_v1(step.head, step.new)
        agent = self._agents.get(run.agent)
        if agent is None:
            return Facts("model", run.agent, named, problem=f"{run.agent}: unknown agent",
                         parent=_parent(step))  # fmt: skip
        price = self._price_of(agent.model)
        problem = "" if price is not None else f"price_unknown: {agent.model}"
        price = price or Price(0, 0, 0, 0, "none")
        loaded = await self._transcripts.load(run, step)
        tokens_in = _input_bound(agent, loaded)
        return Facts(
            kind="model",
            name=agent.model,
            digest=named,
            agent=agent,
            budget=agent.budget,
            approver_role=agent.approver_role,
            parent=_parent(step),
            bound=Bound(
                calls=1,
                input_tokens=tokens_in,
                output_tokens=agent.max_output_tokens,
                cost=price.bound(tokens_in, agent.max_output_tokens),
            ),
            output_price=price.output,
            prepared=_Prepared(step, loaded, loaded.messages, price),
            problem=problem,
        )

    @activity.defn(name=names.CALL_MODEL)
    async def call_model(self, given: RawValue) -> ModelResponse:
        """Returns the provider's answer to the request that was judged and paid for."""
        step = CURRENT.get()
        prepared: _Prepared = step.facts.prepared
        agent = step.facts.agent
        assert agent is not None, "a model step without an agent is denied before its body"
        asked = _request(agent, prepared.messages, step.output_tokens, step.key)
        try:
            answer = await self._providers.get(agent.provider).call(asked)
            return _metered(received(answer, asked), step)
        except ModelError as error:
            raise BodyFailed(
                str(error),
                retryable=error.retryable and not self._unreadable_again(error, step.key),
                unbilled=error.unbilled,
                retry_after_s=error.retry_after_s,
            ) from error
        except Exception as error:  # a provider's bug ends the step, or it would repeat for ever
            activity.logger.error("the provider of %s raised %s", agent.model, type(error).__name__)
            reason = f"{agent.model}: {type(error).__name__}"
            raise BodyFailed(reason, retryable=False, unbilled=False) from error

    def _unreadable_again(self, error: ModelError, key: str) -> bool:
        """Returns whether this worker got what nobody can read often enough from this step."""
        if not error.unreadable:
            return False
        self._unreadable[key] = count = self._unreadable.get(key, 0) + 1
        return count >= UNREADABLE_TRIES_MAX

    def ended(self, run: Run, call: Call, facts: Facts, result: Any) -> Ended:
        """Returns the outcome, the transcript that it extends, and the calls that it permits."""
        if not isinstance(result, ModelResponse):
            return Ended(result, Bound())  # denied, failed or unknown: there is no message
        response = result
        step, loaded, messages, price = facts.prepared
        agent = facts.agent
        assert agent is not None, "a model step without an agent is denied before its body"
        message, used, cost = response.message, response.usage, price.cost(response.usage)
        made = rows(step.head, loaded.prefix_bytes, (*loaded.new, written(message)))
        last = made[-1]
        reason = NO_ANSWER.get(response.stop) or _too_large(last.content)
        if reason:  # billed like any answer, but nothing that a run may go on with
            return Ended(Failed(reason=reason), _actual(used, cost))
        self._transcripts.remember(run, (*messages, message), last.head, last.prefix_bytes)
        done = ModelDone(
            usage=(used.input, used.cache_read, used.cache_write, used.output),
            cost=cost,
            stop=response.stop,
            opened=_opened(agent) if step.turn == 1 else None,
        )
        outcome, content = _by_size(done, message, last.content)
        return Ended(
            outcome=outcome,
            actual=_actual(used, cost),
            head=last.head,
            message=last.digest,
            grants=tuple(_grant(agent, one.name, one.arguments) for one in message.calls),
            transcript=made,
            content=content,
            closes_with=None if message.calls else digest(message.text.encode()),
        )


class _Prepared(NamedTuple):
    """What `facts` had to find out, for the body and the end."""

    step: ModelStep
    loaded: Loaded
    messages: Messages  # the whole conversation
    price: Price


def _step(call: Call) -> ModelStep:
    """Returns the input. Its place is the activity's id: lineage and digest are judged by it."""
    step = ModelStep.model_validate_json(call.args[0])
    if call.step != f"t{step.turn}.model" or (step.turn == 1) != (step.request is not None):
        raise Forged("a model step under another step's id")
    return step


def _parent(step: ModelStep) -> Parent:
    """Returns what this step must follow from; its place says so, not its sender."""
    last = step.turn - 1
    if last == 0:
        return Parent(head=GENESIS, messages=(("", step.new[0] if step.new else ""),))
    tools = tuple((f"t{last}.tool.{index}", one) for index, one in enumerate(step.new))
    return Parent(model=f"t{last}.model", head=step.head, messages=tools)


def _request(agent: Agent[Any], messages: Messages, output_max: int, key: str) -> ModelRequest:
    return ModelRequest(
        model=agent.model.partition(":")[2],
        instructions=agent.instructions,
        messages=messages,
        tools=_told(agent).tools,
        max_output_tokens=output_max,
        idempotency_key=key,
    )


@dataclass(frozen=True, slots=True)
class _Told:
    """What every request of an agent says, and the most tokens that this takes."""

    tools: tuple[ToolSpec, ...]
    tokens: int


@lru_cache(maxsize=1024)  # agents are immutable, and a schema takes longer than the rest of a step
def _told(agent: Agent[Any]) -> _Told:
    tools = tuple(ToolSpec(one.name, one.description, one.schema) for one in agent.tools)
    text = sum(len(repr(one).encode()) for one in tools) + len(agent.instructions.encode())
    hidden = TOKENS_PER_REQUEST + (TOKENS_WITH_TOOLS if tools else 0)
    return _Told(tools, text + TOKENS_PER_MESSAGE * len(tools) + hidden)


def _input_bound(agent: Agent[Any], loaded: Loaded) -> int:
    count = len(loaded.prefix) + len(loaded.new)
    return loaded.bytes + TOKENS_PER_MESSAGE * count + _told(agent).tokens


def _metered(response: ModelResponse, step: Step) -> ModelResponse:
    """Returns the answer with a usage: where the provider gave none, the most there can have been.

    A call is never cheaper for us because somebody forgot to say what it costs.
    """
    if response.metered:
        return response
    price: Price = step.facts.prepared.price
    tokens_in, out = step.facts.bound.input_tokens, step.output_tokens
    if price.cache_write > price.input:
        return replace(response, usage=Usage(cache_write=tokens_in, output=out))
    return replace(response, usage=Usage(input=tokens_in, output=out))


def _too_large(content: bytes) -> str:
    if len(content) <= ANSWER_BYTES_MAX:
        return ""
    return f"the model answered with {len(content)} bytes, at most {ANSWER_BYTES_MAX}"


def _actual(used: Usage, cost: int) -> Bound:
    return Bound(calls=1, input_tokens=used.input_total, output_tokens=used.output, cost=cost)


def _opened(agent: Agent[Any]) -> Opened:
    tools = {one.name: (int(one.timeout.total_seconds()), one.retries) for one in agent.tools}
    return Opened(max_turns=agent.max_turns, tools=tools)


def _grant(agent: Agent[Any], name: str, arguments: str) -> str:
    """Returns the effect digest of a call, which is what its step will be compared with."""
    tool = agent.tool(name)
    schema = "" if tool is None else tool.schema_digest
    return effect_digest_v1(name, schema, digest(arguments.encode()))


def _by_size(done: ModelDone, message: AssistantMessage, content: bytes) -> tuple[ModelDone, bytes]:
    """Returns the outcome with the message inline, or a reference and the stored content."""
    if len(content) <= MESSAGE_INLINE_BYTES_MAX:
        return done.model_copy(update={"message": message}), b""
    ref = Ref(digest=digest(content), size=len(content), preview=message.text[:PREVIEW_CHARS])
    stubs = tuple(
        CallStub(id=one.id, name=one.name, digest=digest(one.arguments.encode()))
        for one in message.calls
    )
    return done.model_copy(update={"ref": ref, "stubs": stubs}), content
