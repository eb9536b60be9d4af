"""The tutorial, from an empty directory, with the built wheel, as it is written."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.doc_blocks import ROOT, Block, blocks
from tests.wheel import install

PAGE, SEQUEL = "docs/tutorial.md", "docs/operating.md"
WORDS_MAX, LINES_MAX = 1200, 40
TAKES_S_MAX = 240
COMMAND_S_MAX = 60
STARTS_S_MAX = 90


class Reader:
    """Somebody with two terminals who does what the page says, and nothing else.

    Only pip is played: the wheel comes from here and not from an index.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self._wheel = wheel
        self._exports = ""  # what was typed or pasted into the second terminal, and stays
        self._served: subprocess.Popen[bytes] | None = None
        self._printed = ""
        self._names: dict[str, str] = {}

    def does(self, block: Block) -> None:
        """Follows one block of the page."""
        if block.language == "python":
            assert block.file is not None, f"in which file? {block.begins}"
            (self.folder / block.file).write_text(block.code)
        elif block.language == "output":
            assert self._printed.endswith(block.code), self._printed
        elif "pip install" in block.code:
            self._installs(block.code)
        elif block.code.startswith("runward dev"):
            self._serves(block.code)
        else:
            self._types(block.code)

    def stops(self) -> None:
        """Presses Ctrl-C in the first terminal."""
        served, self._served = self._served, None
        if served is not None:
            served.send_signal(signal.SIGINT)
            assert served.wait(COMMAND_S_MAX) == 0

    def _installs(self, code: str) -> None:
        (extra,) = re.findall(r"^pip install 'runward\[(\w+)\]'$", code, re.MULTILINE)
        install(self._wheel, extra, self.folder / ".venv")

    def _serves(self, code: str) -> None:
        self.stops()
        log = self.folder.parent / "dev.log"
        with log.open("wb") as file:
            self._served = subprocess.Popen(
                ["bash", "-c", f". .venv/bin/activate\nexec {code}"],
                cwd=self.folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + STARTS_S_MAX
        while " polls " not in (said := log.read_text()):
            assert self._served.poll() is None and time.monotonic() < until, said
            time.sleep(0.1)
        pasted = [line for line in said.splitlines() if line.startswith("export ")]
        assert len(pasted) == 4, said
        self._exports += "\n".join(pasted) + "\n"

    def _types(self, code: str) -> None:
        for name, value in self._names.items():
            code = re.sub(rf"\b{name}\b", value, code)
        until = time.monotonic() + COMMAND_S_MAX
        while True:
            ran = subprocess.run(
                ["bash", "-ec", self._exports + code],
                cwd=self.folder,
                env=_environment(),
                capture_output=True,
                text=True,
                timeout=COMMAND_S_MAX,
            )
            # A person reads the page meanwhile; the run asks within moments.
            waits = "runs show" in code and "APPROVAL" not in self._names
            if not waits or "approval pending" in ran.stdout or time.monotonic() > until:
                break
        assert ran.returncode == 0, (code, ran.stdout, ran.stderr)
        assert "Warning" not in ran.stderr + ran.stdout
        if waits:
            last = [line for line in ran.stdout.splitlines() if "\t" in line][-1]
            assert "mode:default" in last.split("\t") and "approval pending" in last
        self._printed = ran.stdout
        self._remembers(code)

    def _remembers(self, code: str) -> None:
        kept = [line for line in code.splitlines() if line.startswith(("export ", ". "))]
        self._exports += "".join(f"{line}\n" for line in kept)
        if code.startswith("runward runs start"):
            self._names["RUN"] = self._printed.strip()
        if code.startswith("runward approvals list"):
            self._names["APPROVAL"] = self._printed.split("\t")[0]


def _environment() -> dict[str, str]:
    """Returns the environment of a fresh terminal, in which a `temporal` can be found."""
    kept = ("HOME", "LANG", "USER", "XDG_CACHE_HOME", "RUNWARD_TEMPORAL_BINARY")
    paths = [path for path in os.environ["PATH"].split(":") if not path.startswith(str(ROOT))]
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "PATH": ":".join(paths)
    }


@pytest.mark.timeout(TAKES_S_MAX)
def test_the_tutorial_leaves_out_no_step(tmp_path: Path, wheel: Path) -> None:
    """Each block in its order, in an empty directory; then the page that goes on from there."""
    folder = tmp_path / "empty"
    folder.mkdir()
    reader = Reader(folder, wheel)
    try:
        for block in (*blocks(PAGE), *blocks(SEQUEL)):
            reader.does(block)
    finally:
        reader.stops()

    assert {path.name for path in folder.glob("*.*") if path.is_file()} == {
        "shop.py",
        "test_shop.py",
        "refund.json",
    }


def test_the_tutorial_is_short() -> None:
    """All code that it has somebody write, and all its words, code and commands included."""
    words = len((ROOT / PAGE).read_text().split())
    lines = sum(block.lines for block in blocks(PAGE) if block.language == "python")

    assert words <= WORDS_MAX
    assert 0 < lines <= LINES_MAX
