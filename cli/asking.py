"""What a run is asked on the command line: a prompt, from stdin too, and files to look at."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runward.contracts.files import File

Prompt = Annotated[
    str, typer.Argument(help="What to ask it; - reads it from stdin", metavar="PROMPT")
]
Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        help="An image or a PDF to show the model; repeat it",
        metavar="PATH",
        readable=False,  # whoever opens it says all that can be wrong with it
    ),
]


def shown(paths: Sequence[Path] | None) -> list[File]:
    """Returns the files; what no model could be sent is refused before any server is asked."""
    from runward.contracts.files import File, check

    found = [File.from_path(one) for one in paths or ()]
    check(found)
    return found


def prompt_text(prompt: str) -> str:
    """Returns the prompt; bytes that are no text here are refused, not replaced."""
    from runward.contracts.errors import RequestRefused

    try:
        text = sys.stdin.read() if prompt == "-" else prompt
        text.encode()  # what Python could not decode on the command line is in it as surrogates
    except UnicodeError:
        raise RequestRefused(
            "The prompt",
            f"It is no text in this terminal's encoding, {sys.stdin.encoding}",
            "Write it in that, or set another locale, such as LC_ALL=C.UTF-8",
        ) from None
    return text
