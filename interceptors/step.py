"""The governed step: identity, permissions, budget, approvals, audit, the effect, its record.

Two commits: `step_open` decides everything in one transaction before the effect, `step_close`
records the outcome after it. If `step_open` cannot commit, the effect does not happen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from secrets import token_hex
from typing import Any, assert_never

from pydantic import ValidationError
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
)

from runward.contracts.errors import WAITING, ConfigurationError, StoreUnavailable
from runward.contracts.outcomes import (
    Denied,
    NeedsApproval,
    Unknown,
    encode_outcome,
)
from runward.contracts.shapes import (
    CURRENT,
    BodyFailed,
    Call,
    EffectUnknown,
    Forged,
    Later,
    Shape,
    Step,
)
from runward.contracts.steps import (
    Admitted,
    Answer,
    Asked,
    Draft,
    Opening,
    Recorded,
    Refused,
    Run,
    Settled,
    Short,
    StepKey,
    Wait,
)
from runward.interceptors import answers
from runward.interceptors.approvals import Approvals
from runward.interceptors.audit import Audit
from runward.interceptors.budget import Budgets
from runward.interceptors.concern import Attempt, Concern
from runward.interceptors.ending import Ending
from runward.interceptors.heartbeat import heartbeating
from runward.interceptors.identity import Identity, refused
from runward.interceptors.permissions import Permissions
from runward.interceptors.store_away import AGAIN_AFTER_S, cancelled, finish
from runward.interceptors.tries import Tries
from runward.store.pool import Store
from runward.workflows.payloads import plain

OPEN_AGAIN_S = 8.0  # resent under the same nonce, in case only the ack was lost
CONTENDED_DELAY_S = 1.0
WAIT_DELAY_S = 2.0


class Governance(Interceptor):
    """Puts the governed step around activities. `shapes` maps governed types to what they are."""

    def __init__(
        self,
        store: Store,
        shapes: Mapping[str, Shape],
        identity: Identity,
        permissions: Permissions,
        budgets: Budgets,
        approvals: Approvals,
    ) -> None:
        self.store = store
        self.shapes = shapes
        self.identity = identity
        self.budgets = budgets
        # Visible and ordered: each may rely on what stands before it in the draft.
        self.concerns: tuple[Concern, ...] = (permissions, budgets, approvals, Audit())
        self.ending = Ending(store)
        self.tries = Tries(store, self.ending)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Returns the governed step around the activity."""
        return GovernedStep(next, self)


class GovernedStep(ActivityInboundInterceptor):
    """One attempt of one step, from the call to its recorded outcome."""

    def __init__(self, following: ActivityInboundInterceptor, governance: Governance) -> None:
        super().__init__(following)
        self._g = governance

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        """Returns the recorded outcome; runs the body only after `step_open` has committed."""
        shape = self._g.shapes.get(activity.info().activity_type)
        if shape is None:
            return await super().execute_activity(input)
        try:
            outcome = await self._attempted(shape, input)
        except ApplicationError as error:
            # Nobody takes up what a cancelled attempt leaves: the server schedules no other one.
            if error.type == WAITING and cancelled():
                raise asyncio.CancelledError from error
            raise
        give = answers.foreign if shape.foreign else answers.own
        return give(outcome)

    async def _attempted(self, shape: Shape, input: ExecuteActivityInput) -> bytes:
        """Returns the outcome; whatever stops the attempt leaves it as Temporal understands it."""
        try:
            call = _call(input, shape)
        except ConfigurationError as error:
            raise answers.later(str(error), WAIT_DELAY_S) from error
        try:
            with heartbeating():
                return await self._governed(call, shape, input)
        except (Forged, ValidationError) as error:
            raise refused("the input does not fit this step") from error
        except (StoreUnavailable, Later) as error:
            # Without its causes, for whose traces Temporal would withhold these words.
            raise answers.later(str(error), WAIT_DELAY_S) from None

    async def _governed(self, call: Call, shape: Shape, input: ExecuteActivityInput) -> bytes:
        run, opening = await self._g.identity.of(call, shape)
        attempt = await self._draft(call, shape, run, opening)
        answer = await self._open(attempt)
        if opening is not None and isinstance(answer, Refused) and answer.code == "ticket":
            # The ticket opened another execution of this chain: who this is, the server knows.
            run = await self._g.identity.adopted(call)
            attempt = await self._draft(call, shape, run, None)
            answer = await self._open(attempt)
        match answer:
            case Recorded(outcome=outcome):
                return outcome
            case Admitted():
                await self._still_wanted(attempt)
                return await self._admitted(attempt, shape, input)
            case Settled(state=state, reason=reason):
                kind = Denied if state == "denied" else Unknown
                return await self._g.ending.record(attempt, shape, kind(reason=reason), "release")
            case Asked(request=request):
                shape.waits(attempt.run)
                return encode_outcome(NeedsApproval(request=request))
            case Short() if answer.contended:
                raise answers.later("the budget is held by other calls", CONTENDED_DELAY_S)
            case Short():
                refusal = self._g.budgets.refusal(attempt, answer)
                if refusal.park:
                    shape.waits(attempt.run)
                return encode_outcome(refusal)
            case Wait(reason=reason):
                raise answers.later(reason, WAIT_DELAY_S)
            case Refused(code="lineage" | "digest" as code, reason=reason):
                changed = await shape.redefined(attempt.run, attempt.facts)
                if code == "digest" and not changed:
                    raise refused(reason)
                # Another release's tool; or a forged outcome, or a store that went back in time,
                # and a person has to look.
                raise answers.later(changed or reason, WAIT_DELAY_S)
            case Refused(reason=reason):
                raise refused(reason)
            case _:
                assert_never(answer)

    async def _draft(self, call: Call, shape: Shape, run: Run, opening: Opening | None) -> Attempt:
        facts = await shape.facts(run, call)
        tool = facts.tool
        draft = Draft(
            key=StepKey(run.tenant, run.run_id, call.step, run.epoch, run.round),
            kind=facts.kind,
            name=facts.name,
            digest=facts.digest,
            workflow_id=call.workflow_id,
            execution_run_id=call.run_id,
            attempt=call.attempt,
            nonce=token_hex(16),
            idempotent=facts.kind == "model" or (tool is not None and tool.idempotent),
            on_unknown="ask" if tool is None else tool.on_unknown,
            parent=facts.parent,
            opening=opening,
        )
        attempt = Attempt(call, run, facts, draft)
        for concern in self._g.concerns:
            concern.open(attempt)
        return attempt

    async def _open(self, attempt: Attempt) -> Answer:
        answer = await self._opened(attempt.draft)
        if isinstance(answer, Short):
            smaller = self._g.budgets.shrink(attempt, answer)
            if smaller is not None:
                attempt.draft.bound = smaller
                answer = await self._opened(attempt.draft)
        return answer

    async def _opened(self, draft: Draft) -> Answer:
        try:
            return await self._g.store.steps.open(draft)
        except StoreUnavailable:
            return await finish(self._open_again(draft))

    async def _open_again(self, draft: Draft) -> Answer:
        """Asks under the same nonce: if only the answer was lost, the store says so."""
        until = time.monotonic() + OPEN_AGAIN_S  # the clock may be stepped in an outage
        while True:
            await asyncio.sleep(AGAIN_AFTER_S)
            try:
                return await self._g.store.steps.open(draft)
            except StoreUnavailable:
                if time.monotonic() > until:
                    raise

    async def _admitted(self, attempt: Attempt, shape: Shape, input: ExecuteActivityInput) -> bytes:
        facts, draft = attempt.facts, attempt.draft
        step = Step(attempt.run, draft.key.idempotency_key, attempt.call, facts,
                    draft.bound.output_tokens)  # fmt: skip
        token = CURRENT.set(step)
        try:
            result = await super().execute_activity(input)
        except BodyFailed as error:
            return await self._g.tries.failed(attempt, shape, error)
        except EffectUnknown as error:
            return await self._g.tries.unknown(attempt, shape, str(error))
        except asyncio.CancelledError:
            # Without idempotency nobody may claim that nothing happened: the intent stays open.
            if draft.idempotent:
                await self._g.ending.give_up(attempt, "forfeit")
            raise
        except Exception:
            # A user's activity that raises has said that it ended; its own retry policy goes on.
            if shape.foreign:
                await self._g.ending.give_up(attempt, "forfeit")
            raise
        finally:
            CURRENT.reset(token)
        return await self._g.ending.record(attempt, shape, result, "settle")

    async def _still_wanted(self, attempt: Attempt) -> None:
        """Gives the hold back where the attempt was cancelled while the store decided."""
        if cancelled():
            await self._g.ending.give_up(attempt, "release")
            raise asyncio.CancelledError


def _call(input: ExecuteActivityInput, shape: Shape) -> Call:
    info = activity.info()
    data = _data if shape.foreign else plain
    if info.is_local or info.workflow_id is None or info.workflow_run_id is None:
        raise refused(
            f"{info.activity_type} is governed",
            "Schedule it as a normal activity of a workflow: a local one cannot be bound",
        )
    return Call(
        activity_type=info.activity_type,
        step=info.activity_id,
        workflow_id=info.workflow_id,
        run_id=info.workflow_run_id,
        workflow_type=info.workflow_type or "",
        attempt=info.attempt,
        scheduled_at=info.scheduled_time,
        args=tuple(data(one) if isinstance(one, RawValue) else one for one in input.args),
        headers={name: payload.data for name, payload in input.headers.items()},
    )


def _data(value: RawValue) -> bytes:
    """Returns the bytes of a user's payload, which may have any encoding."""
    return value.payload.data
