"""How an outcome leaves the worker: as a union from our activities, as a value from users'."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from runward.contracts.errors import (
    DENIED,
    FAILED,
    NEEDS_APPROVAL,
    OVER_BUDGET,
    UNKNOWN_EFFECT,
    WAITING,
)
from runward.contracts.outcomes import (
    Denied,
    Failed,
    NeedsApproval,
    OverBudget,
    ToolDone,
    Unknown,
    decode_outcome,
)
from runward.contracts.wire import JSON_PLAIN, encode_wire


def own(outcome: bytes) -> RawValue:
    """Returns the exact bytes that the store recorded, as the activity's result."""
    return RawValue(Payload(metadata=JSON_PLAIN, data=outcome))


def foreign(outcome: bytes) -> RawValue:
    """Returns the bare value of a user's activity; raises an ApplicationError for every refusal."""
    found = decode_outcome(outcome)
    match found:
        case ToolDone(text=str(text)):
            return RawValue(Payload.FromString(base64.b64decode(text)))
        case Denied(reason=reason):
            raise _final(f"DENIED: {reason}", DENIED)
        case Failed(reason=reason):
            raise _final(reason, FAILED)
        case Unknown(reason=reason):
            raise _final(reason, UNKNOWN_EFFECT)
        case OverBudget(reason=reason):
            raise _final(reason, OVER_BUDGET)
        case NeedsApproval(request=request):
            raise _final(request.title, NEEDS_APPROVAL, encode_wire(request).decode())
        case _:
            raise TypeError(f"{type(found).__name__} is no outcome of a user's activity")


def pack(value: Any) -> str:
    """Returns the value as an outcome's text: the payload that the user's converter makes of it."""
    payload = activity.payload_converter().to_payloads([value])[0]
    return base64.b64encode(payload.SerializeToString()).decode()


def later(reason: str, delay_s: float | None = None) -> ApplicationError:
    """Returns a retryable failure: nothing happened, the reason shows on the pending activity."""
    delay = None if delay_s is None else timedelta(seconds=max(delay_s, 0))
    return ApplicationError(reason, type=WAITING, next_retry_delay=delay)


def _final(text: str, kind: str, *details: str) -> ApplicationError:
    return ApplicationError(
        text, *details, type=kind, non_retryable=True, category=ApplicationErrorCategory.BENIGN
    )
