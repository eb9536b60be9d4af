"""Where a model step's messages come from: a bounded cache, then the store, then Temporal itself.

Whatever the source, the messages must hash to the head that the step names; else the next is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from runward.contracts.encoding import digest
from runward.contracts.outcomes import (
    AnyOutcome,
    ModelDone,
    ToolDone,
    decode_outcome,
    tool_message,
)
from runward.contracts.runs import ModelStep
from runward.contracts.shapes import Forged, Later
from runward.contracts.steps import Run, StepKey, TranscriptRow
from runward.contracts.transcript import (
    GENESIS,
    AssistantMessage,
    Message,
    decode_message,
    encode_message,
    extend,
    head_of,
    message_digest,
)
from runward.store.pool import Store

CACHED_BYTES_MAX = 64 * 1024 * 1024

Messages = tuple[Message, ...]
# Returns the inputs and results of a run's steps in Temporal's history: (step id, input, outcome).
History = Callable[[Run], Awaitable[Sequence[tuple[str, bytes, bytes]]]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A conversation as a model step names it: a prefix, and what is new since its head."""

    prefix: Messages
    prefix_bytes: int  # counted once, when the prefix was made or read: a run has many steps
    new: Messages
    new_bytes: int

    @property
    def messages(self) -> Messages:
        """Returns the whole conversation."""
        return (*self.prefix, *self.new)

    @property
    def bytes(self) -> int:
        """Returns the bytes of the whole conversation."""
        return self.prefix_bytes + self.new_bytes


class Transcripts:
    """Finds the messages of a prefix."""

    def __init__(self, store: Store, history: History) -> None:
        self._store = store
        self._history = history
        self._cache: LRUCache[tuple[str, str], tuple[Messages, int]] = LRUCache(
            CACHED_BYTES_MAX, getsizeof=lambda entry: entry[1] + 256
        )

    def remember(self, run: Run, messages: Messages, name: str, size: int) -> None:
        """Keeps a conversation under its head, or one message under its digest."""
        if size < CACHED_BYTES_MAX // 4:
            self._cache[(run.run_id, name)] = (messages, size)

    def forget(self) -> None:
        """Empties the cache; the store and Temporal still know everything."""
        self._cache.clear()

    async def load(self, run: Run, step: ModelStep) -> Loaded:
        """Returns all messages that the step names. Errors: Later where no source has them."""
        if step.request is not None:
            # The step's digest is bound to `new`; what is sent must be what that names.
            if (step.head, step.new) != (GENESIS, (message_digest(step.request.message),)):
                raise Forged("the request is not the one that this step names")
            return _loaded((), 0, (step.request.message,))
        cached = self._cache.get((run.run_id, step.head))
        if cached is not None:
            new = self._new_from_cache(run, step) or await self._new_from_store(run, step)
            if new is not None:
                return _loaded(*cached, new)
        found = await self._from_store(run, step) or await self._from_history(run, step)
        if found is None:
            raise Later("the conversation is neither in the store nor in Temporal's history")
        return found

    def _new_from_cache(self, run: Run, step: ModelStep) -> Messages | None:
        """Returns the new messages where their tools ran in this worker."""
        found = [self._cache.get((run.run_id, name)) for name in step.new]
        return tuple(one[0][0] for one in found if one is not None) if all(found) else None

    async def _new_from_store(self, run: Run, step: ModelStep) -> Messages | None:
        by_digest = await self._tool_messages(run, step)
        if any(one not in by_digest for one in step.new):
            return None
        return tuple(by_digest[one] for one in step.new)

    async def _from_store(self, run: Run, step: ModelStep) -> Loaded | None:
        found = await self._store.transcripts.messages(run.tenant, run.run_id, step.head)
        prefix = tuple(decode_message(one.content) for one in found)
        # Recomputed: what a database hands out may have been changed.
        if head_of(prefix) != step.head:
            return None
        new = await self._new_from_store(run, step)
        size = sum(len(one.content) for one in found)
        return None if new is None else _loaded(prefix, size, new)

    async def _tool_messages(self, run: Run, step: ModelStep) -> dict[str, Message]:
        """Returns the messages of the previous turn's tools by digest, off their outcomes."""
        last = step.turn - 1
        steps = [f"t{last}.model", *(f"t{last}.tool.{index}" for index in range(len(step.new)))]
        outcomes = await self._outcomes(run, steps)
        model = outcomes.get(steps[0])
        if not isinstance(model, ModelDone):
            return {}
        message = await self._assistant(run, model)
        messages: dict[str, Message] = {}
        for index, call in enumerate(message.calls):
            outcome = outcomes.get(f"t{last}.tool.{index}")
            if outcome is None:
                continue
            if isinstance(outcome, ToolDone) and outcome.ref is not None:
                one = decode_message(await self._content(run, outcome.ref.digest))
            else:
                one = tool_message(call.id, call.name, outcome)
            messages[message_digest(one)] = one
        return messages

    async def _assistant(self, run: Run, done: ModelDone) -> AssistantMessage:
        if done.message is not None:
            return done.message
        assert done.ref is not None, "a ModelDone has a message or a reference to one"
        message = decode_message(await self._content(run, done.ref.digest))
        if not isinstance(message, AssistantMessage):
            raise Later("a reference names another kind of message")
        return message

    async def arguments(self, run: Run, turn: int, index: int) -> str:
        """Returns the argument text of a call that was too long for its step's input."""
        name = f"t{turn}.model"
        model = (await self._outcomes(run, [name])).get(name)
        if not isinstance(model, ModelDone):
            raise Later("the model step that holds the arguments is not recorded")
        return (await self._assistant(run, model)).calls[index].arguments

    async def _outcomes(self, run: Run, steps: Sequence[str]) -> dict[str, AnyOutcome]:
        key = StepKey(run.tenant, run.run_id, "", run.epoch, run.round)
        found = await self._store.transcripts.outcomes(key, steps)
        return {name: decode_outcome(one.outcome) for name, one in found.items()}

    async def answer(self, run: Run) -> str:
        """Returns the text of the last assistant message, which answered the run."""
        last = (await self._store.transcripts.messages(run.tenant, run.run_id))[-1]
        message = decode_message(last.content)
        if not isinstance(message, AssistantMessage):
            raise Later("the last message is not an answer")
        return message.text

    async def _content(self, run: Run, name: str) -> bytes:
        content = await self._store.transcripts.content(run.tenant, name)
        if content is None or digest(content) != name:
            raise Later("content that a message refers to is not in the store")
        return content

    async def _from_history(self, run: Run, step: ModelStep) -> Loaded | None:
        messages = await self._replayed(run, step)
        wanted = extend(step.head, step.new)
        heads = GENESIS
        for count, one in enumerate(messages, 1):
            heads = extend(heads, (message_digest(one),))
            if heads == wanted:
                prefix = tuple(messages[: count - len(step.new)])
                size = sum(len(encode_message(one)) for one in prefix)
                return _loaded(prefix, size, tuple(messages[len(prefix) : count]))
        return None

    async def _replayed(self, run: Run, step: ModelStep) -> list[Message]:
        """Returns the conversation as Temporal's history tells it."""
        steps = {one: (given, came) for one, given, came in await self._history(run)}
        messages: list[Message] = []
        for turn in range(1, step.turn):
            if f"t{turn}.model" not in steps:
                break
            given, came = steps[f"t{turn}.model"]
            request = ModelStep.model_validate_json(given).request
            if request is not None:
                messages.append(request.message)
            done = decode_outcome(came)
            if not isinstance(done, ModelDone):
                break
            message = await self._assistant(run, done)
            messages.append(message)
            for index, call in enumerate(message.calls):
                if f"t{turn}.tool.{index}" not in steps:
                    break
                outcome = decode_outcome(steps[f"t{turn}.tool.{index}"][1])
                if isinstance(outcome, ToolDone) and outcome.ref is not None:
                    messages.append(decode_message(await self._content(run, outcome.ref.digest)))
                else:
                    messages.append(tool_message(call.id, call.name, outcome))
        return messages


def _loaded(prefix: Messages, prefix_bytes: int, new: Messages) -> Loaded:
    return Loaded(prefix, prefix_bytes, new, sum(len(encode_message(one)) for one in new))


def rows(head: str, size: int, new: Messages) -> tuple[TranscriptRow, ...]:
    """Returns the rows of new messages after a prefix, each under the head that it makes."""
    found: list[TranscriptRow] = []
    for message in new:
        content = encode_message(message)
        size += len(content)
        name = digest(content)
        previous, head = head, extend(head, (name,))
        found.append(TranscriptRow(head, previous, name, content, size))
    return tuple(found)
