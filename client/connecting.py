"""Connects to Temporal, and tells what keeps from it in words for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from temporalio.client import Client

from runward.contracts.errors import ConfigurationError, RunwardError, TemporalUnavailable

REASON_CHARS_MAX = 200
# The SDK has one error for all, with the reason in its text.
_AWAY = ("transport error", "transport::Error", "Unavailable", "DeadlineExceeded", "Cancelled")
_REASON = re.compile(r'(?:message|error): "([^"]+)"')  # the innermost is what the system said
# Of these the SDK tells its own structures, and no waiting mends them.
_NO_TLS = "InvalidContentType"
_CERTIFICATE = re.compile(r"InvalidCertificate\((\w+)")


async def connected(
    options: Mapping[str, Any],
    *,
    fix: str = "Start `runward dev`, or correct TEMPORAL_ADDRESS",
    **more: Any,
) -> Client:
    """Returns a client with the options of `temporal_connection`.

    Raises TemporalUnavailable where nobody answers, ConfigurationError for what no waiting mends;
    both say `fix` where that is what to do.
    """
    try:
        return await Client.connect(**options, **more)
    except (RuntimeError, OSError, ValueError) as error:
        away = any(word in str(error) for word in _AWAY)
        raise _unreached(options["target_host"], error, fix, away=away) from error


def reason(error: BaseException) -> str:
    """Returns why there is no connection, in a line."""
    text = str(error) or type(error).__name__
    if _NO_TLS in text:
        return "It does not speak TLS"
    if refused := _CERTIFICATE.search(text):
        return f"Its certificate is not accepted here: {refused[1]}"
    found = _REASON.findall(text)
    return str(found[-1]) if found else text.splitlines()[0][:REASON_CHARS_MAX]


def _unreached(host: str, error: BaseException, fix: str, *, away: bool) -> RunwardError:
    asked, holds = f"Temporal at {host!r}", reason(error)
    if _NO_TLS in str(error) or _CERTIFICATE.search(str(error)):
        instead = "Correct TEMPORAL_TLS*, or TEMPORAL_ADDRESS; an API key asks for TLS, too"
        return ConfigurationError(asked, holds, instead)
    kind = TemporalUnavailable if away else ConfigurationError
    return kind(asked, holds, fix)
