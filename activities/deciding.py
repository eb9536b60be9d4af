"""`approval.decide`: a person's decision, verified by its ticket and written by the store."""

from __future__ import annotations

from temporalio import activity
from temporalio.common import RawValue

from runward.contracts import names
from runward.contracts.approvals import Approval, Decision, DecisionResult
from runward.contracts.audit import Record
from runward.contracts.errors import TicketRefused
from runward.contracts.identity import Ticket, key_id, verify
from runward.contracts.steps import Run
from runward.store.pool import Store
from runward.workflows.payloads import raw, read

_DECIDE = "Decide through `approvals` of a client, which signs the right one"


class Deciding:
    """Decides approval requests. Anybody may schedule it: only the ticket counts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @activity.defn(name=names.DECIDE_APPROVAL)
    async def decide(self, given: RawValue) -> RawValue:
        """Returns whether the decision holds, and what the request's state is now."""
        decision = read(Decision, given)
        try:
            ticket = await self._verified(decision)
        except TicketRefused as error:
            # The request stays pending: an unproven decision decides nothing.
            return raw(DecisionResult(accepted=False, state="pending", reason=str(error)))
        who = ticket.principal
        asked = await self._store.approvals.get(who.tenant, decision.approval_id)
        if asked is None:
            return raw(DecisionResult(accepted=False, state="void", reason="unknown request"))
        run = await self._store.runs.find(asked.workflow_id, asked.run_id)
        assert ticket.decision is not None, "a decide ticket without a word was refused"
        result = await self._store.approvals.decide(
            tenant=who.tenant,
            approval_id=decision.approval_id,
            digest=ticket.digest,
            word=ticket.decision,
            by_user=who.user,
            roles=who.roles,
            reason=decision.reason,
            record=_record(ticket, asked, run).leaf,
        )
        return raw(result)

    async def _verified(self, decision: Decision) -> Ticket:
        """Returns the ticket, judged by the server's clock. Errors: TicketRefused."""
        issuer = await self._store.issuers.find(key_id(decision.ticket))
        ticket = verify(decision.ticket, issuer, at=activity.info().scheduled_time)
        if ticket.operation != "decide" or ticket.decision is None:
            raise TicketRefused("a decision", "Its ticket is not one to decide with", _DECIDE)
        if ticket.subject != decision.approval_id:
            raise TicketRefused("a decision", "Its ticket is for another request", _DECIDE)
        return ticket


def _record(ticket: Ticket, asked: Approval, run: Run | None) -> Record:
    """Returns the record; what was decided upon comes from its row, not from who scheduled this."""
    info = activity.info()
    return Record(
        kind="approval",
        tenant=ticket.principal.tenant,
        user=ticket.principal.user,
        session="" if run is None else run.session,
        run=asked.run_id,
        workflow=asked.workflow_id,
        step=asked.step,
        attempt=info.attempt,
        actor=f"user:{ticket.jti}",
        agent="" if run is None else run.agent,
        action=f"approval.{ticket.decision}",
        digest=ticket.digest,
        at=info.scheduled_time,
        outcome=asked.id,
    )
