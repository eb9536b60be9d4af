"""An app in a folder of its own, and the `runward` command run from there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

STARTS_S_MAX = 60.0
# The model answers when a file called `go` appears; `inside` says that the call has begun.
APP = """
import asyncio
from pathlib import Path
from runward import Agent, RunwardPlugin
from runward.testing.scripts import FileLedger, Script, ScriptedProvider, Slow, failing, say

async def hold(seconds):
    Path("inside").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.02)

scripts = {
    "quick": Script([say("quick answer")]),
    "held": Script([failing(say("held answer"), Slow(1))]),
}
agents = [Agent(name, model=f"scripted:{name}", instructions="Help.") for name in scripts]
provider = ScriptedProvider(scripts, ledger=FileLedger(Path("bills")), sleep=hold)
app = RunwardPlugin(agents=agents, providers=[provider])
other = "no plugin"
"""


class Command:
    """A running `runward` command; its output is read while it runs."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = asyncio.Condition()
        self._readers = [
            asyncio.create_task(self._read(process.stdout, self.out)),
            asyncio.create_task(self._read(process.stderr, self.err)),
        ]

    async def says(self, words: str) -> str:
        """Returns the first line with these words in it, once it is there."""
        try:
            async with asyncio.timeout(STARTS_S_MAX), self._news:
                await self._news.wait_for(lambda: self._line(words) is not None or self._ended())
        except TimeoutError:
            pass
        line = self._line(words)
        assert line is not None, f"never said {words!r}: {self.out} {self.err}"
        return line

    async def ended(self) -> int:
        """Returns the exit code once everything is read."""
        code = await self.process.wait()
        await asyncio.gather(*self._readers)
        return code

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.ended()

    def _line(self, words: str) -> str | None:
        return next((line for line in (*self.out, *self.err) if words in line), None)

    def _ended(self) -> bool:
        return all(one.done() for one in self._readers)

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            async with self._news:
                lines.append(line.decode().rstrip())
                self._news.notify_all()


@contextlib.asynccontextmanager
async def runward(folder: Path, *words: str, **env: str) -> AsyncIterator[Command]:
    """Runs the command in the folder; kills it at the end if it still runs."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("RUNWARD_", "TEMP"))
    }
    kept = {key: os.environ[key] for key in ("RUNWARD_TEMPORAL_BINARY",) if key in os.environ}
    argv = [sys.executable, "-m", "runward.cli.main", *words]
    async with started(folder, argv, {**clean, **kept, **env}) as command:
        yield command


@contextlib.asynccontextmanager
async def started(
    folder: Path, argv: Sequence[str], env: Mapping[str, str]
) -> AsyncIterator[Command]:
    """Runs any command in the folder; kills it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=folder, env=env, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    command = Command(process)
    try:
        yield command
    finally:
        await command.kill()
