"""Every payload of a recorded history, where it stands, and which wire type is read there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from runward.contracts import names
from runward.contracts.approvals import Decision, DecisionResult
from runward.contracts.runs import (
    CloseResult,
    CloseStep,
    InvalidEnd,
    ModelStep,
    RunEnd,
    RunInput,
    ToolStep,
)
from tests.record_histories import HISTORIES

NOT_OURS = ("memo", "userMetadata", "searchAttributes")  # texts and labels: nothing reads them back
INPUTS: dict[str, type[BaseModel]] = {
    names.CALL_MODEL: ModelStep,
    names.CLOSE_RUN: CloseStep,
    names.DECIDE_APPROVAL: Decision,
}
RESULTS: dict[str, type[BaseModel]] = {
    names.CLOSE_RUN: CloseResult,
    names.DECIDE_APPROVAL: DecisionResult,
}


class Step(NamedTuple):
    """One activity of ours: its type, its id, what it was given and what came of it."""

    activity: str
    step: str
    given: bytes
    came: bytes | None


def payloads(found: Any, at: str = "") -> Iterator[tuple[str, bytes]]:
    """Yields place and bytes of all payloads below a part of a history."""
    if isinstance(found, list):
        for one in found:
            yield from payloads(one, at)
    elif isinstance(found, dict) and "metadata" in found and "data" in found:
        yield at, base64.b64decode(found["data"])
    elif isinstance(found, dict):
        for name, one in found.items():
            if name not in NOT_OURS:
                yield from payloads(one, f"{at}/{name}" if at else name)


def read(name: str) -> list[dict[str, Any]]:
    """Returns the events of a committed history."""
    events: list[dict[str, Any]] = json.loads(path(name).read_text(encoding="utf-8"))["events"]
    return events


def started(name: str) -> bytes:
    """Returns what the execution was started with."""
    began = read(name)[0]["workflowExecutionStartedEventAttributes"]
    return next(payloads(began["input"]))[1]


def path(name: str) -> Path:
    """Returns the file of a committed history."""
    return HISTORIES / f"{name}.json"


def steps(name: str) -> list[Step]:
    """Returns the activities of a history in the order in which they were scheduled."""
    events = read(name)
    came = {
        one["scheduledEventId"]: next(payloads(one))[1]
        for event in events
        if (one := event.get("activityTaskCompletedEventAttributes"))
    }
    return [
        Step(
            one["activityType"]["name"],
            one["activityId"],
            next(payloads(one["input"]))[1],
            came.get(event["eventId"]),
        )
        for event in events
        if (one := event.get("activityTaskScheduledEventAttributes"))
    ]


def input_type(activity: str) -> type[BaseModel]:
    """Returns what an activity of ours is given."""
    return ToolStep if activity.startswith(names.TOOL_PREFIX) else INPUTS[activity]


ELSEWHERE: dict[str, type[BaseModel]] = {
    "workflowExecutionStartedEventAttributes/input/payloads": RunInput,
    "workflowExecutionContinuedAsNewEventAttributes/input/payloads": RunInput,
    "workflowExecutionCompletedEventAttributes/result/payloads": RunEnd,
    "workflowExecutionSignaledEventAttributes/input/payloads": Decision,
    "workflowExecutionUpdateAdmittedEventAttributes/request/input/args/payloads": Decision,
    "workflowExecutionUpdateAcceptedEventAttributes/acceptedRequest/input/args/payloads": Decision,
    "workflowExecutionFailedEventAttributes/failure/applicationFailureInfo/details/payloads": (
        InvalidEnd
    ),
    "workflowExecutionUpdateCompletedEventAttributes/outcome/success/payloads": DecisionResult,
}
