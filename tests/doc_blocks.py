"""The code in the documentation, block by block, for the tests that execute it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(
    r"(?:^<!-- illustration: (?P<why>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
NAMED = re.compile(r"# (\w+\.\w+)\b.*\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. `illustration` is the reason why nobody executes it, if nobody does."""

    page: str
    language: str
    code: str
    illustration: str | None

    @property
    def begins(self) -> str:
        """Returns its first line."""
        return self.code.split("\n", 1)[0]

    @property
    def file(self) -> str | None:
        """Returns the file that it is, as its first line says."""
        found = NAMED.match(self.code)
        return found[1] if found else None

    @property
    def lines(self) -> int:
        """Returns how many lines are code, the file's name and empty lines left out."""
        return sum(bool(line.strip()) for line in NAMED.sub("", self.code, count=1).split("\n"))


def blocks(page: str) -> list[Block]:
    """Returns the blocks of a page, named from the repository's root, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, found["language"], found["code"], found["why"])
        for found in FENCE.finditer(text)
    ]


def pages() -> list[str]:
    """Returns the README and all pages of the documentation."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(str(path.relative_to(ROOT)) for path in found)]
