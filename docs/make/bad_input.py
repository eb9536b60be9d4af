"""The page of bad input: the rows that tests try, as they are tried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tests.bad_input_played import PLAYED
from tests.bad_input_rows import MISSING, SERVED, TYPED, Row

HEAD = """\
# Bad input

What the command line answers to what cannot be: one message on stderr, nothing on stdout, and
nothing half done. Tests try each row; its words are a part of the message. What the codes mean
stands with the [errors](errors/index.md). Words in capitals stand for something else, and where no
user and tenant are named, they are set.

<!-- Made by `python -m docs.make` from tests/bad_input_*.py; do not edit. -->
"""
TABLE = "| what is typed | exit code | what is said |\n|---|---|---|\n"


def page() -> str:
    """Returns the page; a change of any row changes it."""
    parts = {**TYPED, **SERVED, **MISSING}
    played = {title: part.values() for title, part in PLAYED.items()}
    return HEAD + "".join(_sections({**parts, **played}))


def _sections(parts: dict[str, Iterable[Row]]) -> Iterator[str]:
    for title, part in parts.items():
        yield f"\n## {title}\n\n{TABLE}" + "".join(map(_line, part))


def _line(row: Row) -> str:
    words = row.typed.replace(" {ada}", "").split(" ")
    words.insert(sum("=" in one for one in words[:1]), "runward")  # behind a variable
    line = re.sub(r"\{(\w+)\}", lambda one: one[1].upper(), " ".join(words))
    where = f", {row.where}" if row.where else ""
    said = _code(row.says) if row.says else "nothing"
    return f"| {_code(line)}{where} | {row.code} | {said} |\n"


def _code(text: str) -> str:
    """Returns text as code in a cell of a table: a backtick of its own needs two around it."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
