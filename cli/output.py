"""The one place from which the command line speaks: data to stdout, everything else to stderr.

What models and users wrote is never printed raw on a terminal: control characters could redraw the
screen, and bidirectional marks could show an approver something else than what will run.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO

import typer

from runward.cli import times

if TYPE_CHECKING:
    from rich.console import Console

Format = Literal["text", "json", "jsonl"]
Stream = Literal["text", "jsonl"]  # of what is printed as it happens: that is no one document
Row = Mapping[str, Any]

NOTHING = "-"  # where there is no value

EXIT_FAILED = 1
EXIT_INTERRUPTED_RUN = 3  # the run ended, but without an answer: a limit or a budget stopped it
EXIT_DENIED = 4
EXIT_NOT_FOUND = 5
EXIT_TIMEOUT = 124
EXIT_CTRL_C = 130
_EXITS = {"RW-TICKET": EXIT_DENIED, "RW-APPROVAL": EXIT_DENIED, "RW-NOT-FOUND": EXIT_NOT_FOUND}
# Errors of these packages are about the world; others are our mistakes, and keep their traceback.
_SAID = ("runward.", "temporalio.", "asyncpg.")


def data(value: Row | Sequence[Row], output: Format) -> None:
    """Prints data: as JSON, or for people one line per field, or a table of rows.

    Times are handed over as they are: `times` says how each form has them.
    """
    if output == "json":
        _print(_json(value, indent=2))
    elif output == "jsonl":
        for row in [value] if isinstance(value, Mapping) else value:
            _print(_json(row), flush=True)  # whoever reads a stream reads it now
    elif isinstance(value, Mapping):
        width = max(map(len, value), default=0)
        for key, item in value.items():
            _print(f"{key.replace('_', ' '):<{width}}  {_cell(item)}")
    elif value:
        _table(value)


def answer(text: str) -> None:
    """Prints an answer as it is; on a terminal without what could drive the terminal."""
    # Flushed: it may be one line of many, and whoever reads them reads each as it comes.
    _print(visible(text, keep="\n\t") if sys.stdout.isatty() else text, flush=True)


def note(text: str) -> None:
    """Says something to the person at the terminal."""
    _say(text, "2")


def failure(error: BaseException) -> None:
    """Says what went wrong, in one message."""
    from runward.contracts.errors import said

    _say(said(error), "31")


def exit_code(error: BaseException) -> int:
    """Returns the code with which an error ends the command."""
    return _EXITS.get(getattr(error, "code", ""), EXIT_FAILED)


def expected(error: BaseException) -> bool:
    """Returns whether the error is one to be told in a sentence, not with a traceback."""
    module = f"{type(error).__module__}."
    return module.startswith(_SAID) or isinstance(error, OSError)


def leave(code: int) -> NoReturn:
    """Ends the process with that exit code, or as failed if its output did not arrive.

    Where the Temporal SDK is loaded, without the interpreter's own ending: in that, threads of the
    SDK abort every now and then, and a command that succeeded would exit with 134. Nor where a
    thread is left, such as one in which a name server is asked: the interpreter waits for it.
    """
    arrived = False
    try:
        sys.stdout.flush()
        arrived = True
    except BrokenPipeError:  # whoever read it has gone, and needs no word
        code = code or EXIT_FAILED
    except OSError as error:
        if not code:  # else it has been said
            failure(_lost(error))
        code = code or EXIT_FAILED
    if arrived and "temporalio" not in sys.modules and threading.active_count() == 1:
        sys.exit(code)
    logging.shutdown()
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        sys.stderr.flush()
    os._exit(code)


def prepare() -> None:
    """Makes the streams such that no text and no caller can break them.

    What the terminal's encoding lacks is printed as \\u20ac, as Python does on stderr; a stream
    that the caller closed is read as empty and written to nowhere.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def visible(text: str, *, keep: str = "") -> str:
    """Returns the text with everything that does not print spelled out, such as \\u202e."""
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )


def coloured(stream: TextIO) -> bool:
    """Returns whether the stream is a terminal whose user has not refused colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _print(text: str, *, flush: bool = False) -> None:
    try:
        print(text, flush=flush)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _lost(error) from error


def _lost(error: OSError) -> Exception:
    from runward.contracts.errors import ConfigurationError

    return ConfigurationError(
        "The output", error.strerror or "It cannot be written", "Write it to another place"
    )


def _json(value: Any, indent: int | None = None) -> str:
    """Returns JSON in what stdout can hold; what does not print is escaped as JSON does it."""
    unicode = (sys.stdout.encoding or "").lower() in ("utf-8", "utf8")
    text = json.dumps(value, ensure_ascii=not unicode, indent=indent, default=_as_json)
    return "".join(
        one if one.isprintable() or one == "\n" else json.dumps(one)[1:-1] for one in text
    )


def _as_json(value: object) -> str:
    return times.rfc3339(value) if isinstance(value, datetime) else str(value)


def console() -> Console:
    """Returns the terminal for what is drawn on it."""
    from rich.console import Console

    return Console(no_color=not coloured(sys.stdout))


def confirm(question: str, yes: bool) -> None:
    """Returns if the person says yes, or said it with --yes; ends the command otherwise."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here: say --yes")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:  # Ctrl-C, or the end of what is typed
        raise typer.Exit(EXIT_CTRL_C) from None
    if not agreed:
        note("Nothing was done")
        raise typer.Exit(EXIT_FAILED)


def _say(text: str, style: str) -> None:
    text = visible(text, keep="\n\t")
    with contextlib.suppress(OSError):  # nobody can be told
        print(f"\x1b[{style}m{text}\x1b[0m" if coloured(sys.stderr) else text, file=sys.stderr)


def _table(rows: Sequence[Row]) -> None:
    """Prints a table on a terminal, and lines with tabs where something else reads them."""
    heads = list(rows[0])
    if not sys.stdout.isatty():
        for row in rows:
            _print("\t".join(_cell(row[head]) for head in heads))
        return
    from runward.cli.tables import lines

    heads = [head for head in heads if any(row[head] is not None for row in rows)]
    cells = [[_cell(row[head]) for head in heads] for row in rows]
    width = shutil.get_terminal_size().columns
    head, *below = lines([one.replace("_", " ") for one in heads], cells, width, NOTHING)
    _print(f"\x1b[1m{head}\x1b[0m" if coloured(sys.stdout) else head)
    for line in below:
        _print(line)


def _cell(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value)) or NOTHING
    if isinstance(value, datetime):
        return times.text(value)
    return visible(str(value))
