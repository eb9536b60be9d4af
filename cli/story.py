"""How a run's story and its events are told: a table for people, a line per event in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from runward.cli import output as out
from runward.cli.times import clock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment
    from rich.tree import Tree as Branch

    from runward.contracts.progress import Progress
    from runward.contracts.runs import RunResult
    from runward.contracts.story import RunRow, Story

# What data says of a run besides its line of a list.
_MORE = ("tenant", "run_id", "session", "epoch", "round", "result_digest", "content_gone_at")


def run_row(run: RunRow) -> dict[str, Any]:
    """Returns a run as a line of a list."""
    return {
        "id": run.workflow_id,
        "state": run.state,
        "agent": run.agent,
        "user": run.user,
        "started_at": run.opened_at,
        "ended_at": run.closed_at,
        "reason": run.reason or None,
    }


def totals(run: Story | RunResult[Any]) -> str:
    """Returns what the calls took together."""
    turns = "1 turn" if run.turns == 1 else f"{run.turns} turns"
    return f"{turns}, {run.usage.tokens} tokens, ${run.cost:f}"


def as_data(story: Story) -> dict[str, Any]:
    """Returns the whole story as data: a run as a list has it, with more, and costs in dollars."""
    from dataclasses import asdict

    from runward.contracts.runs import usd

    steps = []
    for one in story.steps:
        row = asdict(one) | {"turn": one.turn, "seconds": one.seconds}
        row["cost_usd"] = f"{usd(row.pop('cost')):f}"
        row["approvals"] = [asked.model_dump() for asked in one.approvals]
        steps.append(row)
    return {
        **run_row(story.run),
        **{name: getattr(story.run, name) for name in _MORE},
        "cost_usd": f"{story.cost:f}",
        "steps": steps,
        "pending": [asdict(one) for one in story.pending],
    }


def event_line(event: Progress) -> str:
    """Returns an event as a line for people."""
    return f"{clock(event.at)}  {_indent(event)}{' '.join(_words(event))}"


async def told(
    events: AsyncIterator[Progress], run_id: str, output: out.Stream
) -> AsyncIterator[Progress]:
    """Yields each event once it was told: as data, in a tree on a terminal, else as a line."""
    if output != "text":
        async for event in events:
            out.data(event.model_dump(), output)
            yield event
    elif not sys.stdout.isatty():
        async for event in events:
            out.answer(event_line(event))
            yield event
    else:
        from rich.live import Live

        tree = Tree(run_id)
        with Live(Newest(tree.root), console=out.console(), auto_refresh=False) as live:
            try:
                async for event in events:
                    tree.add(event)
                    live.refresh()
                    yield event
            finally:
                live.update(tree.root)  # all of it stays on the terminal


class Tree:
    """A run's events as a tree that grows on a terminal: its calls, and what became of each."""

    def __init__(self, run_id: str) -> None:
        from rich.tree import Tree as Branch

        self.root = Branch(out.visible(run_id))
        self._calls: dict[str, Branch] = {}

    def add(self, event: Progress) -> None:
        """Puts the event in its place: under its call, or a run's own under the run."""
        from rich.text import Text

        line = Text(out.visible(event_line(event)))
        if not event.step:
            self.root.add(line)
        elif event.step in self._calls:
            self._calls[event.step].add(line)
        else:
            self._calls[event.step] = self.root.add(line)


class Newest:
    """The end of a tree, as much of it as a screen holds: there something happens."""

    def __init__(self, root: Branch) -> None:
        self._root = root

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        for line in console.render_lines(self._root, options, pad=False)[1 - console.height :]:
            yield from line
            yield Segment.line()


def _indent(event: Progress) -> str:
    return "  " if ".tool." in event.step else ""


def _words(event: Progress) -> Iterator[str]:
    what = f"{event.step} {event.name}".strip()
    match event.kind:
        case "run_started":
            yield f"{event.name} started for {event.by}"
        case "call_started":
            yield f"{what} began"
            if event.attempt > 1:
                yield f"(attempt {event.attempt})"
        case "call_retried":
            yield f"{what} will be tried again"
        case "call_ended":
            yield f"{what} {event.outcome}"
        case "approval_requested":
            yield f"{what} waits for approval {event.approval_id}"
        case "approval_decided":
            yield f"{event.step} {event.outcome} by {event.by}"
        case "run_ended":
            yield f"{event.name} {event.outcome}"
