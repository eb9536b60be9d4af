"""The command line on a real stack: a run is started, approved and read by three commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runward.cli import output
from runward.cli.main import app
from runward.cli.results import told_result
from runward.cli.story import totals
from runward.contracts.agents import Agent
from runward.contracts.transcript import UserMessage
from runward.testing.scripts import ask, say, scripted
from runward.testing.stack import Stack
from tests.support import App

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z")
TIME_OF_DAY = re.compile(r"\d\d:\d\d:\d\d\S*")
UI = "http://temporal.invalid"
CALLS = 12  # an SDK thread that aborts at exit does so in about one of four processes


class Shell:
    """Runs commands with a stack's settings; each returns (exit code, stdout, stderr)."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._folder = folder
        self._settings = {
            "TEMPORAL_ADDRESS": stack.temporal_address,
            "RUNWARD_DATABASE_URL": stack.database_url,
            "RUNWARD_KEY_FILE": str(stack.key.path),
            "RUNWARD_TASK_QUEUE": stack.task_queue,
            "RUNWARD_TENANT": stack.tenant,
            "RUNWARD_TEMPORAL_UI_URL": UI,
        }

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        """Runs the command in a thread of this process, as a new one takes a second of CPU."""
        done = await asyncio.to_thread(CliRunner().invoke, app, words, env=self._settings)
        if done.exception is None or isinstance(done.exception, SystemExit):
            return done.exit_code, done.stdout, done.stderr
        assert output.expected(done.exception), done.exception
        return output.exit_code(done.exception), done.stdout, f"Error: {done.exception}"

    async def process(self, *words: str) -> tuple[int | None, str, str]:
        """Runs the command as people do."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "runward.cli.main", *words),
            cwd=self._folder,
            env={**os.environ, **self._settings},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


@pytest.fixture
def runward(stack: Stack, tmp_path: Path) -> Shell:
    return Shell(stack, tmp_path)


async def test_a_run_is_started_approved_and_read(stack: Stack, runward: Shell) -> None:
    shop = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    ada, bob = ("--as", "ada"), ("--as", "bob", "--role", "finance")
    async with stack.worker(stack.plugin(**shop.given)):
        code, run_id, said = await runward("runs", "start", "support", "Refund", *ada)
        assert (code, said) == (0, "")
        await (await stack.acting_as("ada")).get(run_id.strip()).next_approval()
        code, listed, _ = await runward("approvals", "list", *bob, "-o", "json")
        (asked,) = json.loads(listed)
        assert (code, asked["tool"], asked["workflow_id"]) == (0, "refund", run_id.strip())
        assert asked["rule"] == "mode:default"
        code, _, said = await runward("approvals", "approve", asked["id"], *ada)
        assert (code, said.startswith("Error: ")) == (4, True)
        code, _, _ = await runward("approvals", "approve", asked["id"], *bob)
        assert code == 0
        code, answer, _ = await runward("runs", "result", run_id.strip(), *ada)
        _, result, _ = await runward("runs", "result", run_id.strip(), "-o", "json", *ada)

    assert (code, answer) == (0, "Refunded.\n")
    assert (json.loads(result)["turns"], json.loads(result)["fallback_models"]) == (2, [])


async def test_a_model_is_shown_the_files_that_are_named(
    stack: Stack, runward: Shell, tmp_path: Path
) -> None:
    (tmp_path / "receipt").write_bytes(b"\x89PNG\r\n\x1a\n" + b"p" * 100)
    (tmp_path / "terms.pdf").write_bytes(b"%PDF-1.7 " + b"d" * 500)
    given = [one for name in ("receipt", "terms.pdf") for one in ("--file", str(tmp_path / name))]
    support = Agent("support", model="scripted:shop")
    model = scripted(support, say("A receipt."))
    async with stack.worker(stack.plugin(agents=[support], providers=[model])):
        done = await runward("runs", "execute", "support", "Which?", "--as", "ada", *given)
        code, run_id, _ = await runward(
            *("runs", "start", "support", "", "--as", "ada", *given, "-o", "jsonl")
        )
        await runward("runs", "result", json.loads(run_id)["id"], "--as", "ada")

    assert (done[:2], code) == ((0, "A receipt.\n"), 0)
    shown = [list(one.files.values()) for one in model.requests]
    asked = [one.messages[0] for one in model.requests]
    kinds = [[one.media_type for one in a.files] for a in asked if isinstance(a, UserMessage)]
    data = [(tmp_path / name).read_bytes() for name in ("receipt", "terms.pdf")]
    assert (shown, kinds) == ([data] * 2, [["image/png", "application/pdf"]] * 2)


async def test_whoever_waits_for_a_run_is_told_what_it_waits_for(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    notes: asyncio.Queue[str] = asyncio.Queue()
    monkeypatch.setattr(output, "note", notes.put_nowait)
    async with stack.worker(stack.plugin(**shop.given)):
        run = await (await stack.acting_as("ada")).start("support", "Refund")
        waiting = asyncio.create_task(told_result(run, None, "json"))
        asked = await run.next_approval()
        note = await notes.get()
        await (await stack.acting_as("bob", roles=["finance"])).approvals.approve(asked.id)
        await waiting

    assert note == f"refund waits for approval: `runward approvals show {asked.id}`"


async def test_interrupted_run_has_an_exit_code_of_its_own(stack: Stack, runward: Shell) -> None:
    shop = App([ask("lookup_order", order_id="17")] * 2, agent_options={"max_turns": 1})
    async with stack.worker(stack.plugin(**shop.given)):
        code, out, said = await runward("runs", "execute", "support", "Where?", "--as", "ada")

    assert (code, out) == (3, "")
    assert "max_turns_exceeded" in said


async def test_a_finished_run_is_listed_told_and_watched(stack: Stack, runward: Shell) -> None:
    shop = App([ask("lookup_order", order_id="17"), say("Shipped.")])
    ada = ("--as", "ada")
    async with stack.worker(stack.plugin(**shop.given)):
        code, run_id, _ = await runward("runs", "start", "support", "Where?", *ada)
        run_id = run_id.strip()
        code, watched, _ = await runward("runs", "watch", run_id, *ada, "-o", "jsonl")
        assert code == 0
        events = [json.loads(one) for one in watched.splitlines()]
        assert (events[0]["kind"], events[-1]["outcome"]) == ("run_started", "answered")
        code, lines, _ = await runward(
            "runs", "watch", run_id, *ada, "--after", events[-3]["offset"]
        )
        assert (code, len(lines.splitlines())) == (0, 2)

        code, shown, said = await runward("runs", "show", run_id, *ada)
        _, lines, end = shown.split("\n\n")
        calls = [line.split("\t")[:3] for line in lines.splitlines()]
        assert (code, said, calls) == (
            0,
            "",
            [
                ["t1.model", "scripted:support", "done"],
                ["t1.tool.0", "lookup_order", "done"],
                ["t2.model", "scripted:support", "done"],
            ],
        )
        story = await (await stack.acting_as("ada")).get(run_id).story()
        assert end == f"{totals(story)}\n{UI}/namespaces/default/workflows/{run_id}\n"

        code, listed, _ = await runward("runs", "list", "-o", "json", "--user", "ada")
        assert (code, [one["id"] for one in json.loads(listed)]) == (0, [run_id])
        code, shown, _ = await runward("runs", "show", run_id, "-o", "json", *ada)
        assert (code, json.loads(shown).items() >= json.loads(listed)[0].items()) == (0, True)
        code, described, _ = await runward("runs", "describe", run_id, "-o", "json", *ada)
        assert (code, {"id", "started_at", "ended_at"} <= json.loads(described).keys()) == (0, True)
        code, spent, _ = await runward("usage", "show", "ada", "-o", "json")
        assert (code, json.loads(spent)["model_calls"]) == (0, 2)
        code, history, _ = await runward("runs", "history", run_id, *ada)
        assert (code, len(json.loads(history)["events"]) > 10) == (0, True)


async def test_a_run_is_reset_by_the_name_of_its_call(stack: Stack, runward: Shell) -> None:
    shop = App([ask("lookup_order", order_id="17"), say("Shipped.")])
    async with stack.worker(stack.plugin(**shop.given)):
        ada = await stack.acting_as("ada")
        run = await ada.start("support", "Where?")
        await run.result()
        words = ("runs", "reset", run.id, "--before", "t2.model", "--as", "ada")
        code, _, said = await runward(*words)
        assert (code, "--yes" in said) == (2, True)
        code, _, _ = await runward(*words, "--yes")
        assert code == 0
        await ada.get(run.id).result()
        story = await ada.get(run.id).story()
        code, _, said = await runward(*words[:3], "--before", "t9.model", *words[5:], "--yes")
        assert (code, "no such call" in said) == (5, True)
        assert f"`runward runs show {run.id}` has those that there were" in said

    assert {one.epoch for one in story.steps if one.step == "t2.model"} == {0, 1}
    assert shop.shop.lookups == ["17"]


async def test_a_person_who_is_asked_sees_what_would_run(stack: Stack, runward: Shell) -> None:
    shop = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    async with stack.worker(stack.plugin(**shop.given)):
        run = await (await stack.acting_as("ada")).start("support", "Refund")
        request = await run.next_approval()
        code, shown, _ = await runward("approvals", "show", request.id, "-o", "json")
        assert (code, json.loads(shown)["arguments"]) == (0, request.arguments)
        code, shown, _ = await runward("approvals", "show", request.id)
        assert code == 0 and ["rule", "mode:default"] in map(str.split, shown.splitlines())
        for none in ("none", "\udcff"):
            code, _, said = await runward("approvals", "show", none)
            assert (code, "has none of that id" in said) == (5, True)
        code, _, _ = await runward("runs", "cancel", run.id, "--as", "ada")
        assert code == 0
        code, _, said = await runward("runs", "result", run.id, "--as", "ada")

    assert (code, "cancelled" in said) == (1, True)


async def test_times_are_utc_in_text_and_in_json(stack: Stack, runward: Shell) -> None:
    shop = App([ask("refund", order_id="17", amount="5.00"), say("Refunded.")])
    ada, bob = await stack.acting_as("ada"), await stack.acting_as("bob", ["finance"])
    async with stack.worker(stack.plugin(**shop.given)):
        run = await ada.start("support", "Refund")
        request = await run.next_approval()
        await bob.approvals.approve(request.id)
        await run.result()
        commands = {
            f"runs show {run.id} --as ada": 10,
            f"runs describe {run.id} --as ada": 2,
            f"runs watch {run.id} --as ada": 10,
            f"approvals show {request.id}": 2,
            "approvals list --state consumed": 2,
            "runs list": 2,
            "usage show ada --since 2h": 1,
        }
        for command, at_least in commands.items():
            _, data, _ = await runward(*command.split(), "-o", "jsonl")
            found = [one for line in data.splitlines() for one in dated(json.loads(line))]
            assert len(found) >= at_least, command
            assert all(map(RFC_3339.fullmatch, found)), found
            _, text, _ = await runward(*command.split())
            assert (printed := re.findall(TIME_OF_DAY, text)), command
            assert all(one.endswith("Z") for one in printed), printed


def dated(value: object, key: str = "") -> Iterator[str]:
    """Yields what stands under the keys of times."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from dated(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from dated(one)
    elif isinstance(value, str) and (key.endswith("_at") or key in ("at", "since", "until")):
        yield value


async def test_timeout_has_an_exit_code_of_its_own(stack: Stack, runward: Shell) -> None:
    words = ("runs", "execute", "support", "Hello", "--as", "ada", "--timeout", "0.2")
    code, out, said = await runward.process(*words)

    assert (code, out) == (124, "")
    assert re.search("--timeout is over. The run goes on; `runward runs result rw-.*` waits", said)


async def test_commands_end_with_their_own_exit_code_each_time(runward: Shell) -> None:
    """Threads of the SDK must not abort a process that has said what it had to say."""
    calls = [runward.process("runs", "result", "rw-none", "--as", "ada") for _ in range(CALLS)]
    codes = [code for code, _, _ in await asyncio.gather(*calls)]

    assert codes == [5] * CALLS
