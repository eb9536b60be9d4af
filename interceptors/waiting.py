"""Waiting for a person, inside the workflow: durable, and without a worker slot.

Works for `AgentRun` and for users' own workflows alike: the handlers are set by the interceptor.
A handler only wakes; the store decides, and the step asks the store again. So does a reset: what
was asked before it is void, so every step that waits is called again, which makes a new request.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar, get_type_hints

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError

from runward.contracts import names
from runward.contracts.approvals import ApprovalRequest, Decision, DecisionResult
from runward.contracts.errors import REFUSED
from runward.contracts.wire import JSON_PLAIN, decode_wire, encode_wire
from runward.workflows.shown_state import show_state

DECIDE_TIMEOUT = timedelta(seconds=30)
DECIDE_RETRY = RetryPolicy(maximum_interval=timedelta(seconds=15))
DECISIONS_BEFORE_REQUEST_MAX = 1000
SHOWN_MAX = 10  # requests in Temporal's UI, of those that one execution waits for

Function = TypeVar("Function", bound=Callable[..., Any])


def _typed(function: Function) -> Function:
    """Resolves a handler's types now: the SDK reads them again for every run that sets it."""
    function.__annotations__ = get_type_hints(function)
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return function


class Waiting:
    """The approval requests that one execution waits for."""

    def __init__(self) -> None:
        self._pending: dict[str, ApprovalRequest] = {}
        self._decided: set[str] = set()
        self._said = ""  # the workflow's own details, below which stands what is waited for
        self._shown = ""
        self.resets = 0  # of this execution's history, the same in every replay

    def listen(self) -> None:
        """Sets the doors for decisions: an update that validates and answers, and a signal."""
        workflow.set_update_handler(
            names.DECIDE_UPDATE, self._on_update, validator=self._check_update
        )
        workflow.set_signal_handler(names.DECISION_SIGNAL, self._on_signal)
        workflow.set_query_handler(names.PENDING_QUERY, self._on_query)
        # The one sign of a reset that replays: the server gives a new seed then, and only then.
        workflow.register_random_seed_callback(self._on_reset)

    def _on_reset(self, _: int) -> None:
        self.resets += 1

    async def until_decided(self, request: ApprovalRequest, resets: int) -> None:
        """Waits until the request is decided or expired, or the history reset.

        `resets` are those that were counted when the step that asks was scheduled.
        """
        if self.resets != resets:
            return
        self._pending[request.id] = request
        self._show()
        show_state("waiting")
        try:
            await workflow.wait_condition(
                lambda: request.id in self._decided or self.resets != resets,
                timeout=max(request.expires_at - workflow.now(), timedelta(seconds=1)),
                timeout_summary=f"approval expires: {request.title}",
            )
        except TimeoutError:
            pass  # the step asks the store again, which records the expiry
        except asyncio.CancelledError:
            self._over(request)
            raise
        self._over(request)  # not in a `finally`: that also runs where the workflow is thrown away

    def _over(self, request: ApprovalRequest) -> None:
        del self._pending[request.id]
        # A decision wakes once. What it is worth the store says, and may ask again.
        self._decided.discard(request.id)
        self._show()
        if not self._pending:
            show_state(None)

    def _show(self) -> None:
        """Shows what is waited for in Temporal's UI, below what the workflow says; no event."""
        details = workflow.get_current_details()
        if details != self._shown:
            self._said = details
        self._shown = self._said + _waiting_for(self._pending)
        workflow.set_current_details(self._shown)

    def _check_update(self, value: RawValue) -> None:
        decision = _decision(value)
        if decision.approval_id not in self._pending:
            raise ApplicationError(
                f"approval {decision.approval_id!r} is not pending here", type=REFUSED
            )

    @_typed
    async def _on_update(self, value: RawValue) -> RawValue:
        result = await self._decide(_decision(value))
        return _raw(encode_wire(result))

    @_typed
    async def _on_signal(self, value: RawValue) -> None:
        try:
            decision = _decision(value)
        except ApplicationError:
            return  # malformed: never a decision, and no reason to fail the run
        if len(self._decided) < DECISIONS_BEFORE_REQUEST_MAX:
            await self._decide(decision)

    async def _decide(self, decision: Decision) -> DecisionResult:
        answer = await workflow.execute_activity(
            names.DECIDE_APPROVAL,
            _raw(encode_wire(decision)),
            result_type=RawValue,
            start_to_close_timeout=DECIDE_TIMEOUT,
            retry_policy=DECIDE_RETRY,
            summary="decide approval",
        )
        result = decode_wire(DecisionResult, answer.payload.data)
        if result.state != "pending":
            self._decided.add(decision.approval_id)
        return result

    @_typed
    def _on_query(self) -> RawValue:
        rows = b",".join(encode_wire(one) for one in self._pending.values())
        return _raw(b"[" + rows + b"]")


def _waiting_for(pending: Mapping[str, ApprovalRequest]) -> str:
    # Temporal's UI makes the frame too low by a line of text, so the last one is empty.
    told = [
        f"\n\n**Waiting for approval** until {one.expires_at:%Y-%m-%d %H:%M} UTC"
        f"\n\n{one.title}\n\n`runward approvals show {one.id}`"
        for one in islice(pending.values(), SHOWN_MAX)
    ]
    if len(pending) > SHOWN_MAX:
        told.append(f"\n\nand {len(pending) - SHOWN_MAX} more")
    return "".join([*told, "\n\n\N{NO-BREAK SPACE}"]) if told else ""


def _decision(value: RawValue) -> Decision:
    try:
        return decode_wire(Decision, value.payload.data)
    except ValueError as error:
        raise ApplicationError("not a decision", type=REFUSED) from error


def _raw(data: bytes) -> RawValue:
    return RawValue(Payload(metadata=JSON_PLAIN, data=data))
