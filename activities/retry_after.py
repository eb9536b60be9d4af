"""How long a provider asks us to wait, read from its headers.

Whatever the headers hold, this never raises and never returns a delay that a timer cannot take:
a header is input from outside, and a wrong one must cost us our own backoff at most.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRY_AFTER_MAX_S = (
    900.0  # a longer wait is asked for again after it, so a mistake costs 15 minutes
)

_IN_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms")  # the second is Azure's
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")  # no sign, no exponent, no inf, no nan


def retry_after_s(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Returns the seconds to wait, from 0 to RETRY_AFTER_MAX_S, or None if nothing usable is said.

    `headers` finds a name whatever its case, or has lower-case names. Milliseconds win, being
    finer. A date counts from the response's own `date`, so that our clock does not matter; without
    one from `now`, the present by default. A date in the past is dropped like a negative number:
    it is more likely a wrong clock than a wish to be called at once.
    """
    for name in _IN_MILLISECONDS:
        milliseconds = _decimal(headers.get(name))
        if milliseconds is not None:
            return min(milliseconds / 1000, RETRY_AFTER_MAX_S)
    text = headers.get("retry-after")
    seconds = _decimal(text)
    if seconds is None:
        seconds = _until(_date(text), _date(headers.get("date")) or now or datetime.now(UTC))
    return None if seconds is None else min(seconds, RETRY_AFTER_MAX_S)


def _decimal(text: str | None) -> float | None:
    if text is None or not _DECIMAL.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _until(date: datetime | None, now: datetime) -> float | None:
    """Returns the seconds from `now` to `date`, None if that is not ahead."""
    seconds = None if date is None else (date - now).total_seconds()
    return seconds if seconds is not None and seconds >= 0 else None


def _date(text: str | None) -> datetime | None:
    """Returns an HTTP date (any of the three forms of RFC 9110) as an aware datetime."""
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
        # asctime's form has no zone; an HTTP date is always in UTC.
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
