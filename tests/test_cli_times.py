"""Times on the command line: one way to print them, one way to take them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
import typer

from runward.cli import output, times

AT = datetime(2026, 11, 21, 17, 30, tzinfo=UTC)
# Beside what is misspelled: digits that are not ASCII, and what no calendar holds.
NEITHER = ["", "nonsense", "2 h", "-2h", "2H", "2h ago", "h", "٣d", "9" * 12 + "w", "9" * 400 + "s"]
TOKYO = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("given", "at"),
    [
        ("2026-11-21T17:30:00Z", AT),
        ("2026-11-22T02:30:00+09:00", AT),
        ("2026-11-21T17:30", AT),
        ("2026-11-21 17:30:00Z", AT),
        ("2026-11-21", AT.replace(hour=0, minute=0)),
    ],
)
def test_a_time_is_taken_as_it_is_written(given: str, at: datetime) -> None:
    found = times.moment(given)

    assert (found, found.utcoffset()) == (at, timedelta(0))


@pytest.mark.parametrize(
    ("given", "ago"),
    [
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1h30m", timedelta(minutes=90)),
        ("1w1.5d", timedelta(days=8.5)),
        ("250ms", timedelta(milliseconds=250)),
    ],
)
def test_a_time_can_be_said_as_how_long_ago_it_is(given: str, ago: timedelta) -> None:
    before = datetime.now(UTC)
    found = times.moment(given)

    assert before <= found + ago <= datetime.now(UTC)
    assert times.seconds(given) == ago.total_seconds()


@pytest.mark.parametrize("given", [*NEITHER, "2", "2026-13-01", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused_with_what_is_one(given: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"Say 2026-11-21, .* how long ago: 90s"):
        times.moment(given)


@pytest.mark.parametrize("given", [*NEITHER, "-1", "nan", "inf", "1e3", "1:30"])
def test_what_is_no_span_is_refused_with_what_is_one(given: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"is no span of time\. Say seconds, or 90s"):
        times.seconds(given)


def test_a_number_is_a_span_in_seconds() -> None:
    assert (times.seconds("30"), times.seconds("0.2"), times.seconds("0")) == (30, 0.2, 0)


def test_a_time_is_printed_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"at": AT.astimezone(TOKYO), "more": [AT.replace(microsecond=5)]}
    output.data(row, "text")
    output.data(row, "jsonl")
    text, printed = capsys.readouterr().out.split("\n{")

    assert text == "at    2026-11-21 17:30:00Z\nmore  2026-11-21 17:30:00Z"
    assert json.loads("{" + printed) == {
        "at": "2026-11-21T17:30:00Z",
        "more": ["2026-11-21T17:30:00.000005Z"],
    }
    assert times.moment("2026-11-21 17:30:00Z") == AT
    assert times.clock(AT.astimezone(TOKYO)) == "17:30:00Z"
