"""What follows on a try that failed: the next one, until the store has counted enough of them."""

from __future__ import annotations

from runward.contracts.outcomes import Failed, Unknown
from runward.contracts.shapes import BodyFailed, Onward, Shape
from runward.contracts.steps import Resolution
from runward.contracts.tries import Tried, after
from runward.interceptors import answers
from runward.interceptors.concern import Attempt
from runward.interceptors.ending import Ending
from runward.interceptors.store_away import AGAIN_AFTER_S, finish, until_answered
from runward.store.pool import Store


class Tries:
    """Ends attempts whose body failed: given up where another one follows, else recorded."""

    def __init__(self, store: Store, ending: Ending) -> None:
        self._store = store
        self._ending = ending

    async def failed(self, attempt: Attempt, shape: Shape, failed: BodyFailed) -> bytes:
        """Returns the recorded failure of the last try; raises a retryable one after any other."""
        tried = await self._last(attempt, failed)
        reason = failed.reason
        if attempt.facts.kind == "model" and tried.tries > 1:
            reason += f" (gave up after {tried.tries} tries)"
        return await self._ending.record(attempt, shape, Failed(reason=reason), _resolution(failed))

    async def unknown(self, attempt: Attempt, shape: Shape, reason: str) -> bytes:
        """Records what nobody can know, or lets the next attempt ask, as the tool wants it."""
        draft = attempt.draft
        await self._last(attempt, BodyFailed(reason, retryable=True, unbilled=False))
        if draft.idempotent or draft.on_unknown == "tell":
            return await self._ending.record(attempt, shape, Unknown(reason=reason), "forfeit")
        raise answers.later(reason, AGAIN_AFTER_S)

    async def _last(self, attempt: Attempt, failed: BodyFailed) -> Tried:
        """Raises a retryable failure while something is left to try; else returns the count."""
        facts, key, nonce = attempt.facts, attempt.draft.key, attempt.draft.nonce
        hopeless = not (failed.retryable and facts.retries) and failed.onward is None
        if hopeless and (facts.kind != "model" or attempt.call.attempt == 1):
            return Tried()  # the last and, as far as it matters, the first
        steps = self._store.steps
        tried = await finish(until_answered(lambda: self._store.reads.tried(key)))
        found, reason = after(failed, facts.kind, facts.retries, tried), failed.reason
        if found is None:
            return tried
        if isinstance(found, Onward):
            onward, wait_s = found, AGAIN_AFTER_S
            reason += f"; {onward.model} is asked next"
            await finish(until_answered(lambda: steps.failed(key, nonce, onward, 0)))
        else:
            wait_s = found.wait_s
            if failed.unreadable:
                same, count = Onward(tried.place, facts.name), tried.unreadable + 1
                await finish(until_answered(lambda: steps.failed(key, nonce, same, count)))
        await self._ending.give_up(attempt, _resolution(failed))
        raise answers.later(reason, wait_s) from None


def _resolution(failed: BodyFailed) -> Resolution:
    return "release" if failed.unbilled else "forfeit"
