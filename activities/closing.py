"""`run.close`: the end of a run that did not end with an answer. Not a step: rows prove it all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from pydantic import ValidationError
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from runward.activities.transcripts import Transcripts
from runward.contracts import names
from runward.contracts.audit import run_record
from runward.contracts.errors import REFUSED
from runward.contracts.runs import CloseResult, CloseStep
from runward.contracts.steps import Closing, Run
from runward.store.pool import Store
from runward.workflows.payloads import raw, read

RunOf = Callable[[str, str], Awaitable[Run | None]]


class ClosingRuns:
    """Closes runs; the first closing transition wins.

    `run_of` finds the run of an execution. A run may continue as new, or be reset, and end before
    its next step: so the store need not know the execution yet.
    """

    def __init__(self, store: Store, transcripts: Transcripts, run_of: RunOf) -> None:
        self._store = store
        self._run_of = run_of
        self._transcripts = transcripts

    @activity.defn(name=names.CLOSE_RUN)
    async def close(self, given: RawValue) -> RawValue:
        """Returns how the run ended: as asked, or as it had ended before."""
        try:
            step = read(CloseStep, given)
        except ValidationError as error:
            text = "refused: the input is no end that a run may have"
            raise ApplicationError(text, type=REFUSED, non_retryable=True) from error
        info = activity.info()
        assert info.workflow_id is not None, "run.close is scheduled by workflows only"
        assert info.workflow_run_id is not None, "an activity of a workflow has its run id"
        run = await self._run_of(info.workflow_id, info.workflow_run_id)
        if run is None:
            return raw(CloseResult(state="ended"))  # no step ever opened it
        state = await self._store.runs.close(run, _closing(run, step, info.scheduled_time))
        output = ""
        if state == "answered":
            output = await self._transcripts.answer(run)
        return raw(CloseResult(state=state, output=output))


def _closing(run: Run, step: CloseStep, at: datetime) -> Closing:
    record = run_record(
        "run_ended", run, action=run.agent, actor="worker", at=at, outcome=step.state
    )
    return Closing(step.state, step.reason[:1000], "", record.leaf)
