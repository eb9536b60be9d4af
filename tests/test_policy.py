"""Permissions as a pure decision, and the table of it that the documentation prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal
from runward.contracts.policy import (
    DEFAULTS,
    Mode,
    PerUserPermissions,
    Policy,
    StandardPermissions,
    Verdict,
)
from runward.contracts.tools import Effect, tool

TABLE = Path(__file__).parent.parent / "docs" / "permissions.md"


def judged(policy: Policy, *, tenant: str = "acme", user: str = "ada", **declared: Any) -> Verdict:
    """Returns the verdict on a tool that declares this."""

    def act() -> None: ...

    return policy.judge(tool(act, **declared), Principal(tenant, user))


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("effect", get_args(Effect))
def test_the_table_in_the_documentation_holds(mode: Mode, effect: Effect) -> None:
    rows = [line.strip("| ").split(" | ") for line in TABLE.read_text().splitlines()]
    row = next(cells for cells in rows if cells[0] == f"`{effect}`")

    said = row[1 + list(DEFAULTS).index(mode)]

    assert judged(StandardPermissions(mode=mode), effect=effect).word == said


def test_the_table_names_every_mode_in_order() -> None:
    assert "| effect | " + " | ".join(f"`{mode}`" for mode in DEFAULTS) in TABLE.read_text()


@pytest.mark.parametrize("mode", get_args(Mode))
def test_lists_hold_in_every_mode(mode: Mode) -> None:
    denied = judged(StandardPermissions(mode=mode, denied_tools=["act"], allowed_tools=["act"]))
    missing = judged(StandardPermissions(mode=mode, allowed_tools=["other"]))

    assert denied == Verdict("deny", "act: denied by policy", "denied_tools")
    assert missing == Verdict("deny", "act: not in allow-list", "allowed_tools")


@pytest.mark.parametrize(
    ("mode", "destructive", "required"),
    [
        ("plan", "deny", "deny"),
        ("default", "ask", "ask"),
        ("acceptEdits", "allow", "ask"),
        ("unattended", "deny", "deny"),
        ("bypassPermissions", "allow", "ask"),
    ],
)
def test_what_destroys_and_what_requires_approval(
    mode: Mode, destructive: str, required: str
) -> None:
    policy = StandardPermissions(mode=mode)

    assert judged(policy, destructive=True).word == destructive
    assert judged(policy, requires_approval=True).word == required


def test_a_question_says_why() -> None:
    policy = StandardPermissions()

    assert judged(policy, effect="money").reason == "act: money call requires approval"
    assert judged(policy, destructive=True).reason == "act: destructive call requires approval"


def test_each_user_has_a_policy_and_everybody_else_the_default() -> None:
    policy = PerUserPermissions({("acme", "ada"): StandardPermissions(mode="bypassPermissions")})

    assert judged(policy, effect="money").word == "allow"
    assert judged(policy, effect="money", user="bob").word == "ask"
    assert judged(policy, effect="money", tenant="evil").word == "ask", "another tenant's ada"
    assert policy.body != PerUserPermissions({}).body


def test_a_user_without_a_tenant_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="two tenants may have the same name"):
        PerUserPermissions({"ada": StandardPermissions()})  # type: ignore[dict-item]
