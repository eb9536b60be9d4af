"""Permissions as a pure decision: deny > ask > allow, and a rule that is named.

What the policy does not know is denied. Modes change defaults only; lists hold in every mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from runward.contracts.agents import Agent
from runward.contracts.encoding import digest_of
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal
from runward.contracts.spelling import did_you_mean, nearest
from runward.contracts.tools import Effect, Tool

Mode = Literal["plan", "default", "acceptEdits", "unattended", "bypassPermissions"]
Word = Literal["deny", "ask", "allow"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, the reason a user or a model reads, and the rule that decided."""

    word: Word
    reason: str
    rule: str


class Policy(Protocol):
    """Decides calls; pure, so that a stored decision can be explained again."""

    def judge(self, tool: Tool, principal: Principal) -> Verdict:
        """Returns the verdict on one call of the tool by this user in the roles of its ticket."""
        ...

    def judge_agent(self, agent: Agent[Any], model: str, principal: Principal) -> Verdict:
        """Returns the verdict on one call of that model, the agent's own or a fallback of it."""
        ...

    @property
    def body(self) -> dict[str, Any]:
        """Returns the policy as canonical data; its digest is its version."""
        ...


# Effect x mode -> verdict, where no list and no `requires_approval` decides. Printed in the docs.
_READ_ONLY: dict[Effect, Word] = {
    "read": "allow",
    "write": "deny",
    "external": "deny",
    "money": "deny",
    "secret": "deny",
}
_ASK: dict[Effect, Word] = {
    "read": "allow",
    "write": "allow",
    "external": "allow",
    "money": "ask",
    "secret": "ask",
}
DEFAULTS: dict[Mode, dict[Effect, Word]] = {
    "plan": _READ_ONLY,
    "default": _ASK,
    "acceptEdits": _ASK,
    "unattended": {**_ASK, "money": "deny", "secret": "deny"},
    "bypassPermissions": {**_ASK, "money": "allow", "secret": "allow"},
}


_NEAR = 0.8  # a letter or two; `send_refund` is another tool than `refund`
_LISTS = ("allowed_tools", "denied_tools", "allowed_agents", "denied_agents", "allowed_models")


@dataclass(frozen=True, slots=True)
class StandardPermissions:
    """One mode, and lists of the names of tools, agents and models; None allows all that are known.

    A model is named as its agent names it: "provider:model".
    """

    mode: Mode = "default"
    allowed_tools: Sequence[str] | None = None
    denied_tools: Sequence[str] = ()
    allowed_agents: Sequence[str] | None = None
    denied_agents: Sequence[str] = ()
    allowed_models: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name in _LISTS:
            given = getattr(self, name)
            if isinstance(given, str):  # every part of it would be a name
                raise ConfigurationError(
                    f"StandardPermissions({name}={given!r})", "It is a list", f"Say [{given!r}]"
                )

    def judge(self, tool: Tool, principal: Principal) -> Verdict:
        """Returns the verdict; the strongest of all that apply wins."""
        if tool.name in self.denied_tools:
            return Verdict("deny", f"{tool.name}: denied by policy", "denied_tools")
        if self.allowed_tools is not None and tool.name not in self.allowed_tools:
            return Verdict("deny", f"{tool.name}: not in allow-list", "allowed_tools")
        word = DEFAULTS[self.mode][tool.effect]
        if word == "allow" and (tool.requires_approval or self._shields(tool)):
            word = "deny" if self.mode in ("plan", "unattended") else "ask"
        rule = f"mode:{self.mode}"
        if word == "ask":
            kind = "destructive" if tool.destructive else tool.effect
            return Verdict("ask", f"{tool.name}: {kind} call requires approval", rule)
        return Verdict(word, "" if word == "allow" else f"{tool.name}: denied by policy", rule)

    def judge_agent(self, agent: Agent[Any], model: str, principal: Principal) -> Verdict:
        """Returns deny where a list says so, with the list's name as the rule; allow otherwise."""
        name = agent.name
        if name in self.denied_agents:
            return Verdict("deny", f"{name}: denied by policy (denied_agents)", "denied_agents")
        for rule, allowed, one in (
            ("allowed_agents", self.allowed_agents, name),
            ("allowed_models", self.allowed_models, model),
        ):
            if allowed is not None and one not in allowed:
                return Verdict("deny", f"{one}: not in allow-list ({rule})", rule)
        return Verdict("allow", "", "agent")

    def _shields(self, tool: Tool) -> bool:
        return tool.destructive and self.mode not in ("acceptEdits", "bypassPermissions")

    @property
    def body(self) -> dict[str, Any]:
        """Returns the policy as canonical data."""
        allowed = None if self.allowed_tools is None else sorted(self.allowed_tools)
        body: dict[str, Any] = {
            "kind": "standard",
            "mode": self.mode,
            "allowed": allowed,
            "denied": sorted(self.denied_tools),
        }
        # Only where they say something: a policy's version is the digest of what it says.
        if self.allowed_agents is not None:
            body["allowed_agents"] = sorted(self.allowed_agents)
        if self.denied_agents:
            body["denied_agents"] = sorted(self.denied_agents)
        if self.allowed_models is not None:
            body["allowed_models"] = sorted(self.allowed_models)
        return body


@dataclass(frozen=True, slots=True)
class PerUserPermissions:
    """A policy per user, named as `(tenant, user)`, and one for everybody else."""

    policies: Mapping[tuple[str, str], Policy]
    default: Policy = field(default_factory=StandardPermissions)

    def __post_init__(self) -> None:
        for name in self.policies:
            if not isinstance(name, tuple) or len(name) != 2:
                raise ConfigurationError(
                    f"PerUserPermissions({{{name!r}: ...}})",
                    "Users of two tenants may have the same name",
                    f"Say {{('<tenant>', {name!r}): ...}}",
                )

    def judge(self, tool: Tool, principal: Principal) -> Verdict:
        """Returns the verdict of the user's own policy."""
        return self._own(principal).judge(tool, principal)

    def judge_agent(self, agent: Agent[Any], model: str, principal: Principal) -> Verdict:
        """Returns the verdict of the user's own policy."""
        return self._own(principal).judge_agent(agent, model, principal)

    def _own(self, principal: Principal) -> Policy:
        return self.policies.get((principal.tenant, principal.user), self.default)

    @property
    def body(self) -> dict[str, Any]:
        """Returns the policy as canonical data."""
        users = sorted(self.policies.items(), key=lambda item: item[0])
        return {
            "kind": "per_user",
            "default": self.default.body,
            "users": [[*name, policy.body] for name, policy in users],
        }


@dataclass(frozen=True, slots=True)
class Misnamed:
    """A name in a policy's list that nothing in the app has, and the nearest one that is there."""

    rule: str
    name: str
    near: str | None

    def __str__(self) -> str:
        said = f"{self.rule} has {self.name!r}, and nothing in this app is called so"
        return ". ".join(filter(None, (said, did_you_mean(self.near))))


def misnamed(policy: Policy, known: Mapping[str, Sequence[str]]) -> Iterator[Misnamed]:
    """Yields the names in standard policies that are none of `known`: tools, agents and models.

    No error, since a policy may be that of many apps; but what is misspelt is denied to nobody.
    """
    if isinstance(policy, PerUserPermissions):
        for one in (policy.default, *policy.policies.values()):
            yield from misnamed(one, known)
    elif isinstance(policy, StandardPermissions):
        for rule in _LISTS:
            there = known[rule.partition("_")[2]]
            for name in getattr(policy, rule) or ():
                if name not in there:
                    yield Misnamed(rule, name, nearest(name, there, _NEAR))


def version(policy: Policy) -> str:
    """Returns the policy's version: the digest of its body."""
    return digest_of(policy.body)
