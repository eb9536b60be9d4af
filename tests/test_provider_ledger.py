"""The scripted provider's own books: one line per bill, whoever writes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runward.activities import scripted_ledger
from runward.activities.scripted_ledger import Bill, FileLedger, billed
from runward.contracts.usage import Usage
from runward.testing.scripts import Fail, failing, say
from tests.test_provider_scripted import error_of, playing, request


async def test_two_providers_share_a_file(tmp_path: Path) -> None:
    """A second worker's attempt is the second attempt, and both see one set of bills."""
    path = tmp_path / "ledger"
    turn = failing(say("Hi"), Fail(503), Fail(503))
    one, two = (playing(turn, ledger=FileLedger(path)) for _ in range(2))

    assert FileLedger(path).bills() == ()
    await error_of(one, request(key='k "\n1'))
    await error_of(two, request(key='k "\n1'))
    answer = await one.call(request(key='k "\n1'))

    expected = (Bill('k "\n1', "scripted:s", answer.usage),)
    assert expected == FileLedger(path).bills() == one.ledger.bills()
    assert len(path.read_bytes().splitlines()) == 1


async def test_a_script_without_faults_counts_no_attempts(tmp_path: Path) -> None:
    ledger = FileLedger(tmp_path / "ledger")
    await playing(say("Hi"), ledger=ledger).call(request())

    assert ledger.attempt("k1") == 0


def test_an_attempt_of_another_process_in_between_comes_after_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one writes its line after ours, before we have read the file."""
    ours, other = FileLedger(tmp_path / "ledger"), FileLedger(tmp_path / "ledger")
    numbers: list[int] = []
    append = scripted_ledger._append

    def append_and_be_overtaken(path: Path, value: object) -> int:
        end = append(path, value)
        monkeypatch.setattr(scripted_ledger, "_append", append)
        numbers.append(other.attempt("k1"))
        return end

    monkeypatch.setattr(scripted_ledger, "_append", append_and_be_overtaken)

    assert [ours.attempt("k1"), *numbers, ours.attempt("k1")] == [0, 1, 2]


WRITER = """
import sys
from runward.activities.scripted_ledger import Bill, FileLedger
from runward.contracts.usage import Usage
ledger = FileLedger(sys.argv[1])
for number in range(200):
    print(ledger.attempt("shared"))
    ledger.bill(Bill("k" * 500, sys.argv[2], Usage(output=1)))
"""


def test_processes_never_mix_their_lines_nor_share_an_attempt(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)], stdout=subprocess.PIPE
        )
        for number in range(4)
    ]
    numbers = [int(line) for one in writers for line in one.communicate()[0].split()]

    assert list(range(800)) == sorted(numbers)
    assert billed(FileLedger(path)) == Usage(output=800)
