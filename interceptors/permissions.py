"""Permissions: the policy's verdict on this call by this user, with the rule that decided."""

from __future__ import annotations

from runward.contracts.identity import Principal
from runward.contracts.policy import Policy, Verdict
from runward.interceptors.concern import Attempt


class Permissions:
    """Judges by the policy: tools, and each model call of an agent that is one of this worker's."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def open(self, attempt: Attempt) -> None:
        """Writes the verdict; a call that nothing is known of is denied."""
        verdict = self._judge(attempt)
        draft = attempt.draft
        draft.verdict, draft.reason, draft.rule = verdict.word, verdict.reason, verdict.rule

    def _judge(self, attempt: Attempt) -> Verdict:
        facts, run = attempt.facts, attempt.run
        if facts.problem:
            return Verdict("deny", facts.problem, "definition")
        principal = Principal(run.tenant, run.user, run.roles)
        if facts.tool is not None:
            return self._policy.judge(facts.tool, principal)
        if facts.kind == "model" and facts.agent is not None:
            return self._policy.judge_agent(facts.agent, facts.name, principal)
        return Verdict("deny", f"{facts.name}: unknown", "unknown")
