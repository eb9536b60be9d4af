"""For how long requests and approvals hold: a setting of the app, within bounds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from runward.contracts.approvals import ApprovalTerms
from runward.contracts.errors import ConfigurationError
from runward.workers.plugin import RunwardPlugin


@pytest.mark.parametrize("name", ["approval_ttl", "execution_ttl"])
@pytest.mark.parametrize(
    "wrong",
    [
        timedelta(0),
        timedelta(hours=-1),
        timedelta(milliseconds=999),
        timedelta(days=30, microseconds=1),
        3600,
        None,
    ],
)
def test_a_time_that_cannot_work_is_refused(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        RunwardPlugin(**{name: wrong})

    assert str(refusal.value) == (
        f"{name}={wrong!r}. It is a timedelta from 1 second to 30 days."
        " Say for example timedelta(hours=24)"
    )


@pytest.mark.parametrize("right", [timedelta(seconds=1), timedelta(days=30)])
def test_the_bounds_themselves_are_taken(right: timedelta) -> None:
    terms = ApprovalTerms(approval_ttl=right, execution_ttl=right)

    assert (terms.approval_ttl, terms.execution_ttl) == (right, right)


def test_unset_a_request_waits_a_day_and_an_approval_holds_for_an_hour() -> None:
    terms = ApprovalTerms()

    assert (terms.approval_ttl, terms.execution_ttl) == (timedelta(hours=24), timedelta(hours=1))
