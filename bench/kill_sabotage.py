"""What the bench must turn red for: here the effect comes before `step_open` has committed.

Importing this changes the governed step of this process; only `kills.py --sabotage` asks for it.
"""

from __future__ import annotations

from typing import Any

from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from runward.contracts.shapes import CURRENT, Call, Shape, Step
from runward.contracts.steps import Answer
from runward.interceptors.concern import Attempt
from runward.interceptors.step import GovernedStep

_governed, _open = GovernedStep._governed, GovernedStep._open


class _Had(ActivityInboundInterceptor):
    """Stands for a body that has run."""

    def __init__(self, result: Any) -> None:
        self._result = result

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        return self._result


async def governed(self: Any, call: Call, shape: Shape, input: ExecuteActivityInput) -> bytes:
    self.input = input
    return await _governed(self, call, shape, input)


async def effect_first(self: Any, attempt: Attempt) -> Answer:
    facts, draft = attempt.facts, attempt.draft
    if not isinstance(self.next, _Had):
        key = draft.key.idempotency_key
        token = CURRENT.set(Step(attempt.run, key, attempt.call, facts, draft.bound.output_tokens))
        try:
            self.next = _Had(await self.next.execute_activity(self.input))
        finally:
            CURRENT.reset(token)
    return await _open(self, attempt)


GovernedStep._governed = governed  # type: ignore[method-assign]
GovernedStep._open = effect_first  # type: ignore[method-assign]
