"""Permissions as a pure decision, and the table of it that the documentation prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from runward.contracts.agents import Agent
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal
from runward.contracts.policy import (
    DEFAULTS,
    Mode,
    PerUserPermissions,
    Policy,
    StandardPermissions,
    Verdict,
    misnamed,
    version,
)
from runward.contracts.tools import Effect, tool

SUPPORT: Agent[str] = Agent("support", model="scripted:shop")
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


@pytest.mark.parametrize(
    ("given", "reason", "rule"),
    [
        ({}, "", "agent"),
        ({"allowed_agents": ["support"], "allowed_models": ["scripted:shop"]}, "", "agent"),
        (
            {"denied_agents": ["support"], "allowed_agents": ["support"]},
            "support: denied by policy (denied_agents)",
            "denied_agents",
        ),
        (
            {"allowed_agents": ["billing"]},
            "support: not in allow-list (allowed_agents)",
            "allowed_agents",
        ),
        ({"allowed_agents": []}, "support: not in allow-list (allowed_agents)", "allowed_agents"),
        (
            {"allowed_models": ["scripted:other", "shop"]},
            "scripted:shop: not in allow-list (allowed_models)",
            "allowed_models",
        ),
    ],
)
@pytest.mark.parametrize("mode", get_args(Mode))
def test_who_may_run_which_agent_with_which_model(
    mode: Mode, given: dict[str, Any], reason: str, rule: str
) -> None:
    """In every mode; the rule that decides is named."""
    verdict = StandardPermissions(mode=mode, **given).judge_agent(
        SUPPORT, SUPPORT.model, Principal("acme", "ada")
    )

    assert verdict == Verdict("deny" if reason else "allow", reason, rule)


def test_the_model_that_is_asked_is_judged_not_the_agents_own() -> None:
    policy = StandardPermissions(allowed_models=[SUPPORT.model])

    verdict = policy.judge_agent(SUPPORT, "scripted:fallback", Principal("acme", "ada"))

    assert (verdict.word, verdict.rule) == ("deny", "allowed_models")
    assert verdict.reason == "scripted:fallback: not in allow-list (allowed_models)"


def test_each_user_may_run_what_its_own_policy_allows() -> None:
    own = StandardPermissions(allowed_agents=["support"])
    policy = PerUserPermissions(
        {("acme", "ada"): own}, default=StandardPermissions(allowed_agents=[])
    )
    words = [
        policy.judge_agent(SUPPORT, SUPPORT.model, Principal(tenant, user)).word
        for tenant, user in (("acme", "ada"), ("acme", "bob"), ("evil", "ada"))
    ]

    assert words == ["allow", "deny", "deny"]


def test_versions_of_policies_that_say_nothing_of_agents_stay() -> None:
    """Runs are pinned to them, and records name them."""
    told = StandardPermissions(mode="plan", allowed_tools=["b", "a"], denied_tools=["c"])

    assert version(StandardPermissions()) == "6tvIQDYZo_HB83_Ccpjy6aUtePfsy-qVncmpe2eHUAA"
    assert version(told) == "-gMz-2-tlbBvzloc-L-uYRuEAOKY5bR3VAvkRWWPuVc"
    assert (
        version(PerUserPermissions({("acme", "ada"): told}))
        == "-DCkhRIS1g6F_8tpUqBDwQJ-qJ7M6AI11SIQGD7gZpQ"
    )


def test_what_is_said_of_agents_is_part_of_the_version() -> None:
    said: list[dict[str, Any]] = [
        {},
        {"allowed_agents": []},
        {"allowed_agents": ["support"]},
        {"denied_agents": ["support"]},
        {"allowed_models": ["support"]},
    ]

    assert len({version(StandardPermissions(**one)) for one in said}) == len(said)


@pytest.mark.parametrize(
    "name", ["allowed_tools", "denied_tools", "allowed_agents", "denied_agents", "allowed_models"]
)
def test_one_text_in_the_place_of_a_list_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"It is a list\. Say \['support'\]"):
        StandardPermissions(**{name: "support"})  # type: ignore[arg-type]


def test_what_no_app_has_is_found_in_every_list() -> None:
    known = {"tools": ["refund", "lookup"], "agents": ["support"], "models": ["anthropic:opus"]}
    ada = StandardPermissions(denied_tools=["refnd", "lookup"], denied_agents=["Support"])
    rest = StandardPermissions(allowed_tools=["send_refund"], allowed_models=["anthropic:opuss"])
    found = list(misnamed(PerUserPermissions({("acme", "ada"): ada}, default=rest), known))

    assert [(one.rule, one.name, one.near) for one in found] == [
        ("allowed_tools", "send_refund", None),
        ("allowed_models", "anthropic:opuss", "anthropic:opus"),
        ("denied_tools", "refnd", "refund"),
        ("denied_agents", "Support", "support"),
    ]
    assert list(misnamed(StandardPermissions(allowed_tools=["refund"]), known)) == []


def test_the_example_in_the_documentation_holds() -> None:
    found: dict[str, Any] = {}
    exec(TABLE.read_text().split("```python\n")[1].split("```")[0], found)
    policy, drafts = found["policy"], Agent("drafts", model="anthropic:claude-haiku-4")

    def word(user: str, agent: Agent[Any]) -> str:
        return str(policy.judge_agent(agent, agent.model, Principal("acme", user)).word)

    assert [word("ada", SUPPORT), word("ada", drafts)] == ["allow", "allow"]
    assert [word("bob", SUPPORT), word("bob", drafts)] == ["deny", "deny"]
    assert word("eve", Agent("support", model="anthropic:claude-sonnet-5")) == "allow"
    assert word("eve", SUPPORT) == "deny", "another model"
