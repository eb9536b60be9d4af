"""Users' own activities, governed without a change to them."""

from __future__ import annotations

from typing import Any

from temporalio import activity

from runward.contracts.budget import Bound
from runward.contracts.encoding import clean, digest, digest_of
from runward.contracts.outcomes import Denied, Failed, ToolDone, Unknown
from runward.contracts.runs import RunRequest
from runward.contracts.shapes import Call, Ended, Facts
from runward.contracts.steps import Run
from runward.contracts.tools import Tool
from runward.interceptors.answers import pack

ARGUMENTS_SHOWN_CHARS = 4096


class ForeignCall:
    """One governed activity type of a user's own workflow."""

    foreign = True

    def __init__(self, tool: Tool) -> None:
        self._tool = tool

    def opens(self, call: Call) -> RunRequest | str:
        """Returns the digest that a ticket for this workflow type names."""
        return digest_of({"workflow": call.workflow_type})

    async def facts(self, run: Run, call: Call) -> Facts:
        """Returns the tool, and a digest over the type and the arguments' bytes."""
        payloads = activity.payload_converter().to_payloads(list(call.args))
        data = b"\x1f".join(one.SerializeToString(deterministic=True) for one in payloads)
        shown = clean(b", ".join(one.data for one in payloads).decode("utf-8", "replace"))
        return Facts(
            kind="activity",
            name=self._tool.name,
            digest=digest(call.activity_type.encode() + b"\x1f" + data),
            tool=self._tool,
            arguments=shown[:ARGUMENTS_SHOWN_CHARS],
        )

    async def redefined(self, run: Run, facts: Facts) -> str:
        """Returns nothing: the digest holds the type and the arguments only."""
        return ""

    def waits(self, run: Run) -> None:
        """Does nothing: nothing is kept of a user's own workflow."""

    def ended(self, run: Run, call: Call, facts: Facts, result: Any) -> Ended:
        """Returns the value's payload as the outcome; the user's own converter made it."""
        if isinstance(result, Denied | Failed | Unknown):
            return Ended(result, Bound())
        return Ended(ToolDone(text=pack(result)), Bound())
