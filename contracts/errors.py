"""The errors that users see, and the type strings by which errors are known across Temporal.

RunwardError
├── ConfigurationError    a definition or a setting that cannot work
├── RequestRefused        the door said no: too large, key reused, unknown agent
│   └── NotFound          ... or asks about what this tenant does not have
├── TicketRefused         who asks could not be proven, or may not
├── ApprovalRefused       a decision that does not hold
├── StoreUnavailable      the store is away; the work waits and is tried again
├── TemporalUnavailable   Temporal is away; nobody knows whether it got the request
└── AgentError            a run that ended without an answer
    └── OutputValidationError    its last answer is not of the agent's output type
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar, NamedTuple

# Type strings of ApplicationErrors, which survive the way through Temporal's history.
NEEDS_APPROVAL = "runward.NeedsApproval"
DENIED = "runward.Denied"
OVER_BUDGET = "runward.OverBudget"
UNKNOWN_EFFECT = "runward.UnknownEffect"
FAILED = "runward.Failed"
REFUSED = "runward.Refused"
WAITING = "runward.Waiting"
AGENT_ERROR = "runward.AgentError"
OUTPUT_VALIDATION_ERROR = "runward.OutputValidationError"

PROBLEMS_SHOWN = 5  # in the text of an OutputValidationError

_ROOM = "Make room there, or name another place"
_RIGHT = "Give this user the right to it, or name another place"
_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHT),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR), "Name another"),
}


class RunwardError(Exception):
    """An error in three parts: what was asked, what holds, what to do instead.

    `code` is stable: docs/errors has a page for each. `traceback` is that of a user's own module,
    without our frames, where that module is what raised.
    """

    code: ClassVar[str] = "RW-ERROR"
    traceback: str = ""

    def __init__(self, asked: str, holds: str = "", instead: str = "") -> None:
        self.asked, self.holds, self.instead = asked, holds, instead
        text = ""
        for part in (asked, holds, instead):
            if text and part:
                text += " " if text.endswith(("?", "!")) else ". "
            text += part.rstrip(".")
        super().__init__(text)


class ConfigurationError(RunwardError):
    """A definition or a setting that cannot work."""

    code = "RW-CONFIGURATION"


class RequestRefused(RunwardError):
    """A request that the door refused; nothing was started."""

    code = "RW-REQUEST"


class NotFound(RequestRefused):
    """A request about something that is not there, or that belongs to another tenant."""

    code = "RW-NOT-FOUND"


class TicketRefused(RunwardError):
    """A caller who could not be proven, or who may not do this."""

    code = "RW-TICKET"


class ApprovalRefused(RunwardError):
    """A decision on an approval request that does not hold."""

    code = "RW-APPROVAL"


class StoreUnavailable(RunwardError):
    """The store did not answer; nothing ran, and the attempt will be repeated."""

    code = "RW-STORE"


class TemporalUnavailable(RunwardError):
    """Temporal did not answer; whether it got the request, asking again will tell."""

    code = "RW-TEMPORAL"


class AgentError(RunwardError):
    """A run that ended without an answer."""

    code = "RW-AGENT"


class OutputProblem(NamedTuple):
    """One thing that is wrong with an answer: where, in words, and pydantic's name for it."""

    location: str  # such as `items.0.price`; "" is the whole answer
    message: str
    kind: str


class OutputValidationError(AgentError):
    """A run whose answer is not of the agent's output type, nor was it after its repair.

    `received` is the last answer as the model wrote it, `problems` says what is wrong with it,
    `expected` is the JSON schema that it was judged by, None where that is not known here. The
    error's own text holds places and names only, never what the model wrote.
    """

    code = "RW-OUTPUT"

    def __init__(
        self,
        asked: str,
        *,
        received: str,
        problems: tuple[OutputProblem, ...],
        expected: dict[str, Any] | None,
    ) -> None:
        self.received, self.problems, self.expected = received, problems, expected
        shown = [f"{one.location or 'the answer'} ({one.kind})" for one in problems]
        more = len(shown) - PROBLEMS_SHOWN
        super().__init__(
            asked,
            "It does not fit, and did not before its repair: "
            + ", ".join(shown[:PROBLEMS_SHOWN])
            + (f" and {more} more" if more > 0 else ""),
            "Read .received, .problems and .expected; clearer instructions or a simpler type help",
        )


def said(error: BaseException) -> str:
    """Returns what a command prints when it ends with this error: one message, with its code.

    Before it comes the traceback of a user's own module, if that raised.
    """
    code = f" [{error.code}]" if isinstance(error, RunwardError) else ""
    traceback = error.traceback if isinstance(error, RunwardError) else ""
    return f"{traceback}Error: {_text(error)}{code}"


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno in _ADVICE:
        place = "" if error.filename is None else repr(str(error.filename))
        return str(RunwardError(place, error.strerror or "", _ADVICE[error.errno]))
    return str(error) or type(error).__name__
