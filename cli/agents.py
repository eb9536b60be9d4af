"""`runward agents` and `runward tools`: what an app defines. Asks no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from runward.cli import completion
from runward.cli import output as out
from runward.cli.caller import Output
from runward.cli.worker import App, app_name

if TYPE_CHECKING:
    from runward.contracts.agents import Agent
    from runward.contracts.tools import Tool

app = typer.Typer(no_args_is_help=True, help="Print the agents of an app")
tools_app = typer.Typer(no_args_is_help=True, help="Print the tools of an app")


@app.command("list")
def list_(app: App = None, output: Output = "text") -> None:
    """List the app's agents"""
    out.data([_agent(one) for one in _agents(app)], output)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(help="The agent's name", metavar="NAME", autocompletion=completion.agents),
    ],
    app: App = None,
    output: Output = "text",
) -> None:
    """Print an agent as its runs are pinned to it"""
    from runward.contracts.errors import NotFound

    found = _agents(app)
    agent = next((one for one in found if one.name == name), None)
    if agent is None:
        names = ", ".join(one.name for one in found) or "none"
        raise NotFound(f"The agent {name!r}", "This app does not define it", f"It has {names}")
    said = _agent(agent) | {
        "output": "text" if agent.output_type is str else repr(agent.output_type),
        "max_output_tokens": agent.max_output_tokens,
        "approver_role": agent.approver_role,
        "instructions": agent.instructions,
        "digest": agent.snapshot_digest,
    }
    out.data(said, output)


@tools_app.command("list")
def tools(app: App = None, output: Output = "text") -> None:
    """List the app's tools, and what permissions are decided by"""
    found = {(one.name, agent.name): one for agent in _agents(app) for one in agent.tools}
    out.data([_tool(one, agent) for (_, agent), one in sorted(found.items())], output)


def _agents(app: str | None) -> tuple[Agent[Any], ...]:
    from runward.workers.app import load_app

    return load_app(app_name(app)).agents


def _agent(one: Agent[Any]) -> dict[str, Any]:
    return {
        "name": one.name,
        "model": one.model,
        "tools": [tool.name for tool in one.tools],
        "max_turns": one.max_turns,
    }


def _tool(one: Tool, agent: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "agent": agent,
        "effect": one.effect,
        "destructive": one.destructive,
        "idempotent": one.idempotent,
        "requires_approval": one.requires_approval,
        "on_unknown": one.on_unknown,
        "timeout_s": one.timeout.total_seconds(),
        "retries": one.retries,
    }
