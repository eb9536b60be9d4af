"""Databases for tests, each made for one process or one test."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg


async def create(server: str) -> str:
    """Returns the DSN of a new, empty database on the server that this DSN names."""
    name = f"runward_test_{uuid4().hex}"
    await _execute(server, f"create database {name}")
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def drop(server: str, url: str) -> None:
    """Drops a database that `create` made, whoever is still connected to it."""
    await _execute(server, f"drop database {urlsplit(url).path[1:]} with (force)")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
