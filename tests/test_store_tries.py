"""What the store counts of a step's tries, and who may change it."""

from __future__ import annotations

from runward.contracts.shapes import Onward
from runward.contracts.tries import Tried
from tests.store_case import Case

SECOND = Onward(1, "scripted:second")


async def test_a_model_that_is_moved_on_to_begins_its_own_count(case: Case) -> None:
    """The call's count goes on, and the row shows who is asked."""
    first = await case.admit(case.first())
    await case.close(first, b"", state=None)
    second = await case.admit(case.first(attempt=2))
    await case.store.steps.failed(second.key, second.nonce, SECOND, 0)
    await case.close(second, b"", state=None)
    await case.admit(case.first(attempt=3))

    found = await case.store.reads.tried(first.key)
    assert (found, found.here) == (Tried(tries=3, place=1, before=2), 1)
    (row,) = await case.store.reads.steps(case.tenant, first.key.run_id)
    assert (row.name, row.tries) == (SECOND.model, 3)


async def test_the_same_note_again_changes_nothing(case: Case) -> None:
    """Its ack may have been lost."""
    draft = await case.admit(case.first())
    for _ in range(2):
        await case.store.steps.failed(draft.key, draft.nonce, Onward(0, draft.name), 1)
    for _ in range(2):
        await case.store.steps.failed(draft.key, draft.nonce, SECOND, 0)

    assert await case.store.reads.tried(draft.key) == Tried(tries=1, place=1, before=1)
    await case.close(draft, b"", state=None)
    later = await case.admit(case.first(attempt=2))
    await case.store.steps.failed(later.key, later.nonce, SECOND, 1)

    found = await case.store.reads.tried(draft.key)
    assert found == Tried(tries=2, place=1, before=1, unreadable=1)


async def test_only_the_attempt_that_is_open_is_heard(case: Case) -> None:
    """Not one that was taken for dead, not one that has ended, and none goes back."""
    first = await case.admit(case.first())
    second = await case.admit(case.first(attempt=2))
    await case.store.steps.failed(first.key, first.nonce, SECOND, 2)
    assert await case.store.reads.tried(first.key) == Tried(tries=2)
    await case.store.steps.failed(second.key, second.nonce, Onward(2, "scripted:third"), 0)
    await case.store.steps.failed(second.key, second.nonce, SECOND, 0)
    await case.close(second)
    await case.store.steps.failed(second.key, second.nonce, Onward(3, "scripted:other"), 0)

    assert await case.store.reads.tried(first.key) == Tried(tries=2, place=2, before=2)


async def test_a_step_that_never_began_was_never_tried(case: Case) -> None:
    assert await case.store.reads.tried(case.key("t1.model")) == Tried()
