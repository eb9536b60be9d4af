"""Budgets: which buckets a step holds from, and how a request shrinks into the room there is."""

from __future__ import annotations

from dataclasses import replace

from runward.contracts.budget import Bound, Budget, buckets
from runward.contracts.outcomes import OverBudget
from runward.contracts.steps import Draft, Short
from runward.interceptors.concern import Attempt

OUTPUT_TOKENS_MIN = 16  # below it no answer is worth its input


class Budgets:
    """Reserves the upper bound of each step in every bucket of its run and its user."""

    def __init__(self, default: Budget | None) -> None:
        self._default = default

    def open(self, attempt: Attempt) -> None:
        """Writes the buckets and the bound of this call."""
        run, draft = attempt.run, attempt.draft
        budget = attempt.facts.budget or self._default
        found = buckets(budget, run_id=run.run_id, user=run.user)
        draft.buckets = tuple(one for one in found if attempt.facts.bound.amount(one.dimension))
        draft.bound = attempt.facts.bound

    def parks(self, attempt: Attempt) -> bool:
        """Returns whether a run over its budget waits instead of ending."""
        budget = attempt.facts.budget or self._default
        return budget is not None and budget.on_exceeded == "park"

    def shrink(self, attempt: Attempt, short: Short) -> Bound | None:
        """Returns a bound that fits the room, None where too little output would be left.

        The request shrinks, never the hold: the bound is what will be sent.
        """
        bound, draft = attempt.draft.bound, attempt.draft
        if not bound.output_tokens:
            return None
        room = short.available
        match draft.buckets[short.bucket].dimension:
            case "tokens":
                output = room - bound.input_tokens
            case "output_tokens":
                output = room
            case "cost" if attempt.facts.output_price:
                fixed = bound.cost - bound.output_tokens * attempt.facts.output_price
                output = (room - fixed) // attempt.facts.output_price
            case _:
                return None
        if not OUTPUT_TOKENS_MIN <= output < bound.output_tokens:
            return None
        saved = (bound.output_tokens - output) * attempt.facts.output_price
        return replace(bound, output_tokens=output, cost=bound.cost - saved)

    def refusal(self, attempt: Attempt, short: Short) -> OverBudget:
        """Returns what the workflow is told."""
        reason = attempt.draft.buckets[short.bucket].reason
        return OverBudget(reason=reason, until=_turn(attempt.draft, short),
                          park=self.parks(attempt))  # fmt: skip


def _turn(draft: Draft, short: Short):  # type: ignore[no-untyped-def]
    return None if draft.buckets[short.bucket].period == "run" else short.window_end
