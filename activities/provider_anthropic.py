"""Anthropic's Messages API through its own SDK; no streaming, no retries and no spans of its own.

The SDK takes two seconds to import, so it is imported by the first call, and in a thread. Errors
are raised anew: the SDK's own hold request and response, and with them the conversation and key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runward.activities.anthropic_wire import read_answer, write_request
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
    from anthropic import APIStatusError, AsyncAnthropic

CALL_TIMEOUT_S = 600.0  # how long the API itself lets a call without streaming take
CONNECT_TIMEOUT_S = 5.0

# A filter behind the model answers 400 with nothing else to know it by.
_FILTER_WORDS = "Output blocked by content filtering policy"


class AnthropicProvider:
    """The provider `anthropic`.

    Key and address come from the SDK's own environment variables (ANTHROPIC_API_KEY,
    ANTHROPIC_AUTH_TOKEN, ANTHROPIC_BASE_URL); `base_url` overrides the address. `timeout_s`
    bounds each wait for the network, not the whole call, which belongs to the activity's timeout.
    Holds one connection pool, of the event loop that made the first call, until `close`.
    """

    name: Final = "anthropic"

    def __init__(self, *, base_url: str | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._client = LateClient(self._build)

    async def call(self, request: ModelRequest) -> ModelResponse:
        """Returns the model's answer; raises ModelError."""
        failure: ModelError
        client: AsyncAnthropic | None = None
        try:
            client = await self._client.get()
            _check_credentials(client)
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

    async def _send(self, client: AsyncAnthropic, request: ModelRequest) -> bytes:
        from anthropic import Timeout

        # The API promises nothing for this header, gateways may. Hashed, as a key holds the
        # user's own words and a header ASCII only.
        key = digest(clean(request.idempotency_key).encode())
        raw = await client.messages.with_raw_response.create(
            **write_request(request),
            extra_headers={"idempotency-key": key},
            # Always given, or the SDK refuses every max_tokens that could last 10 minutes.
            timeout=Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S),
        )
        body: bytes = raw.http_response.content
        return body

    def _build(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic

        return AsyncAnthropic(base_url=self._base_url, max_retries=0, open_telemetry=False)


def _check_credentials(client: AsyncAnthropic) -> None:
    if not (client.api_key or client.auth_token or client.credentials) and (
        {"authorization", "x-api-key"}.isdisjoint(map(str.lower, client.default_headers))
    ):
        raise _error(
            "has no credentials here. Set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN",
            retryable=False,
            unbilled=True,
        )


def _classify(error: Exception, *, unsent: bool) -> ModelError:
    """Returns the error as ours: what is retried, what was surely not billed. The one place."""
    import anthropic

    if isinstance(error, anthropic.APIStatusError):
        return _of_status(error)
    if isinstance(error, anthropic.APIConnectionError):
        return connection_error(AnthropicProvider.name, error.__cause__)
    if isinstance(error, anthropic.AnthropicError):
        # Credentials that could not be read or fetched; they may be there soon.
        return _error(f"got no credentials ({type(error).__name__})", retryable=True, unbilled=True)
    return _error(
        f"was not asked as it should be ({type(error).__name__}). "
        "Is the request's text valid, and is ANTHROPIC_BASE_URL a URL?",
        retryable=False,
        unbilled=unsent,
    )


def _of_status(error: APIStatusError) -> ModelError:
    status, answer = error.status_code, error.body if isinstance(error.body, dict) else {}
    told = answer.get("error")
    if status == 400 and isinstance(told, dict) and told.get("message") == _FILTER_WORDS:
        return filtered_error(AnthropicProvider.name, status)
    return response_error(
        AnthropicProvider.name,
        status,
        error.response.headers,
        # A refusal proves that the model did not run. A 5xx does if it is the API's own: a gateway
        # that lost its upstream says 502 or 503 too, and by then the model may have run.
        unbilled="usage" not in answer and (status < 500 or answer.get("type") == "error"),
        words=(error.type,),
        request_id=error.response.headers.get("request-id"),
    )


def _error(text: str, *, retryable: bool, unbilled: bool) -> ModelError:
    return ModelError(f"{AnthropicProvider.name} {text}", retryable=retryable, unbilled=unbilled)
