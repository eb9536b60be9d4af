"""The entry point: the tree of commands, and how errors end them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from runward.cli import agents, approvals, config, db, issuers, output, runs, ticket, usage
from runward.cli.dev import dev
from runward.cli.doctor import doctor
from runward.cli.health import health
from runward.cli.init import init
from runward.cli.whoami import whoami
from runward.cli.worker import worker

_NO_HOME = "Could not determine home directory"


class Commands(TyperGroup):
    """The tree of commands. What Typer has pydantic judge is refused in our own words."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # Typer's own context
        """Returns what the command returns."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if error.__cause__ is not None:
                from pydantic import ValidationError

                from runward.contracts.wording import worded

                if isinstance(error.__cause__, ValidationError):
                    error.message = output.visible(worded(error.__cause__))
            raise


app = typer.Typer(
    name="runward",
    cls=Commands,
    help="Durable, governed AI-agent runs on Temporal",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: boxes would cost as much as all the rest of `--help`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(init)
app.command()(dev)
app.command()(worker)
app.command()(health)
app.command()(doctor)
app.command()(whoami)
app.add_typer(runs.app, name="runs")
app.add_typer(approvals.app, name="approvals")
app.add_typer(agents.app, name="agents")
app.add_typer(agents.tools_app, name="tools")
app.add_typer(usage.app, name="usage")
app.add_typer(issuers.app, name="issuers")
app.add_typer(ticket.app, name="ticket")
app.add_typer(db.app, name="db")
app.add_typer(config.app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("runward"))
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")
    ] = False,
) -> None:
    """Durable, governed AI-agent runs on Temporal"""


def main() -> None:
    """Runs the command line: 0 done, 1 failed, 2 wrong usage; others are in `output.py`."""
    code = 0
    output.prepare()
    try:
        _check_text(sys.argv[1:])
        app()
    except SystemExit as ended:  # how Typer ends, whatever became of the command
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:
        told = _told(error)
        if not output.expected(told):
            raise
        output.failure(told)
        code = output.exit_code(told)
    output.leave(code)


def _told(error: Exception) -> Exception:
    """Returns the error to tell: pathlib has none of its own for a user without a home."""
    if not isinstance(error, RuntimeError) or _NO_HOME not in str(error):
        return error
    from runward.contracts.errors import ConfigurationError

    return ConfigurationError("A user's home", "Nothing says where it is", "Set HOME")


def _check_text(words: Sequence[str]) -> None:
    """Refuses bytes that are no text here: in names and rows they would be half characters."""
    for place, word in enumerate(words, 1):
        try:
            word.encode()
        except UnicodeError:
            from runward.contracts.errors import RequestRefused

            raise RequestRefused(
                f"Word {place} of the command",
                f"It is no text in this terminal's encoding, {sys.getfilesystemencoding()}",
                "Write it in that, or set another locale, such as LC_ALL=C.UTF-8",
            ) from None


if __name__ == "__main__":
    main()
