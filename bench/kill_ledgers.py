"""The world outside: the bank, the post office and the carrier, in one append-only ledger.

The bank applies a key once; the others do what they are asked, each time. Told to, the ledger
applies what it is asked and withholds the answer. One JSON line in, one out, on 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass

from runward.testing.local_server import HOST, LocalServer

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


class Ledger(LocalServer):
    """Serves as `async with Ledger()`; `applied` holds every effect in the order of its coming."""

    def __init__(self, answer_after_s: float = ANSWER_AFTER_S) -> None:
        super().__init__()
        self.applied: list[Effect] = []
        self.asked: list[Effect] = []  # also what was no new effect
        self._answer_after_s = answer_after_s
        self._keys: set[str] = set()
        self._traps: dict[str, Trap] = {}

    def withhold(self, lane: str, tool: str) -> Trap:
        """Returns the trap that is set from now on."""
        self.release(lane)
        self._traps[lane] = Trap(lane, tool)
        return self._traps[lane]

    def release(self, lane: str) -> None:
        """Answers that lane from now on; withheld answers are lost."""
        if trap := self._traps.pop(lane, None):
            trap.released.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one call."""
        if line := await reader.readline():
            await self._answer(Effect(**json.loads(line)), writer)

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
        await asyncio.sleep(self._answer_after_s)
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
