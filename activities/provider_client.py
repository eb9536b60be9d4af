"""What calls of providers' SDKs have in common: one late client, one way out for every failure.

An SDK takes two seconds to import, so its client is built by the first call, and in a thread.
Errors are raised anew: the SDK's own hold request and response, and with them conversation and key.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from runward.activities.output_schema import opened
from runward.activities.provider_answers import NotAnAnswer
from runward.activities.provider_errors import unreadable_error
from runward.contracts.encoding import clean, digest
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse

CALL_TIMEOUT_S = 600.0  # Anthropic's bound of a call without streaming; reasoning takes minutes too
CONNECT_TIMEOUT_S = 5.0


class AsyncClosable(Protocol):
    """What an SDK's client is to us."""

    async def close(self) -> None:
        """Closes its connections."""
        ...


Client = TypeVar("Client", bound=AsyncClosable)


class SdkProvider(ABC, Generic[Client]):
    """A provider whose API is called through its SDK.

    `base_url` overrides the address that the SDK's environment variables give. `timeout_s` bounds
    each wait for the network, not the whole call, which belongs to the activity's timeout. Holds
    one connection pool, of the event loop that made the first call, until `close`.
    """

    def __init__(self, *, base_url: str | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._building = asyncio.Lock()

    @property
    @abstractmethod
    def name(self) -> str:
        """Returns the name before the colon in `model`."""

    @abstractmethod
    def _build(self) -> Client:
        """Returns the SDK's client, without retries and spans of its own."""

    @abstractmethod
    async def _send(self, client: Client, request: ModelRequest, options: dict[str, Any]) -> bytes:
        """Returns the body of the API's answer; `options` go to the SDK's call as they are."""

    @abstractmethod
    def _read(self, body: bytes, request: ModelRequest) -> ModelResponse:
        """Returns the answer that the body holds; raises NotAnAnswer, ModelError."""

    @abstractmethod
    def _classify(self, error: Exception, *, unsent: bool) -> ModelError:
        """Returns the error as ours: what is retried, what was surely not billed."""

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the model's answer; raises ModelError."""
        failure: ModelError
        client: Client | None = None
        try:
            client = await self._connected()
            body = await self._send(client, request, self._options(request))
            return opened(self._read(body, request), request)
        except ModelError as error:
            failure = error
        except NotAnAnswer as error:
            failure = unreadable_error(self.name, error)
        except Exception as error:  # noqa: BLE001  the SDK wraps not all, and any text may leak
            failure = self._classify(error, unsent=client is None)
        # Outside of `except`: there, the SDK's error would ride along as the context.
        raise failure

    async def close(self) -> None:
        """Closes the connections; a later call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _connected(self) -> Client:
        """Returns the client; calls at once share the one that is being built."""
        async with self._building:
            if self._client is None:
                self._client = await asyncio.to_thread(self._build)
            return self._client

    def _options(self, request: ModelRequest) -> dict[str, Any]:
        import httpx2  # what both SDKs call with; a worker without calls does not load it

        # The APIs promise nothing for this header, gateways may. Hashed, as a key holds the user's
        # own words and a header ASCII only.
        key = digest(clean(request.idempotency_key).encode())
        return {
            "extra_headers": {"idempotency-key": key},
            # Always given: Anthropic's SDK refuses every max_tokens that could last 10 minutes.
            "timeout": httpx2.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S),
        }
