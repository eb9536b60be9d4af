"""An SDK's client: built by the first call, in a thread, as its import takes seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class AsyncClosable(Protocol):
    """What an SDK's client is to us."""

    async def close(self) -> None:
        """Closes its connections."""
        ...


Client = TypeVar("Client", bound=AsyncClosable)


class LateClient(Generic[Client]):
    """One client for all calls. It belongs to the event loop of the first call, until `close`."""

    def __init__(self, build: Callable[[], Client]) -> None:
        self._build = build
        self._client: Client | None = None
        self._building = asyncio.Lock()

    async def get(self) -> Client:
        """Returns the client; calls at once share the one that is being built."""
        async with self._building:
            if self._client is None:
                self._client = await asyncio.to_thread(self._build)
            return self._client

    async def close(self) -> None:
        """Closes the connections; a later `get` builds a client anew."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()
