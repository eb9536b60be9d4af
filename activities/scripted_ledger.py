"""What the scripted provider billed, written by itself: the other side of every budget test.

It must never learn anything from runward's own books, or comparing the two would prove nothing.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from runward.contracts.usage import Usage


@dataclass(frozen=True, slots=True)
class Bill:
    """One call that was billed. A key may have several: a provider bills each time it answers."""

    idempotency_key: str
    model: str  # "scripted:<script>"
    usage: Usage


class Ledger(Protocol):
    """Where bills go, and where a script's faults are counted."""

    def bill(self, bill: Bill) -> None:
        """Records the bill; it is there for every reader when this returns."""
        ...

    def bills(self) -> tuple[Bill, ...]:
        """Returns all bills, oldest first."""
        ...

    def attempt(self, idempotency_key: str) -> int:
        """Counts one more attempt under the key; returns how many came before it."""
        ...


def billed(ledger: Ledger) -> Usage:
    """Returns the sum of all bills."""
    return sum((one.usage for one in ledger.bills()), Usage())


class MemoryLedger:
    """A ledger in this process."""

    def __init__(self) -> None:
        self._bills: list[Bill] = []
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def bill(self, bill: Bill) -> None:
        """Records the bill."""
        self._bills.append(bill)

    def bills(self) -> tuple[Bill, ...]:
        """Returns all bills, oldest first."""
        return tuple(self._bills)

    def attempt(self, idempotency_key: str) -> int:
        """Counts one more attempt under the key; returns how many came before it."""
        with self._lock:
            self._attempts[idempotency_key] += 1
            return self._attempts[idempotency_key] - 1


class FileLedger:
    """A ledger in a file that several processes share: one JSON line per bill, append only.

    Attempts are lines of a second file, `<path>.attempts`, so that this one holds bills alone.
    Each line is one write with O_APPEND and a file opened for it, so that lines of several
    processes never mix, and forks and kills leave nothing half done.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._attempts_path = self.path.with_name(self.path.name + ".attempts")
        self._attempts: Counter[str] = Counter()  # of the lines before _read_to
        self._read_to = 0
        self._lock = threading.Lock()

    def bill(self, bill: Bill) -> None:
        """Appends the bill's line."""
        _append(self.path, asdict(bill))

    def bills(self) -> tuple[Bill, ...]:
        """Returns the bills of all processes, oldest first."""
        return tuple(
            Bill(line["idempotency_key"], line["model"], Usage(**line["usage"]))
            for line in map(json.loads, _lines(self.path))
        )

    def attempt(self, idempotency_key: str) -> int:
        """Counts one more attempt under the key, of all processes; returns how many came before."""
        with self._lock:
            end = _append(self._attempts_path, idempotency_key)
            # Up to the own line: what others append meanwhile comes after us.
            for line in _lines(self._attempts_path, self._read_to, end):
                self._attempts[json.loads(line)] += 1
            self._read_to = end
            return self._attempts[idempotency_key] - 1


def _append(path: Path, value: object) -> int:
    """Appends the value as one JSON line; returns the offset after it."""
    line = json.dumps(value).encode() + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        written = os.write(descriptor, line)
        if written != len(line):
            raise OSError(f"{path}: {written} of {len(line)} bytes of a line were written")
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    finally:
        os.close(descriptor)


def _lines(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """Yields the lines between two offsets; none if there is no file yet."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(start)
        yield from file.read(-1 if end is None else end - start).splitlines()
