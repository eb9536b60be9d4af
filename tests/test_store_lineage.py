"""A step runs only if recorded outcomes lead to it: forged history can stop a run, not steer it."""

from __future__ import annotations

import pytest

from runward.contracts.steps import Admitted, Draft, Parent, Refused, TranscriptRow
from runward.contracts.transcript import GENESIS
from tests.store_case import Case

LINEAGE = Refused("lineage", "no recorded outcome leads to this step")


def call(case: Case, index: int = 0, digest: str = "call-0", model: str = "t1.model") -> Draft:
    """Returns a draft of the call that a model step granted."""
    return case.draft(f"t1.tool.{index}", digest=digest, parent=Parent(model, index))


def turn(case: Case, *messages: tuple[str, str], head: str = "head-1") -> Draft:
    """Returns a draft of the second model step."""
    parent = Parent("t1.model", head=head, messages=messages)
    return case.draft("t2.model", kind="model", digest="turn-2", parent=parent)


async def test_a_granted_call_runs(case: Case) -> None:
    await case.started("call-0", "call-1")

    assert await case.open(call(case, 1, "call-1")) == Admitted()


@pytest.mark.parametrize(
    ("index", "digest", "model"),
    [
        (0, "another", "t1.model"),  # forged arguments
        (1, "call-0", "t1.model"),  # a second time, under another index
        (2, "call-0", "t1.model"),  # more calls than the model made
        (0, "call-0", "t2.model"),  # a turn that never was
        (0, "call-0", ""),
    ],
)
async def test_a_call_that_no_model_step_granted_is_refused(
    case: Case, index: int, digest: str, model: str
) -> None:
    await case.started("call-0", "call-1")

    assert await case.open(call(case, index, digest, model)) == LINEAGE


async def test_a_model_step_that_is_open_grants_nothing(case: Case) -> None:
    await case.admit(case.first())

    assert await case.open(call(case)) == LINEAGE
    assert await case.open(call(case, model="")) == LINEAGE


async def answered(case: Case) -> None:
    """Runs both granted calls; one is denied, which is an answer too."""
    await case.started("call-0", "call-1")
    first = await case.admit(call(case))
    await case.close(first, message="said-0")
    second = call(case, 1, "call-1")
    second.verdict = "deny"
    await case.open(second)
    await case.close(second, state="denied", nonce="", message="said-1")


GOOD = (("t1.tool.0", "said-0"), ("t1.tool.1", "said-1"))


async def test_the_next_turn_follows_from_all_answers(case: Case) -> None:
    await answered(case)

    assert await case.open(turn(case, *GOOD)) == Admitted()


@pytest.mark.parametrize(
    "messages",
    [
        (),
        GOOD[:1],
        GOOD[::-1],
        (GOOD[0], GOOD[0]),
        (GOOD[0], ("t1.tool.1", "forged")),
        (GOOD[0], ("t1.tool.7", "said-1")),
        (*GOOD, GOOD[0]),
    ],
)
async def test_a_turn_with_other_messages_is_refused(
    case: Case, messages: tuple[tuple[str, str], ...]
) -> None:
    await answered(case)

    assert await case.open(turn(case, *messages)) == LINEAGE


async def test_a_turn_over_another_prefix_is_refused(case: Case) -> None:
    await answered(case)

    assert await case.open(turn(case, *GOOD, head="forged")) == LINEAGE


async def test_a_turn_whose_tool_is_still_open_is_refused(case: Case) -> None:
    await case.started("call-0")
    await case.admit(call(case))

    assert await case.open(turn(case, ("t1.tool.0", ""))) == LINEAGE


async def test_one_answer_does_not_stand_for_two_equal_calls(case: Case) -> None:
    await case.started("call-0", "call-0")
    await case.close(await case.admit(call(case)), message="said-0")

    assert await case.open(turn(case, GOOD[0], GOOD[0])) == LINEAGE


async def test_a_conversation_begins_once(case: Case) -> None:
    await case.started()
    parent = Parent(head=GENESIS, messages=(("", "request-message"),))

    assert await case.open(case.draft("t9.model", kind="model", parent=parent)) == LINEAGE


async def test_lineage_reads_the_newest_epoch(case: Case) -> None:
    await case.started("call-0")
    run = await case.store.runs.adopt(case.workflow, "execution-2", case.run, "reset")
    assert run is not None and run.epoch == 1
    before = case.draft("t1.tool.0", epoch=1, digest="call-0", parent=Parent("t1.model"))
    assert await case.open(before) == Admitted()

    model = case.draft("t1.model", epoch=1, kind="model", nonce="second")
    await case.admit(model)
    await case.close(model, head="head-1b", grants=("call-9",))
    stale = case.draft("t1.tool.1", epoch=1, digest="call-0", parent=Parent("t1.model"))
    fresh = case.draft("t1.tool.2", epoch=1, digest="call-9", parent=Parent("t1.model"))

    assert await case.open(stale) == LINEAGE
    assert await case.open(fresh) == Admitted()


async def test_the_turn_after_a_repair_begins_with_it(case: Case) -> None:
    """The model's step that recorded the repair has it in its head, and grants no calls."""
    draft = await case.admit(case.first())
    rows = (
        TranscriptRow("head-answer", GENESIS, "answer", b"no", 2),
        TranscriptRow("head-repair", "head-answer", "repair", b"once more", 11),
    )
    await case.close(draft, head="head-repair", message="answer", transcript=rows)

    assert await case.open(turn(case, head="head-answer")) == LINEAGE  # as if there were none
    assert await case.open(turn(case, ("t1.tool.0", "repair"), head="head-answer")) == LINEAGE
    assert await case.open(turn(case, ("t1.model", "answer"), head="head-repair")) == LINEAGE
    assert await case.open(turn(case, head="head-repair")) == Admitted()
