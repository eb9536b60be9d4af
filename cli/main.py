"""The entry point: the tree of commands, and how errors end them."""

from __future__ import annotations

from typing import Annotated

import typer

from runward.cli import agents, approvals, config, db, issuers, output, runs, ticket, usage
from runward.cli.dev import dev
from runward.cli.doctor import doctor
from runward.cli.health import health
from runward.cli.init import init
from runward.cli.whoami import whoami
from runward.cli.worker import worker

app = typer.Typer(
    name="runward",
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
        app()
    except SystemExit as ended:  # how Typer ends, whatever became of the command
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except Exception as error:
        if not output.expected(error):
            raise
        output.failure(error)
        code = output.exit_code(error)
    output.leave(code)


if __name__ == "__main__":
    main()
