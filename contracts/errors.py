"""The errors that users see, and the type strings by which errors are known across Temporal.

RunwardError
├── ConfigurationError    a definition or a setting that cannot work
├── RequestRefused        the door said no: too large, key reused, unknown agent
├── TicketRefused         who asks could not be proven, or may not
├── ApprovalRefused       a decision that does not hold
├── StoreUnavailable      the store is away; the work waits and is tried again
└── AgentError            a run that ended without an answer
"""

from __future__ import annotations

# Type strings of ApplicationErrors, which survive the way through Temporal's history.
NEEDS_APPROVAL = "runward.NeedsApproval"
DENIED = "runward.Denied"
OVER_BUDGET = "runward.OverBudget"
UNKNOWN_EFFECT = "runward.UnknownEffect"
FAILED = "runward.Failed"
REFUSED = "runward.Refused"
WAITING = "runward.Waiting"
AGENT_ERROR = "runward.AgentError"


class RunwardError(Exception):
    """An error in three parts: what was asked, what holds, what to do instead."""

    def __init__(self, asked: str, holds: str = "", instead: str = "") -> None:
        self.asked, self.holds, self.instead = asked, holds, instead
        super().__init__(". ".join(part.rstrip(".") for part in (asked, holds, instead) if part))


class ConfigurationError(RunwardError):
    """A definition or a setting that cannot work."""


class RequestRefused(RunwardError):
    """A request that the door refused; nothing was started."""


class TicketRefused(RunwardError):
    """A caller who could not be proven, or who may not do this."""


class ApprovalRefused(RunwardError):
    """A decision on an approval request that does not hold."""


class StoreUnavailable(RunwardError):
    """The store did not answer; nothing ran, and the attempt will be repeated."""


class AgentError(RunwardError):
    """A run that ended without an answer."""
