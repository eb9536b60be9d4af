"""How an attempt ends in the store: with the step's outcome, or given up for the next attempt."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from runward.contracts.audit import run_record
from runward.contracts.content import Content
from runward.contracts.errors import StoreUnavailable
from runward.contracts.outcomes import Denied, Failed, Final, Unknown, seal
from runward.contracts.shapes import Ended, Shape
from runward.contracts.steps import Close, Closed, Closing, Resolution, Run, StepState
from runward.interceptors.audit import step_record
from runward.interceptors.concern import Attempt
from runward.interceptors.store_away import finish, until_answered
from runward.store.pool import Store

_STATES: dict[type, StepState] = {Denied: "denied", Failed: "failed", Unknown: "unknown"}


class Ending:
    """Closes attempts. An attempt ends once; each of these waits for a store that is away."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def record(
        self, attempt: Attempt, shape: Shape, result: Any, resolution: Resolution
    ) -> bytes:
        """Returns the recorded outcome: this one, or the one that was recorded first."""
        ended = shape.ended(attempt.run, attempt.call, attempt.facts, result)
        if ended.large:
            await finish(self._stored(attempt.run, ended.large))
        outcome = cast(Final, ended.outcome)
        state = _STATES.get(type(outcome), "done")
        rule = attempt.draft.rule if state == "denied" else ""  # others have it in their intent
        sealed, leaf = seal(
            outcome,
            lambda name: (
                step_record("outcome", attempt, rule=rule, outcome=state, result=name).leaf
            ),
        )
        closed = await self._closed(
            Close(
                key=attempt.draft.key,
                nonce=attempt.draft.nonce,
                attempt=attempt.draft.attempt,
                state=state,
                outcome=sealed,
                record=leaf,
                resolution=resolution,
                actual=ended.actual,
                head=ended.head,
                message=ended.message,
                grants=ended.grants,
                transcript=ended.transcript,
                content=ended.content,
                closing=_closing(attempt, ended),
            )
        )
        return closed.outcome

    async def give_up(self, attempt: Attempt, resolution: Resolution) -> None:
        """Leaves the step open for another attempt; this one's hold is resolved."""
        record = step_record("outcome", attempt, outcome="retry")
        draft = attempt.draft
        await self._closed(Close(draft.key, draft.nonce, draft.attempt, None,
                                 record=record.leaf, resolution=resolution))  # fmt: skip

    async def _stored(self, run: Run, large: tuple[Content, ...]) -> None:
        content = self._store.content
        for one in large:
            await until_answered(partial(content.put_for, run.tenant, run.run_id, one))

    async def _closed(self, close: Close) -> Closed:
        try:
            return await self._store.steps.close(close)
        except StoreUnavailable:
            return await finish(until_answered(lambda: self._store.steps.close(close)))


def _closing(attempt: Attempt, ended: Ended) -> Closing | None:
    if ended.closes_with is None:
        return None
    state = "failed" if ended.failure else "answered"
    record = run_record(
        "run_ended",
        attempt.run,
        action=attempt.run.agent,
        actor="worker",
        at=datetime.now(UTC),
        outcome=state,
        result=ended.closes_with,
    )
    return Closing(state, ended.failure, ended.closes_with, record.leaf)
