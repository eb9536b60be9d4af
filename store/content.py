"""Large content: in chunks under its digest, once per tenant, gone when no run uses it any more.

Put before whatever refers to it, so that no batch of steps waits for megabytes. What is read is
compared with its digest, always: what a database hands out may have been changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta

from runward.contracts.content import Changed, Content
from runward.contracts.encoding import encoded_digest
from runward.contracts.errors import StoreUnavailable
from runward.store.database import Database

# Until the run that a client starts has its first worker; a start that nobody serves for longer has
# lost what it refers to.
HELD_FOR_A_RUN = timedelta(days=7)
HELD_FOR_A_STEP = timedelta(hours=1)  # its run is there, and uses it as soon as it is complete
TRIES_MAX = 3  # of content that somebody deletes or spoils while it is put

_BEGIN = "select runward.content_begin($1, $2, $3, $4)"
_PUT = "select runward.content_put($1, $2, $3, $4)"
_CLAIM = "select runward.content_claim($1, $2, $3)"
_USED = "select from runward.content_use where tenant = $1 and run_id = $2 and digest = $3"
_SIZE = "select size from runward.large_content where tenant = $1 and digest = $2 and complete"
_CHUNK = "select data from runward.content_chunk where tenant = $1 and digest = $2 and n = $3"


class ContentStore:
    """Puts, reads and collects large content."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, tenant: str, content: Content, *, held: timedelta = HELD_FOR_A_RUN) -> None:
        """Stores the content, which may be there already; it stays at least for that long.

        Errors: StoreUnavailable; RequestRefused for content that is too large.
        """
        seconds = int(held.total_seconds())
        for _ in range(TRIES_MAX):
            size = content.size
            if await self._database.value(_BEGIN, tenant, content.digest, size, seconds):
                return
            state = "broken"
            for n, chunk in enumerate(content.chunks()):
                state = await self._database.value(_PUT, tenant, content.digest, n, chunk)
                if state != "more":
                    break
            if state == "complete":
                return
        raise StoreUnavailable("the store", "Content was changed while it was put", "Try again")

    async def put_for(self, tenant: str, run_id: str, content: Content) -> None:
        """Stores content that a run's step made, and notes that the run uses it. Errors: as put."""
        for _ in range(TRIES_MAX):
            await self.put(tenant, content, held=HELD_FOR_A_STEP)
            if await self.claim(tenant, run_id, content.digest):
                return
        raise StoreUnavailable("the store", "Content went while it was put", "Try again")

    async def claim(self, tenant: str, run_id: str, digest: str) -> bool:
        """Returns whether the content is there; then it stays until retention has done the run."""
        return bool(await self._database.value(_CLAIM, tenant, run_id, digest))

    async def used(self, tenant: str, run_id: str, digest: str) -> bool:
        """Returns whether the run uses content of that digest."""
        return await self._database.row(_USED, tenant, run_id, digest) is not None

    async def size(self, tenant: str, digest: str) -> int | None:
        """Returns the bytes of large content, None where there is none of that digest."""
        found = await self._database.value(_SIZE, tenant, digest)
        return None if found is None else int(found)

    async def chunks(self, tenant: str, digest: str) -> AsyncIterator[bytes]:
        """Yields the content in chunks, none where it is unknown; the last one once all is checked.

        Errors: Changed where the whole is not what the digest names, or went meanwhile.
        """
        size = await self.size(tenant, digest)
        if size is None:
            return
        hashed, read, n = hashlib.sha256(), 0, 0
        while read < size:
            found = await self._database.value(_CHUNK, tenant, digest, n)
            if found is None:
                raise Changed(digest)
            chunk = bytes(found)
            hashed.update(chunk)
            read, n = read + len(chunk), n + 1
            if read >= size and encoded_digest(hashed.digest()) != digest:
                raise Changed(digest)
            yield chunk

    async def read(self, tenant: str, digest: str) -> bytes | None:
        """Returns the whole content, None where it is not there as its digest names it."""
        whole = bytearray()
        try:
            async for chunk in self.chunks(tenant, digest):
                whole += chunk
        except Changed:
            return None
        return bytes(whole) or None

    async def delete_unused(self, limit: int) -> int:
        """Returns how many rows of content that no run uses were deleted, about `limit` at most.

        A chunk counts for 128. 0: nothing is left, or another process is at it.
        """
        return int(await self._database.value("select runward.delete_unused($1)", limit))
