"""A line for each call of a run: what it is, how it went, and why it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runward.cli.times import clock, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from runward.contracts.story import PendingCall, RunRow, Story, StoryStep

    Stage = tuple[int, int, int, str]  # round, epoch, turn, kind

LATE_S = 5.0  # calls follow each other within milliseconds; what takes longer has waited
PARKED = "parked: it goes on once its budget is raised or its window turns"
COLUMNS = ("call", "name", "state", "began", "seconds", "usd", "tokens", "tries", "rule", "note")


def story_rows(story: Story) -> list[dict[str, Any]]:
    """Returns a line per call: its place, how long and how much, who allowed it, how it ended.

    Behind them stand calls that have not reached the store.
    """
    pending = {one.step: one for one in story.pending}
    ends = _ends(story)
    rows = []
    for one in story.steps:
        call = pending.pop(one.step, None) if _is_current(one, story.run) else None
        waits = (_late(one, ends), _waits(call) if call else _parked(one, story.run))
        rows.append(_row(one, story.run, filter(None, waits)))
    return rows + [_unopened(call) for call in pending.values()]


def _row(one: StoryStep, run: RunRow, waits: Iterable[str]) -> dict[str, Any]:
    return _line(
        call=one.step,
        name=one.name,
        state=_state(one, run),
        began=_began(one.opened_at, run),
        seconds=None if one.seconds is None else f"{one.seconds:.1f}",
        usd=f"{one.cost / 1e9:.6f}" if one.cost else None,
        tokens=None if one.usage is None else one.usage.tokens,
        tries=one.tries if one.tries > 1 else None,
        rule=one.rule or None,
        note="; ".join([*_notes(one), *waits]) or None,
    )


def _unopened(call: PendingCall) -> dict[str, Any]:
    """Returns the line of a call of which the store knows nothing yet."""
    return _line(call=call.step or None, name=call.name, state="waiting", note=_waits(call))


def _line(**said: Any) -> dict[str, Any]:
    return {column: said.get(column) for column in COLUMNS}


def _is_current(one: StoryStep, run: RunRow) -> bool:
    return run.state == "open" and (one.round, one.epoch) == (run.round, run.epoch)


def _parked(one: StoryStep, run: RunRow) -> str:
    """Returns that a model's call waits for a budget: in any other wait Temporal has a call."""
    waits = one.kind == "model" and one.state == "idle" and _is_current(one, run)
    return PARKED if waits else ""


def _state(one: StoryStep, run: RunRow) -> str:
    if one.state not in ("open", "idle"):
        return one.state
    if not _is_current(one, run):
        return "unfinished"
    asks = any(asked.state == "pending" for asked in one.approvals)
    return "waiting" if asks or one.state == "idle" else "running"


def _began(at: datetime, run: RunRow) -> str:
    """Returns the time of day, with the day where it is not that of the run's beginning."""
    return clock(at) if text(at)[:10] == text(run.opened_at)[:10] else text(at)


def _ends(story: Story) -> dict[Stage, datetime]:
    """Returns when each turn's model answered, and when the last of its tools was done."""
    ends: dict[Stage, datetime] = {}
    for one in story.steps:
        if one.turn is not None and one.closed_at is not None:
            stage = (one.round, one.epoch, one.turn, one.kind)
            ends[stage] = max(ends.get(stage, one.closed_at), one.closed_at)
    return ends


def _late(one: StoryStep, ends: Mapping[Stage, datetime]) -> str:
    """Returns how long a call waited for a worker, the store or its budget, if it was long."""
    if one.turn is None:
        return ""  # a user's own workflow may sleep
    turn = one.turn if one.kind == "tool" else one.turn - 1
    before = [ends.get((one.round, one.epoch, turn, kind)) for kind in ("model", "tool")]
    ended = before[0] if one.kind == "tool" else max(filter(None, before), default=None)
    waited = 0.0 if ended is None else (one.opened_at - ended).total_seconds()
    return f"waited {waited:.0f} s to begin" if waited >= LATE_S else ""


def _notes(one: StoryStep) -> Iterator[str]:
    for asked in one.approvals:
        yield asked.title
        by = f" by {asked.decided_by}" if asked.decided_by else ""
        at = f" at {text(asked.decided_at)}" if asked.decided_at else ""
        why = f": {asked.reason}" if asked.reason else ""
        yield f"approval {asked.state}{by}{at}{why}"
        if asked.state == "pending":
            yield f"{asked.approver_role} may approve {asked.id} until {text(asked.expires_at)}"
    if one.epoch:
        yield f"after reset {one.epoch}"
    if one.reason:
        yield one.reason


def _waits(call: PendingCall) -> str:
    again = f"; attempt {call.attempt} at {clock(call.next_try_at)}" if call.next_try_at else ""
    return f"{call.reason}{again}"
