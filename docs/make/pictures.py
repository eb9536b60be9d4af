"""Draws the pictures of the concept pages: text in box characters in, SVG out.

What stands in `docs/concepts/*.txt` is the picture, and can be read and changed as it is. Boxes of
`╭╮╰╯` are plain, of `┏┓┗┛` what the page is about, of `╔╗╚╝` what is kept. Lines may be dashed
(`┄┆`); a box's first line is its title.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

CELL_W, CELL_H, EDGE = 8, 18, 16
ROUND = 6
CORNERS = {"╭": "╮╰╯", "┏": "┓┗┛", "╔": "╗╚╝"}
KIND = {"╭": "plain", "┏": "main", "╔": "kept"}
# Where a line leaves its cell: north, east, south, west.
ARMS = {
    **dict.fromkeys("─┄", "ew"),
    **dict.fromkeys("│┆", "ns"),
    **{"┌": "es", "┐": "sw", "└": "ne", "┘": "nw"},
    **{"├": "nes", "┤": "nsw", "┬": "esw", "┴": "new", "┼": "nesw"},
}
DASHED = "┄┆"
HEADS = {"▶": (1, 0), "◀": (-1, 0), "▼": (0, 1), "▲": (0, -1)}
STEPS = {"n": (0, -1), "e": (1, 0), "s": (0, 1), "w": (-1, 0)}
TEXT = re.compile(r"[^\s─│┄┆┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛╔╗╚╝━┃═║▶◀▲▼]+(?: [^\s─│┄┆├┤╭╰┏┗╔╚┃║▶◀▲▼]+)*")
STYLE = """\
.paper{fill:#fafbfd;stroke:#e3e6ee}
.plain{fill:#fff;stroke:#9aa3b5}
.main{fill:#e8edff;stroke:#4a61d6;stroke-width:2}
.kept{fill:#fff6e0;stroke:#c08a1e}
path{fill:none;stroke:#6b7488;stroke-width:1.4}
.dashed{stroke-dasharray:4 3}
polygon{fill:#6b7488}
text{font:13px ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace;fill:#4d5566}
.in{fill:#20242e}
.title{fill:#111;font-weight:bold}
"""


@dataclass(frozen=True, slots=True)
class Box:
    """A box by the cells of its corners."""

    left: int
    top: int
    right: int
    bottom: int
    kind: str

    def inside(self, x: int, y: int) -> bool:
        """Returns whether the cell is within the box's border."""
        return self.left < x < self.right and self.top < y < self.bottom

    def border(self, x: int, y: int) -> bool:
        """Returns whether the cell is on the border."""
        within = self.left <= x <= self.right and self.top <= y <= self.bottom
        return within and not self.inside(x, y)


def draw(source: str, title: str) -> str:
    """Returns the picture as SVG."""
    rows = source.rstrip().split("\n")
    width = max(map(len, rows)) * CELL_W + 2 * EDGE
    height = len(rows) * CELL_H + 2 * EDGE
    boxes = [
        box for y, row in enumerate(rows) for x in range(len(row)) if (box := _box(rows, x, y))
    ]
    boxes.sort(key=lambda box: (box.top, box.left))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="10"/>',
        *map(_rect, boxes),
        *_lines(rows, boxes),
        *_texts(rows, boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def write(folder: Path) -> None:
    """Draws every picture of the folder beside its source."""
    for source in sorted(folder.glob("*.txt")):
        source.with_suffix(".svg").write_text(picture(source), encoding="utf-8")


def picture(source: Path) -> str:
    """Returns the picture that the file describes."""
    return draw(source.read_text(encoding="utf-8"), source.stem.replace("-", " "))


def _at(rows: list[str], x: int, y: int) -> str:
    return rows[y][x] if 0 <= y < len(rows) and 0 <= x < len(rows[y]) else " "


def _box(rows: list[str], x: int, y: int) -> Box | None:
    corner = rows[y][x]
    if corner not in CORNERS:
        return None
    right_top, left_bottom, right_bottom = tuple(CORNERS[corner])
    right = rows[y].find(right_top, x)
    bottom = next(
        (below for below in range(y, len(rows)) if _at(rows, x, below) == left_bottom), -1
    )
    if right < 0 or _at(rows, right, bottom) != right_bottom:
        raise ValueError(f"The box at line {y + 1}, column {x + 1} is not closed")
    return Box(x, y, right, bottom, KIND[corner])


def _middle(x: float, y: float) -> tuple[float, float]:
    return EDGE + (x + 0.5) * CELL_W, EDGE + (y + 0.5) * CELL_H


def _rect(box: Box) -> str:
    x, y = _middle(box.left, box.top)
    width, height = (box.right - box.left) * CELL_W, (box.bottom - box.top) * CELL_H
    size = f'x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="{ROUND}"'
    return f'<rect class="{box.kind}" {size}/>'


def _lines(rows: list[str], boxes: list[Box]) -> list[str]:
    parts: dict[str, list[str]] = {"": [], "dashed": []}
    heads = []
    for y, row in enumerate(rows):
        for x, mark in enumerate(row):
            cx, cy = _middle(x, y)
            if mark in HEADS:
                heads.append(_head(cx, cy, *HEADS[mark]))
            for arm in ARMS.get(mark, ""):
                dx, dy = STEPS[arm]
                if any(box.border(x, y) and box.border(x + dx, y + dy) for box in boxes):
                    continue  # drawn as a part of the box
                end = f"{cx + dx * CELL_W / 2:g} {cy + dy * CELL_H / 2:g}"
                parts["dashed" if mark in DASHED else ""].append(f"M{cx:g} {cy:g}L{end}")
    paths = [
        f'<path class="{kind}" d="{"".join(found)}"/>' for kind, found in parts.items() if found
    ]
    return paths + heads


def _head(x: float, y: float, dx: int, dy: int) -> str:
    """Returns an arrow's head; it reaches into the next cell, up to the border of a box."""
    reach = (CELL_W if dx else CELL_H) - 2
    tip = (x + dx * reach, y + dy * reach)
    base = (tip[0] - dx * 9, tip[1] - dy * 9)
    points = [tip, (base[0] + dy * 4, base[1] + dx * 4), (base[0] - dy * 4, base[1] - dx * 4)]
    drawn = " ".join(f"{px:g},{py:g}" for px, py in points)
    return (
        f'<path d="M{x - dx * CELL_W / 2:g} {y - dy * CELL_H / 2:g}L{base[0]:g} {base[1]:g}"/>'
        f'<polygon points="{drawn}"/>'
    )


def _texts(rows: list[str], boxes: list[Box]) -> list[str]:
    found = []
    for y, row in enumerate(rows):
        for match in TEXT.finditer(row):
            x, words = match.start(), match[0]
            around = [box for box in boxes if box.inside(x, y)]
            title = any(y == box.top + 1 for box in around)
            kind = "title" if title else "in" if around else ""
            place = f'x="{EDGE + x * CELL_W}" y="{EDGE + y * CELL_H + 13}"'
            length = f'textLength="{len(words) * CELL_W}"'
            found.append(f'<text class="{kind}" {place} {length}>{escape(words)}</text>')
    return found
