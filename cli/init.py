"""`runward init`: two files to begin with, which run at once and without a key."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from runward.cli import output as out

APP = '''"""A shop's assistant. It looks orders up, and asks a person before it pays money back."""

from runward import Agent, Budget, Cap, RunwardPlugin, tool
from runward.testing import ask, say, scripted


@tool
async def lookup_order(order_id: str) -> str:
    """Returns where an order is."""
    return f"order {order_id} was shipped"


@tool(effect="money", idempotent=True)  # money asks by default
async def refund(order_id: str, amount: str) -> str:
    """Pays an order back."""
    return f"refunded {amount} for order {order_id}"


assistant = Agent(
    "assistant",
    model="scripted:assistant",  # or "anthropic:claude-sonnet-5", "openai:gpt-5", ...
    instructions="You help customers of a shop.",
    tools=[lookup_order, refund],
)
app = RunwardPlugin(
    agents=[assistant],
    approver_role="finance",
    budget=Budget(run=Cap(tokens=100_000), user=Cap(usd=5, per="day")),
    # What the scripted model says, so that no key is needed. Leave it out with a real model.
    providers=[
        scripted(
            assistant,
            ask("lookup_order", order_id="17"),
            ask("refund", order_id="17", amount="5.00"),
            say("I have paid order 17 back."),
        )
    ],
)
'''

TEST = '''"""Runs the assistant on a real Temporal and PostgreSQL; only the model is scripted."""

import pytest
from app import assistant

from runward.testing import Stack, ask, say, scripted


@pytest.mark.asyncio
async def test_it_looks_orders_up(runward_stack: Stack) -> None:
    model = scripted(assistant, ask("lookup_order", order_id="17"), say("It was shipped."))
    async with runward_stack.worker(runward_stack.plugin(agents=[assistant], providers=[model])):
        ada = await runward_stack.acting_as("ada")
        result = await ada.execute("assistant", "Where is order 17?")

    assert result.output == "It was shipped."
'''

FILES = {"app.py": APP, "test_app.py": TEST}

NEXT = """\
Made {files}. Now:

{enter}  runward dev --app app:app      # Temporal, PostgreSQL, a worker; it prints what to export
  runward runs start assistant "Pay order 17 back" --as ada --tenant acme
  runward approvals list --as bob --tenant acme --role finance
  runward approvals approve ID --as bob --tenant acme --role finance
  pytest                         # needs runward[testing]"""


def init(
    folder: Annotated[Path, typer.Argument(help="Where to put them", metavar="FOLDER")] = Path(),
) -> None:
    """Write an app and its test to begin with; both run at once, without a key

    Nothing that is there is overwritten.
    """
    from runward.contracts.errors import ConfigurationError

    taken = [name for name in FILES if (folder / name).exists()]
    if taken:
        raise ConfigurationError(
            f"runward init {folder}", f"{taken[0]} is there already", "Name an empty folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            for one in FILES:  # both or none: with one of them there, a second try is refused
                (folder / one).unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(folder / name)) from error
    files = " and ".join(str(folder / name) for name in FILES)
    enter = "" if folder == Path() else f"  cd {shlex.quote(str(folder))}\n"
    out.note(NEXT.format(files=files, enter=enter))
