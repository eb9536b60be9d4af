"""One agent run: the turn loop, its limits and its ends.

The loop schedules steps and reads outcomes. Who may, who pays and who must approve is decided in
the worker's interceptors, so nothing here can be walked around by not calling it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import cast

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from runward.contracts import names
from runward.contracts.errors import AGENT_ERROR, OUTPUT_VALIDATION_ERROR, WAITING
from runward.contracts.outcomes import (
    AnyOutcome,
    Denied,
    Failed,
    ModelDone,
    OverBudget,
    Unknown,
)
from runward.contracts.output import OUTPUT_INVALID, InvalidOutput
from runward.contracts.providers import NO_ANSWER
from runward.contracts.runs import (
    CloseResult,
    CloseStep,
    EndState,
    InvalidEnd,
    RunEnd,
    RunInput,
    RunStatus,
    ToolStep,
)
from runward.contracts.wire import encode_wire
from runward.workflows.cancelling import cancelled_unheard, stop_if_cancelled
from runward.workflows.conversation import Conversation
from runward.workflows.payloads import raw, read
from runward.workflows.shown_state import show_state

MODEL_TIMEOUT = timedelta(minutes=10)
HEARTBEAT_TIMEOUT = timedelta(seconds=10)
REFUSED_TIMEOUT = timedelta(seconds=60)  # of a tool that is not there: nothing runs
NO_SUCH_TOOL = "no such tool"
CLOSE_TIMEOUT = timedelta(seconds=30)
TOOL_GRACE = timedelta(seconds=30)  # the body is bounded by the tool; this bounds the attempt
UPGRADE = workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
# Unlimited attempts: the store counts a tool's retries, and one attempt would hide a killed worker.
RETRY = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=15))


# No versioning_behavior here: Temporal refuses one from a worker without a version. Versioned
# workers pin by default (workers/deployment.py), and runs move on between two executions.
@workflow.defn(name=names.AGENT_RUN, sandboxed=False)
class AgentRun:
    """A run of one agent for one user."""

    def __init__(self) -> None:
        self._talk: Conversation | None = None
        self._parked = ""  # why it is parked
        self._raised = 0  # how often somebody said that a budget was raised

    @workflow.run
    async def run(self, start: RawValue) -> RawValue:
        """Returns a `RunEnd`; a failed run raises an ApplicationError of type AgentError."""
        self._talk = talk = Conversation.begin(read(RunInput, start), workflow.now())
        try:
            return raw(await self._turns(talk))
        except (asyncio.CancelledError, ActivityError) as error:
            if not (is_cancelled_exception(error) or _left_off(error)):
                raise _refused(error) from error
            closed = await self._close("cancelled", "cancelled by request")
            if closed.state != "answered":
                self._say("cancelled")
                raise asyncio.CancelledError from error
            # The answer was there first: a cancel that loses adopts it.
            self._say("answered")
            return raw(talk.end(workflow.now(), output=closed.output))

    async def _turns(self, talk: Conversation) -> RunEnd:
        while True:
            if workflow.info().is_continue_as_new_suggested():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(
                    raw(talk.carry()),
                    initial_versioning_behavior=UPGRADE,
                )
            if talk.turn >= talk.max_turns:
                return await self._interrupted(talk, "max_turns_exceeded")
            talk.turn += 1
            outcome = await self._model(talk)
            if isinstance(outcome, OverBudget):
                return await self._interrupted(talk, outcome.reason)
            if isinstance(outcome, Failed) and outcome.reason == NO_ANSWER["length"]:
                return await self._interrupted(talk, outcome.reason)
            if not isinstance(outcome, ModelDone):
                raise await self._failed(outcome)
            calls = talk.answered(outcome)
            if outcome.invalid is not None:
                raise self._invalid(outcome, outcome.invalid)
            if not calls and not outcome.repair:
                return self._answer(talk, outcome)
            stop_if_cancelled()
            if calls:
                self._say(_called(talk, calls))
            talk.heard(calls, list(await asyncio.gather(*(self._tool(talk, c) for c in calls))))

    async def _model(self, talk: Conversation) -> AnyOutcome:
        again = False
        while True:
            self._say("asks its model")
            outcome = await self._step(
                names.CALL_MODEL,
                raw(talk.model_step(again=again)),
                step=f"t{talk.turn}.model",
                summary=_summary(talk, "model"),
                within=MODEL_TIMEOUT,
            )
            if not (isinstance(outcome, OverBudget) and outcome.park):
                return outcome
            stop_if_cancelled()
            await self._park(outcome)
            again = True

    async def _park(self, outcome: OverBudget) -> None:
        """Waits until somebody raises the budget, or its window turns."""
        self._parked, seen = outcome.reason, self._raised
        self._say(f"parked: {outcome.reason}")
        left = None if outcome.until is None else outcome.until - workflow.now()
        if left is None or left > timedelta(0):
            show_state("parked")
            try:
                with suppress(TimeoutError):  # the window turned: the other thing waited for
                    await workflow.wait_condition(lambda: self._raised > seen, timeout=left)
            except asyncio.CancelledError:
                show_state(None)
                raise
            show_state(None)
        self._parked = ""

    async def _tool(self, talk: Conversation, call: ToolStep) -> AnyOutcome:
        limit = talk.timeout_s(call)
        return await self._step(
            f"{names.TOOL_PREFIX}{call.name}" if limit is not None else names.REFUSED_TOOL,
            raw(call),
            step=f"t{talk.turn}.tool.{call.index}",
            # Not a name that only the model knows: it may be anything.
            summary=_summary(talk, NO_SUCH_TOOL if limit is None else call.name),
            within=(REFUSED_TIMEOUT if limit is None else timedelta(seconds=limit)) + TOOL_GRACE,
        )

    async def _step(
        self, activity: str, argument: RawValue, *, step: str, summary: str, within: timedelta
    ) -> AnyOutcome:
        # The outbound interceptor unwraps, and waits where a person must decide first.
        outcome = await workflow.execute_activity(
            activity,
            argument,
            activity_id=step,
            summary=summary,
            result_type=RawValue,
            start_to_close_timeout=within,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        return cast(AnyOutcome, outcome)

    def _answer(self, talk: Conversation, done: ModelDone) -> RunEnd:
        self._say("answered")
        if done.message is None:
            return talk.end(workflow.now(), ref=done.digest)
        return talk.end(workflow.now(), output=done.message.text)

    def _invalid(self, done: ModelDone, invalid: InvalidOutput) -> ApplicationError:
        """Returns the failure of a run that its last model step has closed already."""
        self._say(OUTPUT_INVALID)
        end = InvalidEnd(invalid=invalid, ref=done.digest)
        if done.message is not None:
            end = InvalidEnd(invalid=invalid, output=done.message.text)
        # As text, which every converter lets through.
        told = encode_wire(end).decode()
        return ApplicationError(
            OUTPUT_INVALID, told, type=OUTPUT_VALIDATION_ERROR, non_retryable=True
        )

    async def _interrupted(self, talk: Conversation, reason: str) -> RunEnd:
        closed = await self._close("interrupted", reason)
        if closed.state == "answered":
            self._say("answered")
            return talk.end(workflow.now(), output=closed.output)
        self._say(f"interrupted: {reason}")
        return talk.end(workflow.now(), reason=reason)

    async def _failed(self, outcome: AnyOutcome) -> ApplicationError:
        reason = outcome.reason if isinstance(outcome, Denied | Failed | Unknown) else "no answer"
        await self._close("failed", reason)
        self._say("failed")
        return ApplicationError(reason, type=AGENT_ERROR, non_retryable=True)

    async def _close(self, state: EndState, reason: str) -> CloseResult:
        """Returns how the run ended: as asked, or as it had ended before."""
        result = await asyncio.shield(
            workflow.execute_activity(
                names.CLOSE_RUN,
                raw(CloseStep(state=state, reason=reason)),
                result_type=RawValue,
                start_to_close_timeout=CLOSE_TIMEOUT,
                retry_policy=RETRY,
            )
        )
        return read(CloseResult, result)

    def _say(self, what: str) -> None:
        """Shows what the run does in Temporal's UI; costs no event."""
        talk = self._talk
        assert talk is not None, "run() sets it before anything else"
        workflow.set_current_details(
            f"**{talk.request.agent}** {what}\n\n"
            f"turn {talk.turn} · {talk.usage.tokens} tokens · ${talk.cost / 1e9:.6f}"
        )

    @workflow.signal(name=names.BUDGET_RAISED_SIGNAL)
    def budget_raised(self) -> None:
        """Wakes a parked run, which then asks the store again."""
        self._raised += 1

    @workflow.query(name=names.STATUS_QUERY)
    def status(self) -> RawValue:
        """Returns a `RunStatus`; what the run waits for is known to its interceptor."""
        talk = self._talk
        if talk is None:
            return raw(RunStatus(state="running", turn=0))
        used = talk.usage
        return raw(
            RunStatus(
                state="parked" if self._parked else "running",
                turn=talk.turn,
                usage=(used.input, used.cache_read, used.cache_write, used.output),
                cost=talk.cost,
                reason=self._parked,
            )
        )


def _summary(talk: Conversation, what: str) -> str:
    return f"turn {talk.turn} · {what}"


def _called(talk: Conversation, calls: tuple[ToolStep, ...]) -> str:
    known = (NO_SUCH_TOOL if talk.timeout_s(one) is None else one.name for one in calls)
    return f"calls {', '.join(dict.fromkeys(known))}"


def _left_off(error: BaseException) -> bool:
    """Returns whether a step ended between two attempts: the server begins none after a cancel."""
    cause = error.__cause__
    waits = isinstance(cause, ApplicationError) and cause.type == WAITING
    return waits and cancelled_unheard()


def _refused(error: BaseException) -> ApplicationError:
    """Returns the failure of a run whose step was refused for good, without the step's trace."""
    reason = str(error.__cause__ or error)
    return ApplicationError(reason, type=AGENT_ERROR, non_retryable=True)
