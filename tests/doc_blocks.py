"""The code in the documentation, block by block, for the tests that execute it."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Also within a list, and without a language.
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
NAMED = re.compile(r"# (\w+\.\w+)\b.*\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code, or of what is printed."""

    page: str
    language: str
    code: str

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
        Block(page, found["language"], textwrap.dedent(found["code"]))
        for found in FENCE.finditer(text)
    ]


def pages() -> list[str]:
    """Returns the README and all pages of the documentation."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(str(path.relative_to(ROOT)) for path in found)]
