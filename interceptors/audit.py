"""Audit: the intent before the effect and the outcome after it, in the step's own commits."""

from __future__ import annotations

from datetime import UTC, datetime

from runward.contracts.audit import Record, RecordKind
from runward.contracts.steps import StepKey
from runward.interceptors.concern import Attempt

WORKER = "worker"


class Audit:
    """Writes exact bytes; the store adds nothing to them."""

    def open(self, attempt: Attempt) -> None:
        """Writes the intent. It is committed only if the attempt is admitted."""
        draft = attempt.draft
        policy = attempt.run.policy
        attempt.intent = step_record("intent", attempt, rule=draft.rule, policy=policy)
        draft.intent = attempt.intent.leaf


def step_record(
    kind: RecordKind,
    attempt: Attempt,
    *,
    rule: str = "",
    policy: str = "",
    outcome: str = "",
    result: str = "",
) -> Record:
    """Returns a record about this attempt."""
    draft, run = attempt.draft, attempt.run
    return Record(
        kind=kind,
        tenant=run.tenant,
        user=run.user,
        session=run.session,
        run=run.run_id,
        workflow=run.workflow_id,
        step=_step(draft.key),
        attempt=draft.attempt,
        actor="model" if draft.kind == "tool" else WORKER,
        agent=run.agent,
        action=draft.name,
        digest=draft.digest,
        at=datetime.now(UTC),
        rule=rule,
        policy=policy,
        outcome=outcome,
        result=result,
    )


def _step(key: StepKey) -> str:
    return f"{key.round}.{key.epoch}.{key.step}"
