"""Which of an agent's models a call asks: its own, until the store has counted that it failed.

A fallback without a known price is never asked, as nobody could say what to hold for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.providers import ModelError
from runward.contracts.shapes import BodyFailed, Call, Onward
from runward.contracts.steps import Run, StepKey
from runward.contracts.tries import Tried
from runward.contracts.usage import Price

PriceOf = Callable[[str], Price | None]
TriedOf = Callable[[StepKey], Awaitable[Tried]]


class Chosen(NamedTuple):
    """The model that an attempt asks; `tries` counts the call's attempts, this one included."""

    model: str
    place: int = 0  # 0 is the agent's own, the others are its fallbacks
    tries: int = 1

    @property
    def provider(self) -> str:
        """Returns the provider's name, the part of `model` before the colon."""
        return self.model.partition(":")[0]


class ModelChoice:
    """Chooses by what the store has counted, so that every worker goes on where one has stopped."""

    def __init__(self, price_of: PriceOf, tried_of: TriedOf) -> None:
        self._price_of = price_of
        self._tried_of = tried_of

    async def of(self, agent: Agent[Any], run: Run, call: Call, *, again: bool) -> Chosen:
        """Returns what this attempt asks; `again` where the step waited for a budget.

        The first attempt of a step that never waited costs no look into the store.
        """
        if call.attempt == 1 and not again and names.STEP_HEADER not in call.headers:
            return Chosen(agent.model)
        key = StepKey(run.tenant, run.run_id, call.step, run.epoch, run.round)
        tried = await self._tried_of(key)
        place = min(tried.place, len(agent.models) - 1)  # another release's agent may have had more
        return Chosen(agent.models[place], place, tried.tries + 1)

    def failed(self, error: ModelError, agent: Agent[Any], asked: Chosen) -> BodyFailed:
        """Returns the failure with the model that may answer instead, where there is one."""
        onward, skipped = None, ""
        if error.retryable or error.elsewhere:
            onward, skipped = self._onward(agent, asked.place)
        return BodyFailed(
            f"{error}{skipped}",
            retryable=error.retryable,
            unbilled=error.unbilled,
            retry_after_s=error.retry_after_s,
            unreadable=error.unreadable,
            onward=onward,
        )

    def _onward(self, agent: Agent[Any], asked: int) -> tuple[Onward | None, str]:
        """Returns the next model with a price, and what to say of those before it."""
        skipped = ""
        for place, model in enumerate(agent.models[asked + 1 :], asked + 1):
            if self._price_of(model) is not None:
                return Onward(place, model), skipped
            skipped += f"; {model} is not asked: price_unknown"
        return None, skipped
