"""The shop, the bank and the post office: a process of its own, as the outside world is.

`python ledgers.py PORT` serves them on 127.0.0.1, one JSON line in, one JSON line out. Told to, it
does what it is asked and withholds the answer. Whoever asked can then be killed for sure after the
effect and before its record.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["orders", "refunds", "letters"]
HOST = "127.0.0.1"


def tracking_number(order_id: str) -> str:
    """Returns what the shop knows of an order."""
    return f"RX{4694 + int(order_id)}" if order_id.isdecimal() else "unknown"


@dataclass
class Book:
    """What one ledger says: its entries, how often it was asked, how many answers it withheld."""

    entries: list[dict[str, str]] = field(default_factory=list)
    asked: int = 0
    withheld: int = 0
    withhold_next: bool = False


class Ledgers:
    """The three books. The bank knows idempotency keys; the post office does not."""

    def __init__(self) -> None:
        self.books: dict[str, Book] = {"orders": Book(), "refunds": Book(), "letters": Book()}

    async def serve(self, port: int) -> None:
        """Answers until the process is ended."""
        server = await asyncio.start_server(self._connected, HOST, port)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = json.loads(await reader.readline())
            answer = self._answer(**question)
            if answer is None:
                await reader.read()  # until the other side has gone
                return
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except ConnectionError:
            pass  # whoever asked was killed
        finally:
            writer.close()

    def _answer(self, book: str, do: str, entry: dict[str, str]) -> dict[str, Any] | None:
        """Returns the answer, None for one that is withheld."""
        kept = self.books[book]
        if do == "show":
            return asdict(kept)
        if do == "withhold":
            kept.withhold_next = True
            return asdict(kept)
        kept.asked += 1
        self._keep(book, entry)
        if kept.withhold_next:
            kept.withhold_next, kept.withheld = False, kept.withheld + 1
            return None
        return {"text": tracking_number(entry["order_id"]) if book == "orders" else ""}

    def _keep(self, book: str, entry: dict[str, str]) -> None:
        entries = self.books[book].entries
        if book == "refunds" and any(one["key"] == entry["key"] for one in entries):
            return  # the same request once more: it has been done
        entries.append(entry)


@dataclass(frozen=True)
class LedgerClient:
    """How the tools and the demonstration talk to the ledgers."""

    port: int

    async def ask(self, book: Kind, **entry: str) -> str:
        """Returns the ledger's text once it has written the entry down."""
        return str((await self._call(book, "keep", entry))["text"])

    async def show(self, book: Kind) -> Book:
        """Returns what the ledger holds."""
        return Book(**await self._call(book, "show", {}))

    async def withhold_next(self, book: Kind) -> None:
        """Makes the ledger do what it is asked next, and keep silent about it."""
        await self._call(book, "withhold", {})

    async def _call(self, book: Kind, do: str, entry: dict[str, str]) -> dict[str, Any]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        try:
            question = {"book": book, "do": do, "entry": entry}
            writer.write(json.dumps(question).encode() + b"\n")
            await writer.drain()
            answer: dict[str, Any] = json.loads(await reader.readline())
            return answer
        finally:
            writer.close()


if __name__ == "__main__":
    asyncio.run(Ledgers().serve(int(sys.argv[1])))
