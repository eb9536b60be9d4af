"""A TCP server on 127.0.0.1 for doubles and proxies: one task per connection, cut when it ends."""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"


class LocalServer(ABC):
    """Listens while it is entered, on a port of its own; it keeps the port while it is away."""

    def __init__(self) -> None:
        self._port = 0
        self._server: asyncio.Server | None = None
        self._kept: socket.socket | None = None  # bound, so that nobody takes the port meanwhile
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; it is closed when this returns."""

    @property
    def port(self) -> int:
        """Returns where it listens."""
        assert self._port, "entered before"
        return self._port

    async def away(self) -> None:
        """Cuts all connections and refuses others until `back`."""
        await self._close()
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind((HOST, self._port))

    async def back(self) -> None:
        """Listens again, on the same port."""
        assert self._kept is not None, "it was away"
        self._server = await asyncio.start_server(self._accept, sock=self._kept)
        self._kept = None

    async def cut(self) -> int:
        """Closes all connections, returns how many; others are welcome."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(tasks)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()
        if self._kept is not None:
            self._kept.close()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio calls this in a task"
        self._tasks.add(task)
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # either side has gone; a task that ends cancelled would be logged
        finally:
            writer.close()
            self._tasks.discard(task)
