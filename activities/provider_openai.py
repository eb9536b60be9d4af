"""OpenAI's Responses API through its own SDK; no streaming, no retries, nothing kept over there.

The SDK takes two seconds to import, so it is imported by the first call, and in a thread. Errors
are raised anew: the SDK's own hold request and response, and with them the conversation and key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runward.activities.openai_wire import FILTERS, read_answer, write_request
from runward.activities.provider_answers import NotAnAnswer
from runward.activities.provider_client import LateClient
from runward.activities.provider_errors import (
    connection_error,
    filtered_error,
    response_error,
    unreadable_error,
)
from runward.contracts.encoding import clean, digest
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

CALL_TIMEOUT_S = 600.0  # a reasoning model is silent for minutes
CONNECT_TIMEOUT_S = 5.0


class OpenAIProvider:
    """The provider `openai`, also for what speaks its Responses API.

    Key and address come from the SDK's own environment variables (OPENAI_API_KEY, OPENAI_ORG_ID,
    OPENAI_PROJECT_ID, OPENAI_BASE_URL); `base_url` overrides the address. `timeout_s` bounds each
    wait for the network, not the whole call, which belongs to the activity's timeout. Holds one
    connection pool, of the event loop that made the first call, until `close`.
    """

    name: Final = "openai"

    def __init__(self, *, base_url: str | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._client = LateClient(self._build)

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the model's answer; raises ModelError."""
        failure: ModelError
        client: AsyncOpenAI | None = None
        try:
            client = await self._client.get()
            return read_answer(await self._send(client, request))
        except ModelError as error:
            failure = error
        except NotAnAnswer as error:
            failure = unreadable_error(self.name, error)
        except Exception as error:  # noqa: BLE001  the SDK wraps not all, and any text may leak
            failure = _classify(error, unsent=client is None)
        # Outside of `except`: there, the SDK's error would ride along as the context.
        raise failure

    async def close(self) -> None:
        """Closes the connections; a later call opens new ones."""
        await self._client.close()

    async def _send(self, client: AsyncOpenAI, request: ModelRequest) -> bytes:
        from openai import Timeout

        # The API promises nothing for this header, gateways may. Hashed, as a key holds the
        # user's own words and a header ASCII only.
        key = digest(clean(request.idempotency_key).encode())
        raw = await client.responses.with_raw_response.create(
            **write_request(request),
            extra_headers={"idempotency-key": key},
            timeout=Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        body: bytes = raw.http_response.content
        return body

    def _build(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self._base_url, max_retries=0)


def _classify(error: Exception, *, unsent: bool) -> ModelError:
    """Returns the error as ours: what is retried, what was surely not billed. The one place."""
    import openai

    if isinstance(error, openai.APIStatusError):
        return _of_status(error)
    if isinstance(error, openai.APIConnectionError):
        return connection_error(OpenAIProvider.name, error.__cause__)
    if isinstance(error, openai.OpenAIError):
        return _error("has no credentials here. Set OPENAI_API_KEY", unbilled=True)
    return _error(
        f"was not asked as it should be ({type(error).__name__}). "
        "Is the request's text valid, and is OPENAI_BASE_URL a URL?",
        unbilled=unsent,
    )


def _of_status(error: APIStatusError) -> ModelError:
    status, told = error.status_code, error.body if isinstance(error.body, dict) else {}
    if error.code in FILTERS:
        return filtered_error(OpenAIProvider.name, status)
    return response_error(
        OpenAIProvider.name,
        status,
        error.response.headers,
        # A refusal proves that the model did not run. A 5xx does if it is the API's own: a gateway
        # that lost its upstream says 502 or 503 too, and by then the model may have run.
        unbilled="usage" not in told and (status < 500 or {"type", "message"} <= told.keys()),
        words=(error.type, error.code),
        request_id=error.request_id,
    )


def _error(text: str, *, unbilled: bool) -> ModelError:
    return ModelError(f"{OpenAIProvider.name} {text}", retryable=False, unbilled=unbilled)
