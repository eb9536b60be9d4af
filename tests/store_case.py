"""Builds drafts and closes for one tenant, and looks into what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import asyncpg

from runward.contracts.approvals import DecisionResult, DecisionWord
from runward.contracts.budget import Bound, Bucket
from runward.contracts.steps import (
    Admitted,
    Answer,
    Asked,
    Close,
    Closed,
    Closing,
    Draft,
    Opening,
    Parent,
    StepKey,
    TranscriptRow,
)
from runward.contracts.transcript import GENESIS
from runward.store.pool import Store

CAP = 1_000


@dataclass
class Case:
    """One tenant with one run, unless a test says otherwise."""

    store: Store
    owner: asyncpg.Connection[asyncpg.Record]
    tenant: str
    run: str = field(default_factory=lambda: uuid4().hex)
    jti: str = field(default_factory=lambda: uuid4().hex)
    user: str = "ada"

    @property
    def workflow(self) -> str:
        return f"case-{self.run}"

    def another_run(self, **changes: Any) -> Case:
        """Returns a second run of the same tenant."""
        return replace(self, **({"run": uuid4().hex, "jti": uuid4().hex} | changes))

    def key(self, step: str, **changes: Any) -> StepKey:
        return StepKey(self.tenant, self.run, step, **changes)

    def opening(self) -> Opening:
        return Opening(
            user=self.user,
            roles=("clerk",),
            agent="support",
            agent_digest="agent-1",
            agent_snapshot=b"{}",
            policy="policy-1",
            policy_body=b"{}",
            session="",
            request_digest="request-1",
            kid="kid-1",
            jti=self.jti,
            record=b"run_started",
        )

    def draft(
        self, step: str = "t1.tool.1", *, epoch: int = 0, round: int = 0, **changes: Any
    ) -> Draft:
        """Returns an allowed, idempotent tool call without lineage; `changes` are of the Draft."""
        given: dict[str, Any] = {
            "key": self.key(step, epoch=epoch, round=round),
            "kind": "tool",
            "name": "refund",
            "digest": f"digest-of-{step}",
            "workflow_id": self.workflow,
            "execution_run_id": self.run,
            "attempt": 1,
            "nonce": uuid4().hex,
            "idempotent": True,
            "verdict": "allow",
            "approver_role": "finance",
            "intent": b"intent",
        }
        return Draft(**(given | changes))

    def first(self, **changes: Any) -> Draft:
        """Returns the model step that opens the run."""
        given: dict[str, Any] = {
            "kind": "model",
            "opening": self.opening(),
            "parent": Parent(head=GENESIS, messages=(("", "request-message"),)),
        }
        return self.draft("t1.model", **(given | changes))

    async def open(self, draft: Draft) -> Answer:
        return await self.store.steps.open(draft)

    async def admit(self, draft: Draft) -> Draft:
        answer = await self.open(draft)
        assert answer == Admitted(), answer
        return draft

    def ending(self, draft: Draft, outcome: bytes = b"outcome", **changes: Any) -> Close:
        given: dict[str, Any] = {
            "key": draft.key,
            "nonce": draft.nonce,
            "attempt": draft.attempt,
            "state": "done",
            "outcome": outcome,
            "record": b"outcome",
        }
        return Close(**(given | changes))

    async def close(self, draft: Draft, outcome: bytes = b"outcome", **changes: Any) -> Closed:
        return await self.store.steps.close(self.ending(draft, outcome, **changes))

    async def started(self, *grants: str) -> Draft:
        """Opens the run with a model step that is done and granted these calls."""
        draft = await self.admit(self.first())
        row = TranscriptRow("head-1", GENESIS, "message-1", b"hello", 5)
        await self.close(
            draft, b"answer 1", head="head-1", message="message-1", grants=grants, transcript=(row,)
        )
        return draft

    async def asked(self, draft: Draft) -> Asked:
        answer = await self.open(draft)
        assert isinstance(answer, Asked), answer
        return answer

    async def decide(
        self, asked: Asked, word: DecisionWord = "approve", **changes: Any
    ) -> DecisionResult:
        given: dict[str, Any] = {
            "by_user": "bob",
            "roles": frozenset({"finance"}),
            "reason": "checked",
            "record": b"approval",
        }
        digest = changes.pop("digest", asked.request.digest)
        return await self.store.approvals.decide(
            self.tenant, asked.request.id, digest, word, **(given | changes)
        )

    def closing(self, state: str = "answered") -> Closing:
        return Closing(state, "", "result-1", b"run_ended")

    async def audit(self) -> list[tuple[str, str, bool]]:
        """Returns kind, step and lateness of the tenant's audit records, in order."""
        rows = await self.owner.fetch(
            "select kind, step, late from runward.audit_record where tenant = $1 order by seq",
            self.tenant,
        )
        return [tuple(row) for row in rows]

    async def states(self, column: str, table: str, order: str) -> list[Any]:
        rows = await self.owner.fetch(
            f"select {column} from runward.{table} where tenant = $1 order by {order}", self.tenant
        )
        return [row[0] for row in rows]

    async def holds(self) -> list[str]:
        """Returns the states of the tenant's holds in the order of their admission."""
        found: list[str] = await self.states("state", "hold", "created_at, nonce")
        return found

    async def counters(self, dimension: str = "calls") -> tuple[int, int, int]:
        """Returns held, settled and overrun over all buckets of that dimension."""
        row = await self.owner.fetchrow(
            "select coalesce(sum(held), 0)::bigint, coalesce(sum(settled), 0)::bigint,"
            " coalesce(sum(overrun), 0)::bigint from runward.bucket"
            " where tenant = $1 and dimension = $2",
            self.tenant,
            dimension,
        )
        assert row is not None
        return row[0], row[1], row[2]


def tokens(case: Case, amount: int, cap: int = CAP, **changes: Any) -> dict[str, Any]:
    """Returns the budget's fields of a draft: one bucket of the user's for that many tokens."""
    bucket = Bucket("user", case.user, "tokens", "day", cap)
    return {"bound": Bound(output_tokens=amount), "buckets": (bucket,)} | changes
