"""The model that all sides of the bench ask: it answers after a second and keeps what it was asked.

Each process writes a file of its own, one line per call, before it answers: the provider's ledger,
which knows nothing of anybody's books.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SECRET = re.compile(r"tok-[0-9a-f]{24}")
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: whom it is billed to, by a key that the prompt has no part in, and for how much.

    `secrets` are the tokens of users that stood anywhere in what the model was sent.
    """

    key: str
    secrets: tuple[str, ...]
    input: int
    output: int


class SlowModel:
    """Answers the last message after `seconds`; that is all the time it takes."""

    def __init__(self, folder: Path, seconds: float) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._file = os.open(folder / f"asked-{os.getpid()}.jsonl", flags, 0o600)
        self._seconds = seconds

    async def ask(self, key: str, messages: Iterable[str]) -> tuple[str, Asked]:
        """Returns the answer and the bill; the last message holds its user's token."""
        texts = tuple(messages)
        answer = answer_to(SECRET.findall(texts[-1])[0])
        found = sorted({one for text in texts for one in SECRET.findall(text)})
        asked = Asked(key, tuple(found), _tokens(*texts), _tokens(answer))
        os.write(self._file, json.dumps(asdict(asked)).encode() + b"\n")
        await asyncio.sleep(self._seconds)
        return answer, asked


def answer_to(secret: str) -> str:
    """Returns what the model says to the user who has this token."""
    return f"The parcels of {secret} are on their way."


def all_asked(folder: Path) -> Iterator[Asked]:
    """Yields the calls of all processes."""
    for path in sorted(folder.glob("asked-*.jsonl")):
        for line in path.read_bytes().splitlines():
            fields = json.loads(line)
            yield Asked(**(fields | {"secrets": tuple(fields["secrets"])}))


def _tokens(*texts: str) -> int:
    return -(-sum(len(one.encode()) for one in texts) // BYTES_PER_TOKEN)
