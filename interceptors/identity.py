"""Identity: whose run a step belongs to. Learned once from a ticket, then from the store only.

An execution that the store does not know is described by the server: the same first run id makes it
the same run (continued, reset or retried), anything else is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cachetools import LRUCache, TTLCache
from temporalio.exceptions import ApplicationError

from runward.contracts import names
from runward.contracts.agents import Agent
from runward.contracts.audit import run_record
from runward.contracts.encoding import canonical, digest
from runward.contracts.errors import REFUSED, TicketRefused
from runward.contracts.identity import Issuer, Ticket, key_id, verify
from runward.contracts.policy import Policy
from runward.contracts.runs import RunRequest
from runward.contracts.shapes import Call, Later, Shape
from runward.contracts.steps import Opening, Run
from runward.store.pool import Store

RUNS_CACHED_MAX = 10_000
ISSUERS_CACHED_MAX = 1_000
ISSUERS_CACHED_S = 10.0  # misses no revocation: `step_open` looks at the row again
_START = "Start each run through a client of `acting_as`, which signs its ticket"
# The ids that our own interceptor gives to steps after the first: their run was known once. Whoever
# forges such an id waits for ever.
_LATER_STEP = re.compile(r"t1\.tool\.\d+|t(?!1\.)\d+\..+|a(?!1(:|$))\d+(:.*)?")


@dataclass(frozen=True, slots=True)
class Execution:
    """What the server says of an execution, which no client can write."""

    first_run_id: str
    kind: Literal["first", "continued", "reset", "retried"]


Describe = Callable[[str, str], Awaitable[Execution]]


class Identity:
    """Finds the run of a call, or opens one on a verified ticket."""

    def __init__(
        self, store: Store, describe: Describe, agents: Mapping[str, Agent[Any]], policy: Policy
    ) -> None:
        self._store = store
        self._describe = describe
        self._policy_body = canonical(policy.body)
        self._policy = digest(self._policy_body)
        self._snapshots = {name: canonical(one.snapshot) for name, one in agents.items()}
        self._pinned = {name: digest(one) for name, one in self._snapshots.items()}
        self._known: LRUCache[tuple[str, str], Run] = LRUCache(RUNS_CACHED_MAX)
        self._issuers: TTLCache[str, Issuer] = TTLCache(ISSUERS_CACHED_MAX, ISSUERS_CACHED_S)

    async def of(self, call: Call, shape: Shape) -> tuple[Run, Opening | None]:
        """Returns the run, and what opens it where this is its first step.

        Errors: a non-retryable ApplicationError where nobody can be proven to have started it.
        """
        header = call.headers.get(names.TICKET_HEADER)
        # With a ticket, a first attempt opens a run that the store does not know, almost always;
        # where it does know it, `step_open` compares the two.
        opens = header is not None and call.attempt == 1
        place = _place(call)
        run = self._known.get(place) if opens else await self._found(place)
        if run is not None:
            return run, None
        if header is not None:
            try:
                return await self._opening(call, shape, header)
            except TicketRefused as error:
                # A reset, a retry and a cron repeat the start's headers, long after it was valid.
                run = await self.run_of(*place)
                if run is None:
                    raise refused(str(error)) from None  # its cause is for nobody outside
                return run, None
        return await self.adopted(call), None

    async def run_of(self, workflow_id: str, run_id: str) -> Run | None:
        """Returns the run of an execution, also where it is a further one that did no step yet."""
        found = await self._found((workflow_id, run_id))
        return found or await self._continued(workflow_id, run_id)

    async def _found(self, key: tuple[str, str]) -> Run | None:
        """Returns the run of an execution that the store knows."""
        run = self._known.get(key)
        if run is None:
            run = await self._store.runs.find(*key)
            if run is not None:
                self._known[key] = run
        return run

    async def adopted(self, call: Call) -> Run:
        """Returns the run that an unknown execution continues, as the server describes it."""
        run = await self._continued(*_place(call))
        if run is None and _LATER_STEP.fullmatch(call.step):
            raise Later("the store does not know this run: wait, or ask whoever operates it")
        if run is None:
            raise refused(
                "this execution was not started with a ticket", "Start it with acting_as()"
            )
        return run

    async def _continued(self, workflow_id: str, run_id: str) -> Run | None:
        found = await self._describe(workflow_id, run_id)
        if found.kind == "first":
            return None
        if found.kind == "reset":
            await self._spared(workflow_id, found.first_run_id)
        run = await self._store.runs.adopt(workflow_id, run_id, found.first_run_id, found.kind)
        if run is not None:
            self._known[workflow_id, run_id] = run
        return run

    async def _spared(self, workflow_id: str, first_run_id: str) -> None:
        """Refuses the reset of a run that retention has reached.

        Its effects would happen a second time: what says that they happened is no longer there.
        """
        gone = await self._store.retention.since(workflow_id, first_run_id)
        if gone is not None:
            raise refused(
                f"retention deleted what this run did, from {gone:%Y-%m-%d %H:%M %Z} on;"
                " a reset could repeat its effects",
                "Start a new run",
            )

    def forget(self) -> None:
        """Empties the caches; the store still knows every run."""
        self._known.clear()
        self._issuers.clear()

    async def _opening(self, call: Call, shape: Shape, header: bytes) -> tuple[Run, Opening]:
        try:
            token = str(json.loads(header))
        except ValueError as error:
            raise TicketRefused("a ticket", "It is not text", _START) from error
        issuer = await self._issuer(key_id(token))
        ticket = verify(token, issuer, at=call.scheduled_at)
        asked = shape.opens(call)
        wanted = asked.digest if isinstance(asked, RunRequest) else asked
        if (ticket.operation, ticket.subject, ticket.digest) != ("start", call.workflow_id, wanted):
            raise TicketRefused("a ticket", "It was issued for another request", _START)
        return self._open(call, ticket, asked)

    async def _issuer(self, kid: str) -> Issuer | None:
        issuer = self._issuers.get(kid)
        if issuer is None:
            issuer = await self._store.issuers.find(kid)
            if issuer is not None:
                self._issuers[kid] = issuer
        return issuer

    def _open(self, call: Call, ticket: Ticket, asked: RunRequest | str) -> tuple[Run, Opening]:
        agent = asked.agent if isinstance(asked, RunRequest) else ""
        name = asked.agent if isinstance(asked, RunRequest) else call.workflow_type
        session = asked.session_id if isinstance(asked, RunRequest) else ""
        who = ticket.principal
        run = Run(
            tenant=who.tenant,
            run_id=call.run_id,
            workflow_id=call.workflow_id,
            user=who.user,
            roles=who.roles,
            agent=name,
            session=session,
            policy=self._policy,
        )
        now = datetime.now(UTC)
        started = run_record(
            "run_started", run, action=name, actor="user", at=now, digest=ticket.digest
        )
        opening = Opening(
            user=who.user,
            roles=tuple(sorted(who.roles)),
            agent=name,
            agent_digest=self._pinned.get(agent, ""),
            agent_snapshot=self._snapshots.get(agent, b""),
            policy=self._policy,
            policy_body=self._policy_body,
            session=session,
            request_digest=ticket.digest,
            kid=ticket.kid,
            jti=ticket.jti,
            record=started.leaf,
        )
        return run, opening


def _place(call: Call) -> tuple[str, str]:
    return call.workflow_id, call.run_id


def refused(holds: str, instead: str = "") -> ApplicationError:
    """Returns the error that ends an attempt for good, without an effect."""
    text = ". ".join(part for part in (f"refused: {holds}", instead) if part)
    return ApplicationError(text, type=REFUSED, non_retryable=True)
