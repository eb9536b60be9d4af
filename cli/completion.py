"""What a shell is offered for an id or a name: read from the store, soon or not at all.

A shell puts what it is offered into the line that somebody is typing, and zsh evaluates it before
that. Ids and arguments are what users and models wrote: only plain words leave this module.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from threading import Thread
from typing import TYPE_CHECKING

import typer

from runward.cli.output import expected

if TYPE_CHECKING:
    from runward.contracts.runs import RunState
    from runward.contracts.story import RunRow
    from runward.store.pool import Store

    # What is offered, each with what a shell may show beside it.
    Offer = Iterable[tuple[str, str]]
    Look = Callable[[Store, str], Awaitable[Offer]]

SECONDS_MAX = 1.0  # for the store; whoever presses Tab waits
READ_MAX = 500  # of the tenant's newest runs
OFFERED_MAX = 50
HELP_CHARS_MAX = 80
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_NO_WORDS = re.compile(r"[^\w.,/-]+")


def run_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Returns the ids of the tenant's newest runs, with what each is."""
    return _offered(ctx, incomplete, _runs)


def open_run_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Returns the ids of the tenant's newest runs that have not ended."""
    return _offered(ctx, incomplete, _open_runs)


def approval_ids(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Returns the ids of the tenant's pending requests, with what each asks."""
    return _offered(ctx, incomplete, _approvals)


def agents(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Returns the agents of the tenant's newest runs, the last used one first."""
    return _offered(ctx, incomplete, _agents)


async def _runs(store: Store, tenant: str) -> Offer:
    return map(_run, await _rows(store, tenant))


async def _open_runs(store: Store, tenant: str) -> Offer:
    return map(_run, await _rows(store, tenant, "open"))


async def _approvals(store: Store, tenant: str) -> Offer:
    found = await store.approvals.list(tenant, "pending", OFFERED_MAX)
    return ((one.id, f"{one.tool} {one.arguments} for {one.requester}") for one in found)


async def _agents(store: Store, tenant: str) -> Offer:
    return {one.agent: "" for one in await _rows(store, tenant)}.items()


async def _rows(store: Store, tenant: str, state: RunState | None = None) -> Iterable[RunRow]:
    from runward.contracts.story import RunQuery

    return await store.reads.runs(tenant, RunQuery(state=state, limit=READ_MAX))


def _run(one: RunRow) -> tuple[str, str]:
    return one.workflow_id, f"{one.agent} {one.state} for {one.user}"


def _offered(ctx: typer.Context, incomplete: str, look: Look) -> list[tuple[str, str]]:
    """Returns what begins so; nothing where there is no store, no tenant, or no answer in time."""
    found: list[tuple[str, str]] = []
    where = _where(ctx)
    if where is None:
        return found
    store, tenant = where

    def read() -> None:
        try:
            found.extend(asyncio.run(_looked(store, tenant, look)))
        except Exception as error:
            if not expected(error):
                raise

    # A thread that is left behind, since nothing else ends the wait for a name server.
    thread = Thread(target=read, daemon=True)
    thread.start()
    thread.join(SECONDS_MAX)
    return [
        (one, _NO_WORDS.sub(" ", text).replace(" ,", ",")[:HELP_CHARS_MAX].strip())
        for one, text in found
        if _PLAIN.fullmatch(one) and one.startswith(incomplete)
    ][:OFFERED_MAX]


def _where(ctx: typer.Context) -> tuple[Store, str] | None:
    """Returns the store, not opened yet, and the tenant that the line or the settings name."""
    from runward.client.reader import ROLE
    from runward.client.settings import Settings
    from runward.contracts.errors import ConfigurationError
    from runward.store.pool import Store

    try:
        given = {one: ctx.params.get(one) for one in ("tenant", "database_url")}
        settings = Settings.load(**given)
    except ConfigurationError:
        return None
    if not settings.dsn or not settings.tenant:
        return None
    return Store(settings.dsn, role=ROLE, connections_max=1), settings.tenant


async def _looked(store: Store, tenant: str, look: Look) -> Offer:
    async with store:
        return list(await look(store, tenant))


def settings() -> list[str]:
    """Returns the names of all settings that are runward's own."""
    from runward.client.settings import Settings

    return list(Settings.model_fields)
