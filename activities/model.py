"""`call_model`: one call of one provider, bounded before and metered after."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from temporalio import activity
from temporalio.common import RawValue

from runward.activities.anthropic_wire import OUTPUT
from runward.activities.model_choice import Chosen, ModelChoice, PriceOf, TriedOf
from runward.activities.openai_wire import STRICT
from runward.activities.output_schema import sent_bytes
from runward.activities.provider_answers import received
from runward.activities.provider_reasoning import with_reasoning, without_foreign
from runward.activities.providers import Providers
from runward.activities.transcripts import (
    Loaded,
    Messages,
    Transcripts,
    Written,
    recorded,
    rows,
    stored,
    written,
)
from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.budget import Bound
from runward.contracts.encoding import digest
from runward.contracts.files import PDF
from runward.contracts.outcomes import (
    MESSAGE_INLINE_BYTES_MAX,
    NO_TOOL,
    PREVIEW_CHARS,
    CallStub,
    Failed,
    ModelDone,
    Opened,
    Ref,
    effect_digest_v1,
    model_digest_v1,
)
from runward.contracts.output import OUTPUT_INVALID, InvalidOutput, judge
from runward.contracts.providers import (
    NO_ANSWER,
    ModelError,
    ModelRequest,
    ModelResponse,
    OutputSpec,
    ToolSpec,
)
from runward.contracts.runs import ModelStep, RunRequest
from runward.contracts.shapes import CURRENT, Call, Ended, Facts, Forged, Later, Step
from runward.contracts.spelling import did_you_mean, nearest
from runward.contracts.steps import Parent, Run
from runward.contracts.transcript import GENESIS, AssistantMessage, Message, UserMessage
from runward.contracts.usage import Price, Usage

# A byte-level token is at least one byte, so bytes bound tokens; the rest is each message's frame.
# Reasoning is encrypted, which takes more bytes, not fewer.
TOKENS_PER_MESSAGE = 16
TOKENS_PER_REQUEST = 64
# Above what any documented formula makes of one image, whatever its size. A document has its bytes
# besides; one of many dense pages can cost more, which is then recorded as overrun.
TOKENS_PER_FILE = 65_536
TOKENS_WITH_TOOLS = 1024  # providers add a system prompt of their own to requests with tools
TOKENS_WITH_SCHEMA = 1024  # and to requests for JSON

ANSWER_BYTES_MAX = 16 * 1024 * 1024  # of a message as it is stored, which takes no more
ALL_AGENTS = "`runward agents list --app module:app` has all that there are"
ANSWER_S_MAX = 570.0  # below the attempt's own 10 minutes, so that a hanging call is a try


class ModelCall:
    """The body, and what the governed step must know of it."""

    foreign = False

    def __init__(
        self,
        agents: Mapping[str, Agent[Any]],
        providers: Providers,
        transcripts: Transcripts,
        price_of: PriceOf,
        tried_of: TriedOf,
    ) -> None:
        self._agents = agents
        self._providers = providers
        self._transcripts = transcripts
        self._price_of = price_of
        self._choice = ModelChoice(price_of, tried_of)
        for one in agents.values():
            _told(one)  # 1,000 schemas take 0.2 s: not in a step, while other runs wait

    def opens(self, call: Call) -> RunRequest | str:
        """Returns the request; a call without one opens nothing."""
        return _step(call).request or ""

    async def facts(self, run: Run, call: Call) -> Facts:
        """Returns the request that would be sent, and the most it can cost."""
        step = _step(call)
        named = model_digest_v1(step.head, step.new)
        agent = self._agents.get(run.agent)
        if agent is None and step.turn > 1:  # another release's worker has it, or the run waits
            raise Later(f"{run.agent}: this worker has no such agent. Run one that has it")
        if agent is None:
            near = did_you_mean(nearest(run.agent, self._agents))
            problem = f"{run.agent}: unknown agent. {near or ALL_AGENTS}"
            return Facts("model", run.agent, named, problem=problem, parent=_parent(step))
        chosen = await self._choice.of(agent, run, call, again=step.again)
        price = self._price_of(chosen.model)
        problem = "" if price is not None else f"price_unknown: {chosen.model}"
        price = price or Price(0, 0, 0, 0, "none")
        loaded = await self._transcripts.load(run, step)
        messages = loaded.messages
        files = await self._transcripts.files(run, messages[0])
        tokens_in = _input_bound(agent, loaded) + _files_bound(messages[0])
        return Facts(
            kind="model",
            name=chosen.model,
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
            prepared=_Prepared(step, loaded, messages, price, chosen, files),
            problem=problem,
            retries=agent.model_retries,
        )

    @activity.defn(name=names.CALL_MODEL)
    async def call_model(self, given: RawValue) -> ModelResponse:
        """Returns the provider's answer to the request that was judged and paid for."""
        step = CURRENT.get()
        prepared: _Prepared = step.facts.prepared
        agent = step.facts.agent
        assert agent is not None, "a model step without an agent is denied before its body"
        try:
            answer = await self._ask(agent, prepared, step)
        except ModelError as error:
            raise self._choice.failed(error, agent, prepared.chosen) from error
        return _metered(answer, step)

    async def _ask(self, agent: Agent[Any], prepared: _Prepared, step: Step) -> ModelResponse:
        """Returns the answer as it is recorded. Errors: ModelError, whatever a provider raises."""
        model = prepared.chosen.model
        asked = _request(agent, prepared, step)
        limit = asyncio.timeout(ANSWER_S_MAX)
        try:
            async with limit:
                answer = await self._providers.get(prepared.chosen.provider).call(asked)
            return received(answer, asked, agent.max_calls_per_turn)
        except ModelError:
            raise
        except Exception as error:
            if limit.expired():
                text = f"{model}: no answer within {ANSWER_S_MAX:g} s"
                raise ModelError(text, retryable=True, unbilled=False) from error
            # A provider's bug is not tried again, or it would repeat for ever.
            activity.logger.error("the provider of %s raised %s", model, type(error).__name__)
            text = f"{model}: {type(error).__name__}"
            raise ModelError(text, retryable=False, unbilled=False, elsewhere=True) from error

    async def redefined(self, run: Run, facts: Facts) -> str:
        """Returns nothing: a model step's digest holds messages only."""
        return ""

    def waits(self, run: Run) -> None:
        """Lets go of the conversation, which the store has as well."""
        self._transcripts.release(run)

    def ended(self, run: Run, call: Call, facts: Facts, result: Any) -> Ended:
        """Returns the outcome, the transcript that it extends, and the calls that it permits."""
        if not isinstance(result, ModelResponse):
            return Ended(result, Bound())  # denied, failed or unknown: there is no message
        response = result
        prepared: _Prepared = facts.prepared
        step, loaded, messages, price, chosen = prepared[:5]
        agent = facts.agent
        assert agent is not None, "a model step without an agent is denied before its body"
        message, used, cost = response.message, response.usage, price.cost(response.usage)
        answer = written(message)
        reason = NO_ANSWER.get(response.stop) or _too_large(answer.content)
        if reason:  # billed like any answer, but nothing that a run may go on with
            return Ended(Failed(reason=reason), _actual(used, cost))
        repair, invalid = _judged(agent, message, messages)
        if response.reasoning and (message.calls or repair):  # else nobody is asked again
            answer = _reasoned(answer, response, chosen)
        said = (answer,) if repair is None else (answer, written(repair))
        new = (*loaded.new, *said)
        made = rows(step.head, loaded.prefix_bytes, new)
        last = made[-1]
        if message.calls or repair:
            whole = (*messages, *[one.message for one in said])
            self._transcripts.remember(run, whole, last.head, last.prefix_bytes)
        else:  # nothing follows an answer
            self._transcripts.release(run)
        done = ModelDone(
            usage=(used.input, used.cache_read, used.cache_write, used.output),
            cost=cost,
            stop=response.stop,
            opened=Opened(max_turns=agent.max_turns) if step.turn == 1 else None,
            limits=tuple(_limit(agent, one.name) for one in message.calls),
            model=chosen.model if chosen.place else "",
            tries=chosen.tries,
            repair="" if repair is None else repair.text,
            invalid=invalid,
        )
        outcome, content = _by_size(done, answer)
        return Ended(
            outcome=outcome,
            actual=_actual(used, cost),
            head=last.head,
            message=answer.digest,
            grants=tuple(_grant(agent, one.name, one.arguments) for one in message.calls),
            transcript=made,
            content=content,
            large=tuple([large for one in new for large in stored(one)]),
            closes_with=None if message.calls or repair else digest(message.text.encode()),
            failure="" if invalid is None else OUTPUT_INVALID,
        )


class _Prepared(NamedTuple):
    """What `facts` had to find out, for the body and the end."""

    step: ModelStep
    loaded: Loaded
    messages: Messages  # the whole conversation
    price: Price
    chosen: Chosen
    files: dict[str, bytes]  # of the first message, the only one that has any


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


def _request(agent: Agent[Any], prepared: _Prepared, step: Step) -> ModelRequest:
    model, place, _ = prepared.chosen
    provider, _, name = model.partition(":")
    return ModelRequest(
        model=name,
        instructions=agent.instructions,
        messages=without_foreign(prepared.messages, provider),
        files=prepared.files,
        tools=_told(agent).tools,
        max_output_tokens=step.output_tokens,
        # Another model's call is another one to whoever keeps answers by this key.
        idempotency_key=f"{step.key}:{model}" if place else step.key,
        output=_told(agent).output,
    )


def _judged(
    agent: Agent[Any], message: AssistantMessage, before: Messages
) -> tuple[UserMessage | None, InvalidOutput | None]:
    """Returns the repair of an answer that is not of the agent's output type, or the run's end."""
    if message.calls or agent.output is None:
        return None, None
    found = judge(agent.output, message.text, before)
    if isinstance(found, InvalidOutput):
        return None, found
    return found, None


@dataclass(frozen=True, slots=True)
class _Told:
    """What every request of an agent says, and the most tokens that this takes."""

    tools: tuple[ToolSpec, ...]
    output: OutputSpec | None
    tokens: int


@lru_cache(maxsize=1024)  # agents are immutable, and a schema takes longer than the rest of a step
def _told(agent: Agent[Any]) -> _Told:
    tools = tuple(ToolSpec(one.name, one.description, one.schema) for one in agent.tools)
    text = sum(len(repr(one).encode()) for one in tools) + len(agent.instructions.encode())
    hidden = TOKENS_PER_REQUEST + (TOKENS_WITH_TOOLS if tools else 0)
    output = None
    if agent.output is not None:
        output = OutputSpec(agent.output.name, agent.output.schema)
        text += sent_bytes(output, STRICT, OUTPUT)
        hidden += TOKENS_WITH_SCHEMA
    return _Told(tools, output, text + TOKENS_PER_MESSAGE * len(tools) + hidden)


def _input_bound(agent: Agent[Any], loaded: Loaded) -> int:
    count = len(loaded.prefix) + len(loaded.new)
    return loaded.bytes + TOKENS_PER_MESSAGE * count + _told(agent).tokens


def _files_bound(first: Message) -> int:
    if not isinstance(first, UserMessage):
        return 0
    return sum([max(one.size, TOKENS_PER_FILE) if one.media_type == PDF else TOKENS_PER_FILE
                for one in first.files])  # fmt: skip


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


def _reasoned(answer: Written, response: ModelResponse, chosen: Chosen) -> Written:
    """Returns the answer with its reasoning, unless both together are too large."""
    whole = written(with_reasoning(response, chosen.provider))
    return answer if _too_large(whole.content) else whole


def _too_large(content: bytes) -> str:
    if len(content) <= ANSWER_BYTES_MAX:
        return ""
    return f"the model answered with {len(content)} bytes, at most {ANSWER_BYTES_MAX}"


def _actual(used: Usage, cost: int) -> Bound:
    return Bound(calls=1, input_tokens=used.input_total, output_tokens=used.output, cost=cost)


def _limit(agent: Agent[Any], name: str) -> int:
    """Returns the tool's timeout in seconds, NO_TOOL where the agent has no such tool."""
    tool = agent.tool(name)
    return NO_TOOL if tool is None else int(tool.timeout.total_seconds())


def _grant(agent: Agent[Any], name: str, arguments: str) -> str:
    """Returns the effect digest of a call, which is what its step will be compared with."""
    tool = agent.tool(name)
    schema = "" if tool is None else tool.schema_digest
    return effect_digest_v1(name, schema, digest(arguments.encode()))


def _by_size(done: ModelDone, answer: Written) -> tuple[ModelDone, bytes]:
    """Returns the outcome with the message inline, or a reference and what is recorded with it."""
    message = answer.message
    assert isinstance(message, AssistantMessage), "a model answers as the assistant"
    if len(answer.content) <= MESSAGE_INLINE_BYTES_MAX:
        return done.model_copy(update={"message": message}), b""
    ref = Ref(digest=answer.digest, size=len(answer.content),
              preview=message.text[:PREVIEW_CHARS])  # fmt: skip
    stubs = tuple(
        CallStub(id=one.id, name=one.name, digest=digest(one.arguments.encode()))
        for one in message.calls
    )
    return done.model_copy(update={"ref": ref, "stubs": stubs}), recorded(answer)
