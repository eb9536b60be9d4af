"""Anthropic's Messages API through its own SDK; no streaming, no retries, no spans of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runward.activities.anthropic_wire import read_answer, write_request
from runward.activities.provider_client import SdkProvider
from runward.activities.provider_errors import connection_error, filtered_error, response_error
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

NAME = "anthropic"

# A filter behind the model answers 400 with nothing else to know it by.
_FILTER_WORDS = "Output blocked by content filtering policy"


class AnthropicProvider(SdkProvider["AsyncAnthropic"]):
    """The provider `anthropic`.

    Key and address come from the SDK's own environment variables (ANTHROPIC_API_KEY,
    ANTHROPIC_AUTH_TOKEN, ANTHROPIC_BASE_URL).
    """

    @property
    def name(self) -> str:
        """Returns `anthropic`."""
        return NAME

    def _build(self) -> AsyncAnthropic:
        from anthropic import AsyncAnthropic

        return AsyncAnthropic(base_url=self._base_url, max_retries=0, open_telemetry=False)

    async def _send(
        self, client: AsyncAnthropic, request: ModelRequest, options: dict[str, Any]
    ) -> bytes:
        _check_credentials(client)
        raw = await client.messages.with_raw_response.create(**write_request(request), **options)
        body: bytes = raw.http_response.content
        return body

    def _read(self, body: bytes, request: ModelRequest) -> ModelResponse:
        return read_answer(body, request)

    def _classify(self, error: Exception, *, unsent: bool) -> ModelError:
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            return _of_status(error)
        if isinstance(error, anthropic.APIConnectionError):
            return connection_error(NAME, error.__cause__)
        if isinstance(error, anthropic.AnthropicError):
            # Credentials that could not be read or fetched; they may be there soon.
            text = f"got no credentials ({type(error).__name__})"
            return _error(text, retryable=True, unbilled=True)
        return _error(
            f"was not asked as it should be ({type(error).__name__}). "
            "Is the request's text valid, and is ANTHROPIC_BASE_URL a URL?",
            retryable=False,
            unbilled=unsent,
        )


def _check_credentials(client: AsyncAnthropic) -> None:
    if not (client.api_key or client.auth_token or client.credentials) and (
        {"authorization", "x-api-key"}.isdisjoint(map(str.lower, client.default_headers))
    ):
        raise _error(
            "has no credentials here. Set ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN",
            retryable=False,
            unbilled=True,
            elsewhere=True,
        )


def _of_status(error: APIStatusError) -> ModelError:
    status, answer = error.status_code, error.body if isinstance(error.body, dict) else {}
    told = answer.get("error")
    if status == 400 and isinstance(told, dict) and told.get("message") == _FILTER_WORDS:
        return filtered_error(NAME, status)
    return response_error(
        NAME,
        status,
        error.response.headers,
        # A refusal proves that the model did not run. A 5xx does if it is the API's own: a gateway
        # that lost its upstream says 502 or 503 too, and by then the model may have run.
        unbilled="usage" not in answer and (status < 500 or answer.get("type") == "error"),
        words=(error.type,),
        request_id=error.response.headers.get("request-id"),
    )


def _error(text: str, *, retryable: bool, unbilled: bool, elsewhere: bool = False) -> ModelError:
    return ModelError(f"{NAME} {text}", retryable=retryable, unbilled=unbilled, elsewhere=elsewhere)
