"""`runward config`: the settings as they hold now, and those in the file."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from runward.cli import output as out
from runward.cli.caller import Output, Profile
from runward.cli.completion import settings

app = typer.Typer(no_args_is_help=True, help="Print and change the settings")

Name = Annotated[
    str,
    typer.Argument(
        help="Its name, as `config list` prints it", metavar="NAME", autocompletion=settings
    ),
]


@app.command("list")
def list_(
    show_origin: Annotated[
        bool, typer.Option("--show-origin", help="Say where each value comes from")
    ] = False,
    profile: Profile = None,
    output: Output = "text",
) -> None:
    """List all settings; a flag wins over a variable, a variable over the file

    Secrets are not shown.
    """
    from runward.client.origins import origins

    rows = [asdict(one) for one in origins(profile)]
    if not show_origin:
        rows = [{key: row[key] for key in ("name", "value")} for row in rows]
    out.data(rows, output)


@app.command()
def get(name: Name, output: Output = "text") -> None:
    """Print a setting as it holds now; exit code 5 if it has no value

    Secrets are not shown.
    """
    from runward.client.config_file import known
    from runward.client.origins import origins
    from runward.contracts.errors import NotFound

    found = {one.name: one for one in origins()}
    known(name, list(found))
    if found[name].value is None:
        raise NotFound(
            f"The setting {name!r}", "It has no value", f"Give it one: runward config set {name}"
        )
    if output == "text":
        out.answer(str(found[name].value))
    else:
        out.data(asdict(found[name]), output)


@app.command("set", context_settings={"ignore_unknown_options": True})  # -1 is a value
def set_(
    name: Name,
    value: Annotated[
        str,
        typer.Argument(help="Its value; - reads it from stdin, as for secrets", metavar="VALUE"),
    ],
) -> None:
    """Write a setting into the file; the rest of it stays as it is, comments too

    The file is runward.toml here, or the one that RUNWARD_CONFIG_FILE names.
    """
    from runward.client.config_file import put

    path = put(name, sys.stdin.read().rstrip("\r\n") if value == "-" else value)
    _told(f"Wrote {name} into {path}", name)


@app.command()
def delete(name: Name) -> None:
    """Take a setting out of the file"""
    from runward.client.config_file import remove

    _told(f"Took {name} out of {remove(name)}", name)


def _told(done: str, name: str) -> None:
    variable = f"RUNWARD_{name.upper()}"
    also = f"; {variable} is set, and wins over the file" if variable in os.environ else ""
    out.note(f"{done}{also}")
