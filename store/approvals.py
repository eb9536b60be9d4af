"""Approval requests: the row is the authority, the first decision wins."""

from __future__ import annotations

from runward.contracts.approvals import Approval, ApprovalState, DecisionResult, DecisionWord
from runward.contracts.encoding import clean
from runward.store.database import Database, Row

_COLUMNS = """tenant, id, workflow_id, run_id, step, kind, title, rule, tool, arguments, digest,
  requester, approver_role, state, reason, decided_by, decided_at, created_at, expires_at"""
_DECIDE = "select * from runward.approval_decide($1, $2, $3, $4, $5, $6, $7, $8)"


class ApprovalStore:
    """Reads requests and writes decisions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def decide(
        self,
        tenant: str,
        approval_id: str,
        digest: str,
        word: DecisionWord,
        *,
        by_user: str,
        roles: frozenset[str],
        reason: str,
        record: bytes,
    ) -> DecisionResult:
        """Returns whether this decision holds; who says the same thing twice is accepted twice.

        It is judged by the database's clock. An accepted first decision is recorded with `record`.
        """
        row = await self._database.row(
            _DECIDE,
            tenant,
            approval_id,
            digest,
            word,
            by_user,
            sorted(roles),
            clean(reason),
            record,
        )
        assert row is not None, "a function returns a row"
        return DecisionResult(accepted=row["accepted"], state=row["state"], reason=row["reason"])

    async def get(self, tenant: str, approval_id: str) -> Approval | None:
        """Returns the request as approvers see it, None if that tenant has none of that id."""
        row = await self._database.row(
            f"select {_COLUMNS} from runward.approval where tenant = $1 and id = $2",
            tenant,
            approval_id,
        )
        return None if row is None else _approval(row)

    async def list(
        self, tenant: str, state: ApprovalState | None = "pending", limit: int = 100
    ) -> tuple[Approval, ...]:
        """Returns the tenant's requests in that state (None: in any), newest first."""
        rows = await self._database.fetch(
            f"select {_COLUMNS} from runward.approval where tenant = $1"
            " and ($2::text is null or state = $2) order by created_at desc limit $3",
            tenant,
            state,
            limit,
        )
        return tuple(map(_approval, rows))

    async def of_run(self, tenant: str, run_id: str) -> tuple[Approval, ...]:
        """Returns the run's requests in any state, oldest first."""
        rows = await self._database.fetch(
            f"select {_COLUMNS} from runward.approval where tenant = $1 and run_id = $2"
            " order by created_at, id",
            tenant,
            run_id,
        )
        return tuple(map(_approval, rows))


def _approval(row: Row) -> Approval:
    return Approval.model_validate(dict(row))
