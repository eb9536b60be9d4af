"""Times and spans of time: how every command prints them, and how it takes them.

What is printed is UTC, always: runs, approvals and workers are in as many zones as their people.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
_SPAN = re.compile(f"(?:{_PART.pattern})+", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)

SPAN_SAYS = "90s, 5m, 1h30m or 2d; units are ms, s, m, h, d, w"


def text(at: datetime) -> str:
    """Returns a time as people read it: UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def clock(at: datetime) -> str:
    """Returns the time of day alone, for lines that follow each other."""
    return text(at).partition(" ")[2]


def rfc3339(at: datetime) -> str:
    """Returns a time as programs read it: RFC 3339 in UTC, to the microsecond."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment(given: str) -> datetime:
    """Returns the time that was typed: RFC 3339, a date, or how long ago it is, such as 2h.

    What names no zone is UTC, as all that is printed; so that can be typed as it was printed.
    """
    try:
        if _SPAN.fullmatch(given):
            return datetime.now(UTC) - _span(given)
        found = datetime.fromisoformat(given)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{given!r} is no time. Say 2026-11-21, 2026-11-21T17:30:00Z, or how long ago: "
            f"{SPAN_SAYS}"
        ) from None


def seconds(given: str) -> float:
    """Returns the span that was typed, such as 5m, in seconds; a number alone is seconds."""
    try:
        span = f"{given}s" if _NUMBER.fullmatch(given) else given
        if _SPAN.fullmatch(span):
            return _span(span).total_seconds()
    except OverflowError:
        pass
    raise typer.BadParameter(f"{given!r} is no span of time. Say seconds, or {SPAN_SAYS}")


def _span(given: str) -> timedelta:
    return sum((float(number) * _UNITS[unit] for number, unit in _PART.findall(given)), timedelta())
