"""Tables that fit a terminal without cutting or breaking what is in them.

What has no room beside a row goes below it, under its name. An id stays in one piece, so that it
can be copied, and an approver sees all of what is to be approved.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

GAP = "  "
INDENT = "    "


def lines(
    heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, blank: str
) -> Iterator[str]:
    """Yields the line of heads and, for each row, its line and those below it.

    A cell that is `blank` has no place below: it says nothing.
    """
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    beside = _fitting(widths, width)
    below = [place for place in range(len(heads)) if place not in beside]
    for row in (heads, *rows):
        cells = (row[one] + " " * (widths[one] - cell_len(row[one])) for one in beside)
        yield GAP.join(cells).rstrip()
        if row is not heads:
            named = (f"{heads[one]}: {row[one]}" for one in below if row[one] != blank)
            yield from _filled(named, width)


def _fitting(widths: Sequence[int], width: int) -> list[int]:
    """Returns the columns that have room beside each other: the first, and those that still fit."""
    beside, room = [0], width - widths[0]
    for place in range(1, len(widths)):
        needed = len(GAP) + widths[place]
        if needed <= room:
            beside.append(place)
            room -= needed
    return beside


def _filled(items: Iterator[str], width: int) -> Iterator[str]:
    """Yields indented lines of items; an item longer than a line is broken between its words."""
    line = ""
    for item in items:
        longer = f"{line}{GAP}{item}" if line else item
        if line and cell_len(INDENT + longer) > width:
            yield from _wrapped(line, width)
            longer = item
        line = longer
    if line:
        yield from _wrapped(line, width)


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(
        line,
        width,
        initial_indent=INDENT,
        subsequent_indent=INDENT + GAP,
        break_long_words=False,
        break_on_hyphens=False,
    )
