"""What a run did, in words for assertions: `ran.calls`, `ran.verdicts`, `ran.spend`."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

from runward.contracts.story import Story, StoryStep


class RanVerdict(NamedTuple):
    """What became of one tool call: its verdict, and the rule or the reason behind it."""

    tool: str
    word: Literal["allow", "ask", "deny"]
    why: str


class Spend(NamedTuple):
    """What the recorded answers of the models took."""

    calls: int
    tokens: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Ran:
    """A run as the store tells it, after it ended or while it goes on."""

    story: Story

    @property
    def calls(self) -> list[str]:
        """Returns the tools that were run to an end, in the order in which they began."""
        return [one.name for one in self._tools if one.state == "done"]

    @property
    def verdicts(self) -> list[RanVerdict]:
        """Returns the verdict on every tool call, in the order in which they began."""
        return [_verdict(one) for one in self._tools]

    @property
    def spend(self) -> Spend:
        """Returns what the models' answers took."""
        answered = [one for one in self.story.steps if one.usage is not None]
        return Spend(len(answered), self.story.usage.tokens, self.story.cost)

    @property
    def _tools(self) -> list[StoryStep]:
        return [one for one in self.story.steps if one.kind != "model"]


def _verdict(one: StoryStep) -> RanVerdict:
    if one.approvals:
        return RanVerdict(one.name, "ask", one.approvals[-1].state)
    if one.state == "denied":
        return RanVerdict(one.name, "deny", one.reason)
    return RanVerdict(one.name, "allow", one.rule)
