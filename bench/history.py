"""What a run costs in Temporal's history: events and bytes, beside a workflow written by hand.

Runs of N turns make N model calls and N tool calls (two in the first turn, none in the last one,
which answers); every tool result has 1 KiB.

Targets. Events: governance adds none; 4 leave room for a workflow task that is scheduled twice.
Exponent: 1.0 is linear; a plain agent that sends its conversation along with each call has 2.0, and
dies at Temporal's limits. Bytes: a plain build needs 1.9 KiB per turn beyond its messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from report import Report, arguments, run, say
from stack import (
    ANSWER,
    PROMPT,
    QUEUE,
    RESULT,
    TENANT,
    Servers,
    asked,
    lookup,
    plugin,
    provider,
    servers,
)
from temporalio.client import Client, WorkflowHandle
from ungoverned import Bodies, HandWritten

from runward.client.keys import KeyFile
from runward.client.reader import DirectReader
from runward.client.runward_client import RunwardClient
from runward.contracts.transcript import AssistantMessage, ToolCall, ToolMessage, encode_message
from runward.workers.worker import build, connect, identity

TURNS = (10, 50, 100, 200)
TURNS_QUICK = (10, 50)
EXTRA_EVENTS_MAX = 4
EXPONENT_MAX = 1.05
EXTRA_BYTES_PER_TURN_MAX = 2048


@dataclass(frozen=True, slots=True)
class Size:
    """A history, as the server counts it."""

    events: int
    bytes: int


async def size_of(handle: WorkflowHandle[object, object]) -> Size:
    """Returns how large a closed run's history is."""
    seen = (await handle.describe()).raw_description.workflow_execution_info
    return Size(int(seen.history_length), int(seen.history_size_bytes))


async def governed(where: Servers, turns: tuple[int, ...]) -> dict[int, Size]:
    """Returns the histories of runward's runs."""
    client = await connect(plugin(where.database_url, list(turns)), where.temporal)
    found: dict[int, Size] = {}
    runward = RunwardClient(
        await Client.connect(where.temporal, identity=identity()),
        issuer=KeyFile(where.key_file),
        reader=DirectReader(where.database_url),
        task_queue=QUEUE,
    )
    async with build(client, task_queue=QUEUE), runward:
        ada = runward.acting_as("ada", tenant=TENANT)
        for number in turns:
            say(f"governed, {number} turns")
            started = await ada.start(f"turns-{number}", PROMPT)
            result = await started.result()
            if (result.output, result.turns) != (ANSWER, number):
                raise RuntimeError(f"the run of {number} turns went wrong: {result}")
            found[number] = await size_of(client.get_workflow_handle(started.id))
    return found


async def by_hand(where: Servers, turns: tuple[int, ...]) -> dict[int, Size]:
    """Returns the histories of the workflow written by hand."""
    client = await Client.connect(where.temporal, identity=identity())
    bodies = Bodies(provider(list(turns)), lookup.body)
    found: dict[int, Size] = {}
    async with build(
        client, task_queue="by-hand", workflows=[HandWritten], activities=bodies.activities
    ):
        for number in turns:
            say(f"by hand, {number} turns")
            handle = await client.start_workflow(
                "HandWritten", number, id=f"hand-{number}", task_queue="by-hand"
            )
            if await handle.result() != ANSWER:
                raise RuntimeError(f"the workflow of {number} turns went wrong")
            found[number] = await size_of(handle)
    return found


def content(turns: int) -> int:
    """Returns what the messages of a run weigh: the assistant's and the tools', without the user's.

    Calls have names as the scripted model gives them.
    """
    total = 0
    for number, turn in enumerate(asked(turns)):
        calls = tuple(
            ToolCall(id=f"call_{number}_{index}", name=one.name, arguments=one.text)
            for index, one in enumerate(turn.calls)
        )
        total += len(encode_message(AssistantMessage(text=turn.text, calls=calls)))
        for one in calls:
            message = ToolMessage(call_id=one.id, name=one.name, text=RESULT)
            total += len(encode_message(message))
    return total


def exponent(sizes: dict[int, Size]) -> float:
    """Returns the slope of bytes over turns, both as logarithms, by least squares."""
    points = [(math.log(turns), math.log(size.bytes)) for turns, size in sizes.items()]
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)


async def measure(turns: tuple[int, ...]) -> Report:
    """Runs both sides and compares them."""
    report = Report("history")
    async with servers() as where:
        ours, bare = await governed(where, turns), await by_hand(where, turns)
    for number in turns:
        mine, plain = ours[number], bare[number]
        say(f"{number} turns: {mine} governed, {plain} by hand, content {content(number)}")
        report.counts[f"events_{number}"] = mine.events
        report.counts[f"events_bare_{number}"] = plain.events
        report.counts[f"bytes_{number}"] = mine.bytes
        report.counts[f"bytes_bare_{number}"] = plain.bytes
        report.counts[f"bytes_content_{number}"] = content(number)
    report.add(
        "events_over_bare_max",
        max(ours[n].events - bare[n].events for n in turns),
        f"<= {EXTRA_EVENTS_MAX}",
    )
    report.add("bytes_exponent", exponent(ours), f"<= {EXPONENT_MAX}")
    # Of whole runs, their start and end included; so the shortest one says the most.
    report.add(
        "bytes_over_content_per_turn_max",
        max((ours[n].bytes - content(n)) / n for n in turns),
        f"<= {EXTRA_BYTES_PER_TURN_MAX}",
    )
    small, large = turns[0], turns[-1]
    report.add("bytes_over_content_per_turn", _slope(ours, small, large))
    report.add("bytes_over_content_per_turn_bare", _slope(bare, small, large))
    return report


def _slope(sizes: dict[int, Size], small: int, large: int) -> float:
    """Returns what each further turn adds beyond its messages."""
    more = sizes[large].bytes - sizes[small].bytes - content(large) + content(small)
    return more / (large - small)


if __name__ == "__main__":
    options = arguments(__doc__ or "").parse_args()
    chosen = TURNS_QUICK if options.quick else TURNS
    run(lambda: measure(chosen), only_json=options.json)
