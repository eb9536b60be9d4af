"""What a worker keeps of conversations: the newest of each run, until the run has its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from runward.activities.transcripts import CACHED_BYTES_MAX, Transcripts, written
from runward.contracts.runs import ModelStep
from runward.contracts.steps import Run
from runward.contracts.transcript import (
    GENESIS,
    AssistantMessage,
    Message,
    ToolCall,
    ToolMessage,
    UserMessage,
    extend,
    message_digest,
)
from runward.store.pool import Store


class Asked(Exception):
    """The store was asked: the cache did not have it."""


class NoStore:
    """A store whose messages nobody may need."""

    @property
    def transcripts(self) -> Any:
        raise Asked


async def _no_history(_: Run) -> Sequence[tuple[str, bytes, bytes]]:
    raise Asked


@pytest.fixture
def transcripts() -> Transcripts:
    """What a worker keeps; without anything behind it."""
    return Transcripts(cast(Store, NoStore()), _no_history)


def run(name: str) -> Run:
    return Run("acme", name, name, "ada", frozenset(), "support", "", "")


def turn(number: int, size: int) -> tuple[AssistantMessage, ToolMessage]:
    """One call of a tool and its result of that many bytes."""
    call = ToolCall(id=f"c{number}", name="lookup", arguments="{}")
    result = ToolMessage(call_id=call.id, name=call.name, text="x" * size)
    return AssistantMessage(calls=(call,)), result


def talk(transcripts: Transcripts, owner: Run, turns: int, size: int = 10) -> ModelStep:
    """Plays the turns of a run; returns its next model step."""
    messages: tuple[Message, ...] = ()
    head, total, new = GENESIS, 0, written(UserMessage(text="Where is it?"))
    for number in range(turns):
        asked, result = turn(number, size)
        messages = (*messages, new.message, asked)
        head = extend(head, (new.digest, message_digest(asked)))
        total += len(new.content) + len(written(asked).content)
        transcripts.remember(owner, messages, head, total)
        new = written(result)
        transcripts.keep(owner, new)
    return ModelStep(turn=turns + 1, head=head, new=(new.digest,))


async def test_the_newest_conversation_is_there(transcripts: Transcripts) -> None:
    """All of it, with its size, and the result that is new."""
    step = talk(transcripts, run("one"), turns=3)
    loaded = await transcripts.load(run("one"), step)

    assert len(loaded.messages) == 7
    assert loaded.bytes == sum(len(written(one).content) for one in loaded.messages)


async def test_a_long_run_does_not_push_out_the_others(transcripts: Transcripts) -> None:
    """However many turns it has, only its newest conversation counts."""
    step = talk(transcripts, run("short"), turns=1)
    size = CACHED_BYTES_MAX // 1000
    talk(transcripts, run("long"), turns=100, size=size)  # all its prefixes are 50 times the cache

    assert len((await transcripts.load(run("short"), step)).messages) == 3


async def test_conversations_of_many_small_messages_are_bounded_too(
    transcripts: Transcripts,
) -> None:
    """What an object takes counts, not only its text."""
    first = talk(transcripts, run("first"), turns=10)
    for number in range(CACHED_BYTES_MAX // 2 // 1024 // 20 + 1):
        talk(transcripts, run(f"later-{number}"), turns=10)
    with pytest.raises(Asked):
        await transcripts.load(run("first"), first)


async def test_nothing_is_kept_of_a_run_that_has_its_answer(transcripts: Transcripts) -> None:
    """Nothing follows an answer, and a worker sees thousands of them."""
    step = talk(transcripts, run("one"), turns=3)
    nothing_new = ModelStep(turn=step.turn, head=step.head)
    assert len((await transcripts.load(run("one"), nothing_new)).messages) == 6

    transcripts.release(run("one"))
    for gone in (step, nothing_new):
        with pytest.raises(Asked):
            await transcripts.load(run("one"), gone)
