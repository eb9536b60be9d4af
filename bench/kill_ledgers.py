"""The world outside: the bank, the post office and the carrier, in one append-only ledger.

The bank applies a key once; the others do what they are asked, each time. Told to, the ledger
applies what it is asked and withholds the answer. One JSON line in, one out, on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
IDEMPOTENT = frozenset({"refund"})
ANSWER_AFTER_S = 0.02  # so that kills at random times meet attempts that are inside


@dataclass(frozen=True, slots=True)
class Effect:
    """What a tool asks for; `lane` is the group of runs that it belongs to."""

    lane: str
    tool: str
    order: str
    key: str
    run_id: str
    step: str


class Trap:
    """Withholds the answers to one lane's calls of one tool, once they were applied."""

    def __init__(self, lane: str, tool: str) -> None:
        self.lane, self.tool = lane, tool
        self.effects: list[Effect] = []
        self.reached = asyncio.Event()
        self.released = asyncio.Event()


class Ledger:
    """Serves as `async with Ledger()`; `applied` holds every effect in the order of its coming."""

    def __init__(self) -> None:
        self.applied: list[Effect] = []
        self.asked: list[Effect] = []  # also what was no new effect
        self._keys: set[str] = set()
        self._traps: dict[str, Trap] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None, "entered before"
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Returns where it listens."""
        assert self._server is not None, "entered before"
        return int(self._server.sockets[0].getsockname()[1])

    def withhold(self, lane: str, tool: str) -> Trap:
        """Returns the trap that is set from now on."""
        self.release(lane)
        self._traps[lane] = Trap(lane, tool)
        return self._traps[lane]

    def release(self, lane: str) -> None:
        """Answers that lane from now on; withheld answers are lost."""
        if trap := self._traps.pop(lane, None):
            trap.released.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls this in a task"
        self._tasks.add(task)
        try:
            if line := await reader.readline():
                await self._answer(Effect(**json.loads(line)), writer)
        except (OSError, asyncio.CancelledError):
            pass  # whoever asked has gone
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, effect: Effect, writer: asyncio.StreamWriter) -> None:
        self.asked.append(effect)
        if effect.tool not in IDEMPOTENT or effect.key not in self._keys:
            self._keys.add(effect.key)
            self.applied.append(effect)
        trap = self._traps.get(effect.lane)
        if trap is not None and trap.tool == effect.tool:
            trap.effects.append(effect)
            trap.reached.set()
            await trap.released.wait()
            return
        await asyncio.sleep(ANSWER_AFTER_S)
        writer.write(b"{}\n")
        await writer.drain()


@dataclass(frozen=True, slots=True)
class LedgerClient:
    """How the tools talk to the ledger."""

    port: int

    async def ask(self, effect: Effect) -> None:
        """Returns once the ledger has answered. Errors: OSError."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            writer.write(json.dumps(asdict(effect)).encode() + b"\n")
            await writer.drain()
            if not await reader.readline():
                raise ConnectionError("the ledger has hung up")
        finally:
            writer.close()
