"""A provider's wish to wait: every form that was seen in the wild, and that none can hurt us."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runward.activities.retry_after import RETRY_AFTER_MAX_S, retry_after_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("86400", RETRY_AFTER_MAX_S),
        ("9" * 300, RETRY_AFTER_MAX_S),
        ("Thu, 01 Jan 2026 12:00:42 GMT", 42.0),
        ("Thursday, 01-Jan-26 12:00:42 GMT", 42.0),
        ("Thu Jan  1 12:00:42 2026", 42.0),
        ("Thu, 01 Jan 2026 13:00:42 +0100", 42.0),
        ("Fri, 01 Jan 2027 12:00:00 GMT", RETRY_AFTER_MAX_S),
        ("Thu, 01 Jan 2026 11:59:59 GMT", None),
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("1_0", None),
        ("\u0663", None),
        ("9" * 400, None),
        ("inf", None),
        ("Infinity", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        ("30, 30", None),
        ("2026-01-01T12:00:42Z", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999", None),
        ("Thu, 01 Jan 10000 12:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2300", None),
    ],
)
def test_each_form_of_retry_after(text: str, expected: float | None) -> None:
    assert expected == retry_after_s({"retry-after": text}, now=NOW)


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [("1500", 1.5), ("0.5", 0.0005), ("9000000", RETRY_AFTER_MAX_S), ("-1", 30.0), ("nan", 30.0)],
)
def test_milliseconds_win_where_they_are_usable(milliseconds: str, expected: float) -> None:
    headers = {"retry-after-ms": milliseconds, "retry-after": "30"}

    assert expected == retry_after_s(headers)


def test_azures_milliseconds_are_read_as_well() -> None:
    headers = {"x-ms-retry-after-ms": "1500", "retry-after": "2"}

    assert retry_after_s(headers) == 1.5
    assert retry_after_s({**headers, "retry-after-ms": "1200"}) == 1.2


def test_a_date_counts_from_the_providers_own_clock() -> None:
    """A worker whose clock is a year off waits as long as the others."""
    headers = {
        "retry-after": "Thu, 01 Jan 2026 12:00:42 GMT",
        "date": "Thu, 01 Jan 2026 12:00:00 GMT",
    }

    expected = 42.0
    assert expected == retry_after_s(headers, now=NOW.replace(year=2025))


def test_no_header_is_no_wish() -> None:
    assert retry_after_s({}) is None


HEADER = st.one_of(
    st.text(),
    st.floats().map(str),
    st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} (Jan|Feb) \d{1,6} \d{2}:\d{2}:\d{2} [-+]\d{1,9}"),
)


@given(HEADER, HEADER, HEADER)
def test_nothing_raises_and_nothing_leaves_the_bounds(one: str, two: str, three: str) -> None:
    found = retry_after_s({"retry-after": one, "retry-after-ms": two, "date": three})

    assert found is None or 0 <= found <= RETRY_AFTER_MAX_S
