"""How the demonstration speaks, and how it notices that something is not as it should be."""

from __future__ import annotations

import sys
from typing import TypeVar

T = TypeVar("T")


class Unexpected(AssertionError):
    """An expectation that did not come true."""

    def __init__(self, what: str, expected: object, actual: object) -> None:
        super().__init__(f"{what}\n     expected: {expected}\n     actual:   {actual}")


def expect(what: str, expected: T, actual: T) -> None:
    """Raises Unexpected unless both are equal."""
    if expected != actual:
        raise Unexpected(what, repr(expected), repr(actual))


def expect_in(what: str, expected: str, actual: str) -> None:
    """Raises Unexpected unless the text holds what is expected."""
    if expected not in actual:
        raise Unexpected(what, f"a text with {expected!r}", repr(actual))


def tell(text: str = "") -> None:
    """Prints a line."""
    print(f"  {text}" if text else "", flush=True)


def says(who: str, text: str) -> None:
    """Prints what a person or the agent says or does."""
    tell(f"{who:<8} {text}")


def title(text: str) -> None:
    """Prints the title of a scene."""
    print(f"\n{_bold(text)}", flush=True)


def table(rows: list[tuple[str, ...]]) -> None:
    """Prints rows in columns; the first row is the heading."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for number, row in enumerate(rows):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        tell(_bold(line.rstrip()) if number == 0 else line.rstrip())


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else text
