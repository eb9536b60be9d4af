"""Where a model step's messages come from: a bounded cache, then the store, then Temporal itself.

Whatever the source, the messages must hash to the head that the step names; else the next is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from cachetools import LRUCache
from temporalio.exceptions import ApplicationError

from runward.contracts.content import Content
from runward.contracts.encoding import digest
from runward.contracts.errors import REFUSED
from runward.contracts.outcomes import (
    MESSAGE_RECORDED_BYTES_MAX,
    AnyOutcome,
    ModelDone,
    ToolDone,
    decode_outcome,
    tool_message,
)
from runward.contracts.runs import ModelStep, RunRequest
from runward.contracts.shapes import Forged, Later
from runward.contracts.steps import Run, StepKey, TranscriptRow
from runward.contracts.transcript import (
    GENESIS,
    AssistantMessage,
    Message,
    ToolCall,
    UserMessage,
    decode_message,
    encode_message,
    extend,
    head_of,
    message_digest,
)
from runward.store.pool import Store

CACHED_BYTES_MAX = 64 * 1024 * 1024
OBJECT_BYTES = 1024  # what a message takes in memory beyond its content
FILES_CACHED_BYTES_MAX = 64 * 1024 * 1024  # of all runs: each call of a run sends its files

Messages = tuple[Message, ...]
# Returns the inputs and results of a run's steps in Temporal's history: (step id, input, outcome).
History = Callable[[Run], Awaitable[Sequence[tuple[str, bytes, bytes]]]]


class Written(NamedTuple):
    """A message as it is hashed and stored: encoded once, by whoever had it first."""

    message: Message
    content: bytes
    digest: str


class Loaded(NamedTuple):
    """A conversation as a model step names it: a prefix, and what is new since its head."""

    prefix: Messages
    prefix_bytes: int  # counted once, when the prefix was made or read: a run has many steps
    new: tuple[Written, ...]

    @property
    def messages(self) -> Messages:
        """Returns the whole conversation."""
        return (*self.prefix, *[one.message for one in self.new])

    @property
    def bytes(self) -> int:
        """Returns the bytes of the whole conversation."""
        return self.prefix_bytes + sum([len(one.content) for one in self.new])


class _Kept(NamedTuple):
    """The newest conversation of a run: its next step builds on that and on no older one."""

    head: str
    messages: Messages
    bytes: int


class Transcripts:
    """Finds the messages of a prefix."""

    def __init__(self, store: Store, history: History) -> None:
        self._store = store
        self._history = history
        # Both by run id. One entry per run, or a long run would push out all others.
        self._prefixes: LRUCache[str, _Kept] = LRUCache(
            CACHED_BYTES_MAX // 2,
            getsizeof=lambda kept: kept.bytes + OBJECT_BYTES * len(kept.messages),
        )
        self._new: LRUCache[str, tuple[Written, ...]] = LRUCache(
            CACHED_BYTES_MAX // 2,
            getsizeof=lambda new: sum([2 * len(one.content) + OBJECT_BYTES for one in new]),
        )
        self._files: LRUCache[tuple[str, str], bytes] = LRUCache(
            FILES_CACHED_BYTES_MAX, getsizeof=len
        )

    def remember(self, run: Run, messages: Messages, head: str, size: int) -> None:
        """Keeps a conversation under its head, in the place of the one that it extends."""
        self.release(run)
        if size + OBJECT_BYTES * len(messages) < CACHED_BYTES_MAX // 4:
            self._prefixes[run.run_id] = _Kept(head, messages, size)

    def keep(self, run: Run, one: Written) -> None:
        """Keeps a tool's message for the model step that names it."""
        new = (*self._new.get(run.run_id, ()), one)
        if sum([len(each.content) for each in new]) < CACHED_BYTES_MAX // 8:
            self._new[run.run_id] = new

    def release(self, run: Run) -> None:
        """Lets go of what is kept of a run."""
        self._prefixes.pop(run.run_id, None)
        self._new.pop(run.run_id, None)

    def forget(self) -> None:
        """Empties the caches; the store and Temporal still know everything."""
        self._prefixes.clear()
        self._new.clear()
        self._files.clear()

    async def load(self, run: Run, step: ModelStep) -> Loaded:
        """Returns all messages that the step names. Errors: Later where no source has them."""
        if step.request is not None:
            # The step's digest is bound to `new`; what is sent must be what that names.
            first = written(await self._first(run, step.request))
            if (step.head, step.new) != (GENESIS, (first.digest,)):
                raise Forged("the request is not the one that this step names")
            return Loaded((), 0, (first,))
        cached = self._prefixes.get(run.run_id)
        if cached is not None and cached.head == step.head:
            new = self._new_from_cache(run, step)
            if new is None:
                new = await self._new_from_store(run, step)
            if new is not None:
                return Loaded(cached.messages, cached.bytes, new)
        found = await self._from_store(run, step) or await self._from_history(run, step)
        if found is None:
            raise Later("the conversation is neither in the store nor in Temporal's history")
        return found

    def _new_from_cache(self, run: Run, step: ModelStep) -> tuple[Written, ...] | None:
        """Returns the new messages where their tools ran in this worker."""
        known = {one.digest: one for one in self._new.get(run.run_id, ())}
        found = [known.get(name) for name in step.new]
        return tuple([one for one in found if one is not None]) if all(found) else None

    async def _new_from_store(self, run: Run, step: ModelStep) -> tuple[Written, ...] | None:
        by_digest = await self._tool_messages(run, step)
        if any(one not in by_digest for one in step.new):
            return None
        return tuple(by_digest[one] for one in step.new)

    async def _from_store(self, run: Run, step: ModelStep) -> Loaded | None:
        found = await self._store.transcripts.messages(run.tenant, run.run_id, step.head)
        said = [await self._said(run, one) for one in found]
        prefix = tuple(map(decode_message, said))
        # Recomputed: what a database hands out may have been changed.
        if head_of(prefix) != step.head:
            return None
        new = await self._new_from_store(run, step)
        size = sum(map(len, said))
        return None if new is None else Loaded(prefix, size, new)

    async def _tool_messages(self, run: Run, step: ModelStep) -> dict[str, Written]:
        """Returns the messages of the previous turn's tools by digest, off their outcomes."""
        last = step.turn - 1
        steps = [f"t{last}.model", *(f"t{last}.tool.{index}" for index in range(len(step.new)))]
        outcomes = await self._outcomes(run, steps)
        model = outcomes.get(steps[0])
        if not isinstance(model, ModelDone):
            return {}
        message = await self._assistant(run, model)
        messages: dict[str, Written] = {}
        for index, call in enumerate(message.calls):
            outcome = outcomes.get(f"t{last}.tool.{index}")
            if outcome is None:
                continue
            if isinstance(outcome, ToolDone) and outcome.ref is not None:
                found = decode_message(await self._content(run, outcome.ref.digest))
            else:
                found = tool_message(call.id, call.name, outcome)
            one = written(found)
            messages[one.digest] = one
        return messages

    async def _assistant(self, run: Run, done: ModelDone) -> AssistantMessage:
        if done.message is not None:
            return done.message
        assert done.ref is not None, "a ModelDone has a message or a reference to one"
        message = decode_message(await self._content(run, done.ref.digest))
        if not isinstance(message, AssistantMessage):
            raise Later("a reference names another kind of message")
        return message

    async def call(self, run: Run, turn: int, index: int) -> ToolCall:
        """Returns a call as the model made it."""
        name = f"t{turn}.model"
        model = (await self._outcomes(run, [name])).get(name)
        if not isinstance(model, ModelDone):
            raise Later("the model step that made the call is not recorded")
        calls = (await self._assistant(run, model)).calls
        if not 0 <= index < len(calls):
            raise Forged("the model made no such call")
        return calls[index]

    async def _outcomes(self, run: Run, steps: Sequence[str]) -> dict[str, AnyOutcome]:
        key = StepKey(run.tenant, run.run_id, "", run.epoch, run.round)
        found = await self._store.transcripts.outcomes(key, steps)
        return {name: decode_outcome(one.outcome) for name, one in found.items()}

    async def _first(self, run: Run, request: RunRequest) -> UserMessage:
        """Returns a request's message; what it refers to stays while the run is there."""
        ref = request.ref
        if ref is None:
            message: Message = request.message
        else:
            await self._claim(run, ref.digest)
            message = decode_message(await self._content(run, ref.digest))
        if not isinstance(message, UserMessage):
            raise Forged("the request refers to what no user said")
        for one in message.files:
            await self._claim(run, one.digest)
        return message

    async def _claim(self, run: Run, name: str) -> None:
        if not await self._store.content.claim(run.tenant, run.run_id, name):
            raise Later("content that the request refers to is not in the store")

    async def files(self, run: Run, message: Message) -> dict[str, bytes]:
        """Returns the bytes of a message's files by digest. Errors: Later where one is missing."""
        if not isinstance(message, UserMessage):
            return {}
        found: dict[str, bytes] = {}
        for one in message.files:
            data = self._files.get((run.tenant, one.digest))
            if data is None:
                data = await self._content(run, one.digest)
                if len(data) < FILES_CACHED_BYTES_MAX // 2:
                    self._files[(run.tenant, one.digest)] = data
            found[one.digest] = data
        return found

    async def answer(self, run: Run) -> str:
        """Returns the text of the last assistant message, which answered the run."""
        found = await self._store.transcripts.messages(run.tenant, run.run_id)
        if not found:
            text = "the run was answered, but its messages are gone: retention deleted them"
            raise ApplicationError(text, type=REFUSED, non_retryable=True)
        message = decode_message(await self._said(run, found[-1]))
        if not isinstance(message, AssistantMessage):
            raise Later("the last message is not an answer")
        return message.text

    async def _said(self, run: Run, row: TranscriptRow) -> bytes:
        """Returns a message's bytes; those of a large one are not in its row."""
        return row.content or await self._content(run, row.digest)

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
                return Loaded(prefix, size, tuple(map(written, messages[len(prefix) : count])))
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
                messages.append(await self._first(run, request))
            done = decode_outcome(came)
            if not isinstance(done, ModelDone):
                break
            message = await self._assistant(run, done)
            messages.append(message)
            if done.repair_message is not None:
                messages.append(done.repair_message)
            for index, call in enumerate(message.calls):
                if f"t{turn}.tool.{index}" not in steps:
                    break
                outcome = decode_outcome(steps[f"t{turn}.tool.{index}"][1])
                if isinstance(outcome, ToolDone) and outcome.ref is not None:
                    messages.append(decode_message(await self._content(run, outcome.ref.digest)))
                else:
                    messages.append(tool_message(call.id, call.name, outcome))
        return messages


def written(message: Message) -> Written:
    """Returns the message with its bytes and its digest."""
    content = encode_message(message)
    return Written(message, content, digest(content))


def recorded(one: Written) -> bytes:
    """Returns what a step's record holds of a message: nothing where it is large."""
    return b"" if len(one.content) > MESSAGE_RECORDED_BYTES_MAX else one.content


def stored(one: Written) -> tuple[Content, ...]:
    """Returns what is stored of a message before its step is recorded, which is nothing, mostly."""
    return (Content(one.content),) if len(one.content) > MESSAGE_RECORDED_BYTES_MAX else ()


def rows(head: str, size: int, new: Sequence[Written]) -> tuple[TranscriptRow, ...]:
    """Returns the rows of new messages after a prefix, each under the head that it makes."""
    found: list[TranscriptRow] = []
    for one in new:
        size += len(one.content)
        previous, head = head, extend(head, (one.digest,))
        found.append(TranscriptRow(head, previous, one.digest, recorded(one), size))
    return tuple(found)
