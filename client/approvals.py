"""Approval requests as their approvers meet them.

What is shown comes from the store's row. The ticket is bound to that row's digest, so a decision
can only ever hold for exactly what was shown.
"""

from __future__ import annotations

import asyncio
import builtins
from datetime import timedelta
from typing import get_args

from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, FailureError

from runward.client.answering import NoWorkerAnswered, answered, no_worker
from runward.client.keys import TicketSource
from runward.client.reader import Reader, approval_of, needs_reader
from runward.contracts import names
from runward.contracts.approvals import (
    DECISION_TTL,
    Approval,
    ApprovalState,
    Decision,
    DecisionResult,
    DecisionWord,
)
from runward.contracts.encoding import clean
from runward.contracts.errors import REFUSED, ApprovalRefused, NotFound, RequestRefused
from runward.contracts.identity import Principal
from runward.workflows.payloads import raw, read

DECIDE_TIMEOUT_S = 20.0  # an update blocks for as long as no worker polls
REASON_CHARS_MAX = 1000
POLL_S = 0.1
_STATES, _WORDS = get_args(ApprovalState), get_args(DecisionWord)
# As the store says them. The first is its word for both decisions.
_OWN_REQUEST = "the requester may not approve"
_ROLE_MISSING = "the approver's role is missing"


class Approvals:
    """The approval requests of one tenant, read and decided by one user."""

    def __init__(
        self,
        temporal: Client,
        principal: Principal,
        *,
        issuer: TicketSource,
        reader: Reader | None,
        timeout_s: float = DECIDE_TIMEOUT_S,
    ) -> None:
        self._temporal = temporal
        self._principal = principal
        self._issuer = issuer
        self._reader = reader
        self.timeout_s = timeout_s

    async def list(self, state: ApprovalState = "pending") -> builtins.list[Approval]:
        """Returns the tenant's requests in that state, newest first.

        Raises RequestRefused for a state that there is not.
        """
        if state not in _STATES:
            raise RequestRefused(
                f"Approval requests in the state {state!r}",
                f"States are {', '.join(_STATES)}",
                "Name one of them",
            )
        reader = needs_reader(self._reader, "The list of approval requests")
        return await reader.approvals(self._principal.tenant, state)

    async def get(self, approval_id: str) -> Approval:
        """Returns one request; raises NotFound if the tenant has none of that id."""
        reader = needs_reader(self._reader, f"The approval request {approval_id!r}")
        return await approval_of(reader, self._principal.tenant, approval_id)

    async def approve(self, approval_id: str, reason: str = "") -> DecisionResult:
        """Lets the call run, once, exactly as it was shown. Returns what became of the request.

        Raises ApprovalRefused for a decision that does not hold: decided or expired before, a user
        who lacks the role, the requester; NotFound where the tenant has no request of that id.
        """
        return await self._decide(approval_id, "approve", reason)

    async def reject(self, approval_id: str, reason: str = "") -> DecisionResult:
        """Refuses the call; the model is told. Returns and raises as `approve` does."""
        return await self._decide(approval_id, "reject", reason)

    async def signal_decision(self, approval_id: str, word: DecisionWord, reason: str = "") -> None:
        """Sends a decision without waiting for a worker; the request's row tells what became of it.

        The ticket holds for five minutes: a decision that no worker sees until then is lost. Raises
        ApprovalRefused where the run has ended, NotFound where there is no request of that id.
        """
        approval = await self.get(approval_id)
        asked = f"{word.capitalize()} of {approval_id!r}"
        decision = raw(self._decision(approval, word, reason))
        try:
            await answered(self._run(approval).signal(names.DECISION_SIGNAL, decision), asked)
        except NotFound as error:
            raise _run_ended(asked, approval) from error

    async def _decide(self, approval_id: str, word: DecisionWord, reason: str) -> DecisionResult:
        asked = f"{word.capitalize()} of {approval_id!r}"
        silence = no_worker(asked)
        try:
            async with asyncio.timeout(self.timeout_s):
                while True:
                    try:
                        return await self._accepted(approval_id, word, reason, asked)
                    except NoWorkerAnswered as error:
                        silence = error  # after kills a run's next task may be seconds away
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise silence from None

    async def _accepted(
        self, approval_id: str, word: DecisionWord, reason: str, asked: str
    ) -> DecisionResult:
        """Returns the workflow's answer; raises ApprovalRefused where the decision does not hold.

        The store shows a request a moment before its workflow waits for it; until then the workflow
        refuses, and is asked again.
        """
        while True:
            approval = await self.get(approval_id)
            if approval.state == "void":
                raise ApprovalRefused(
                    asked,
                    "It is void: its run has ended, or was reset and asks anew",
                    "See approvals.list()",
                )
            if approval.state != "pending":
                raise ApprovalRefused(asked, f"It is {approval.state} already", _look(approval))
            try:
                update = self._update(approval, word, reason)
                result = await answered(update, asked, by_worker=True)
            except WorkflowUpdateFailedError as error:
                if not _not_waiting_yet(error.cause):
                    said = _message(error.cause)
                    raise ApprovalRefused(asked, said, _look(approval)) from error
            except NotFound as error:
                raise _run_ended(asked, approval) from error
            else:
                if not result.accepted:
                    raise ApprovalRefused(asked, *_refusal(result, approval))
                return result
            await asyncio.sleep(POLL_S)

    async def _update(self, approval: Approval, word: DecisionWord, reason: str) -> DecisionResult:
        try:
            value = await self._run(approval).execute_update(
                names.DECIDE_UPDATE,
                raw(self._decision(approval, word, reason)),
                result_type=RawValue,
                rpc_timeout=timedelta(seconds=self.timeout_s),
            )
        except WorkflowUpdateRPCTimeoutOrCancelledError as error:
            # One error for a silence, a cut connection and a caller who gives up: its cause says.
            raise error.__cause__ or error from None
        return read(DecisionResult, value)

    def _decision(self, approval: Approval, word: DecisionWord, reason: str) -> Decision:
        if word not in _WORDS:  # a signal tells nobody what its handler refuses
            raise RequestRefused(
                f"The decision {word!r}",
                f"Decisions are {', '.join(_WORDS)}",
                "Say one of them",
            )
        if len(reason) > REASON_CHARS_MAX:
            raise ApprovalRefused(
                f"A reason of {len(reason)} characters",
                f"At most {REASON_CHARS_MAX} fit",
                "Shorten it",
            )
        ticket = self._issuer.ticket(
            self._principal,
            "decide",
            subject=approval.id,
            digest=approval.digest,
            decision=word,
            ttl=DECISION_TTL,
        )
        return Decision(approval_id=approval.id, ticket=ticket, reason=clean(reason))

    def _run(self, approval: Approval) -> WorkflowHandle[object, object]:
        return self._temporal.get_workflow_handle(approval.workflow_id)


def _refusal(result: DecisionResult, approval: Approval) -> tuple[str, str]:
    """Returns why the decision does not hold, with the role that it needs, and what to do."""
    role = approval.approver_role
    reason = result.reason or f"It is {result.state}"
    holds = "The requester may not decide" if reason == _OWN_REQUEST else _sentence(reason)
    if reason not in (_ROLE_MISSING, _OWN_REQUEST):
        # A ticket that was refused has decided nothing, and its reason says what mends it.
        return holds, "Then decide again" if result.state == "pending" else _look(approval)
    if role is None:
        return holds, "Nobody may: name an approver_role in the app, and start another run"
    if reason == _OWN_REQUEST:
        return holds, f"Let another user decide, in the role {role!r}"
    return f"{holds}: {role!r}", "Decide as a user who has it: roles=[...], or --role"


def _sentence(reason: str) -> str:
    return reason[:1].upper() + reason[1:]


def _run_ended(asked: str, approval: Approval) -> ApprovalRefused:
    """Returns the error for a request whose row is there, and whose run Temporal has no more."""
    how = f"`runward runs show {approval.workflow_id}` says how"
    return ApprovalRefused(asked, "Its run has ended", how)


def _look(approval: Approval) -> str:
    return f"`runward approvals show {approval.id}` says what became of it"


def _not_waiting_yet(cause: BaseException) -> bool:
    return isinstance(cause, ApplicationError) and cause.type == REFUSED


def _message(cause: BaseException) -> str:
    while isinstance(cause, FailureError) and isinstance(cause.cause, FailureError):
        cause = cause.cause
    return cause.message if isinstance(cause, FailureError) else str(cause)
