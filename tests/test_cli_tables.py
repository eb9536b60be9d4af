"""Tables on a terminal: nothing is cut, and nothing that somebody copies is broken."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from runward.cli import output
from runward.cli.output import NOTHING
from runward.cli.tables import INDENT, lines

ID = "674e28b3-a401-48e2-baba-3c56010b61bc"
HEADS = ["id", "tool", "note"]
WORD = st.text("ab1-\u00e9\u4e2d", min_size=1, max_size=60).filter(lambda one: one != "-")
WORDS = st.lists(WORD, min_size=1, max_size=8)
ROWS = st.lists(st.tuples(*[WORDS.map(" ".join)] * 3), min_size=1, max_size=4)


def test_what_fits_is_a_line_for_each_row() -> None:
    rows = [("1", "refund", "-"), ("17", "lookup", "slow")]

    assert list(lines(HEADS, rows, 80, NOTHING)) == [
        "id  tool    note",
        "1   refund  -",
        "17  lookup  slow",
    ]


def test_a_column_has_room_up_to_the_last_cell() -> None:
    rows = [("1", "\u4e2d\u6587", "ok"), ("2", "refund", "slow")]

    assert list(lines(HEADS, rows, 16, NOTHING)) == [
        "id  tool    note",
        "1   \u4e2d\u6587    ok",
        "2   refund  slow",
    ]
    assert next(lines(HEADS, rows, 15, NOTHING)) == "id  tool"


def test_what_has_no_room_stands_below_under_its_name() -> None:
    rows = [(ID, "refund", "money call requires approval"), (ID, "lookup", "-")]

    assert list(lines(HEADS, rows, 60, NOTHING)) == [
        f"id{' ' * 36}tool",
        f"{ID}  refund",
        "    note: money call requires approval",
        f"{ID}  lookup",
    ]


def test_short_values_share_a_line_below_and_a_long_one_is_broken_between_words() -> None:
    heads, row = ["id", "by", "at", "why"], (ID, "ada", "noon", f"asks for {ID} of an order")

    assert list(lines(heads, [row], 38, NOTHING))[2:] == [
        "    by: ada  at: noon",
        "    why: asks for",
        f"      {ID}",
        "      of an order",
    ]


@given(ROWS, st.integers(1, 200))
def test_every_word_is_there_in_one_piece_at_any_width(
    rows: list[tuple[str, ...]], width: int
) -> None:
    head, *printed = lines(HEADS, rows, width, NOTHING)
    words = " ".join(printed).split()

    assert all(word in words for row in rows for cell in row for word in cell.split())
    first = max(cell_len(one) for one in [HEADS[0], *(row[0] for row in rows)])
    assert cell_len(head) <= max(width, first)
    for line in printed:
        if line.startswith(INDENT) and len(line) > width:
            assert len(line.split()) == 1


def test_a_table_leaves_out_what_no_row_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")

    row = {"call": "t1.model", "tries": None, "usd": "0.000075", "note": "ab" * 100}
    output.data([row, {**row, "note": None}], "text")

    assert capsys.readouterr().out.splitlines() == [
        "call      usd",
        "t1.model  0.000075",
        "    note:",
        f"      {'ab' * 100}",
        "t1.model  0.000075",
    ]


def test_a_pipe_gets_a_line_for_each_row_however_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    output.data([{"id": ID, "tries": None, "note": "ab " * 100}], "text")

    assert capsys.readouterr().out == f"{ID}\t-\t{'ab ' * 100}\n"


def test_a_pipe_does_not_pay_for_what_draws_on_a_terminal() -> None:
    code = """
import sys
from runward.cli import output
output.data([{"id": "1", "tries": None}], "text")
print("rich" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout == "1\t-\nFalse\n"
