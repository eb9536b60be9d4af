"""The page of the command line: the help of every command, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Iterator

from typer import Context
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from runward.cli.main import app

WIDTH = 96
HEAD = """\
# The command line

What each command says with `--help`. Data goes to stdout, everything else to stderr; `-o json`
prints data for programs, `-o jsonl` a line for each item; a stream, as of `runs watch`, has the
second only. A prompt is refused where nobody can
answer it: say `--yes`. Exit codes are with the [errors](errors/index.md), variables with the
[settings](settings.md).

Times are printed in UTC: `2026-11-21 17:30:00Z` in text, RFC 3339 in JSON. Where one is asked for,
say RFC 3339, a date, or how long ago it is: `2h`, `3d`, `1h30m`, in units of `ms`, `s`, `m`, `h`,
`d` or `w`. What names no zone is UTC. A span, as of `--timeout`, is `90s`, `5m`, or seconds.

`runward --install-completion` teaches your shell to complete commands, and ids of runs and requests
and names of agents: those of your tenant in the store, if it answers within a second. zsh and fish
show beside a request what it asks.

<!-- Made by `python -m docs.make`; do not edit. -->
"""


def page() -> str:
    """Returns the page; a change of any help text changes it."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return HEAD + "".join(_sections(root, _context(root, "runward")))


def _sections(command: TyperCommand | TyperGroup, context: Context) -> Iterator[str]:
    lines = [line.rstrip() for line in command.get_help(context).splitlines()]
    text = "\n".join(lines).replace("```", "")
    yield f"\n## {context.command_path}\n\n```text\n{text}\n```\n"
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            if isinstance(child, TyperCommand | TyperGroup) and not child.hidden:
                yield from _sections(child, _context(child, name, context))


def _context(
    command: TyperCommand | TyperGroup, name: str, parent: Context | None = None
) -> Context:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return Context(command, info_name=name, parent=parent, **settings)
