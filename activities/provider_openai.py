"""OpenAI's Responses API through its own SDK; no streaming, no retries, nothing kept over there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runward.activities.openai_wire import FILTERS, read_answer, write_request
from runward.activities.provider_client import SdkProvider
from runward.activities.provider_errors import connection_error, filtered_error, response_error
from runward.contracts.providers import ModelError, ModelRequest, ModelResponse

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

NAME = "openai"


class OpenAIProvider(SdkProvider["AsyncOpenAI"]):
    """The provider `openai`, also for what speaks its Responses API.

    Key and address come from the SDK's own environment variables (OPENAI_API_KEY, OPENAI_ORG_ID,
    OPENAI_PROJECT_ID, OPENAI_BASE_URL).
    """

    @property
    def name(self) -> str:
        """Returns `openai`."""
        return NAME

    def _build(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=self._base_url, max_retries=0)

    async def _send(
        self, client: AsyncOpenAI, request: ModelRequest, options: dict[str, Any]
    ) -> bytes:
        raw = await client.responses.with_raw_response.create(**write_request(request), **options)
        body: bytes = raw.http_response.content
        return body

    def _read(self, body: bytes, request: ModelRequest) -> ModelResponse:
        return read_answer(body, request)

    def _classify(self, error: Exception, *, unsent: bool) -> ModelError:
        import openai

        if isinstance(error, openai.APIStatusError):
            return _of_status(error)
        if isinstance(error, openai.APIConnectionError):
            return connection_error(NAME, error.__cause__)
        if isinstance(error, openai.OpenAIError):
            text = "has no credentials here. Set OPENAI_API_KEY"
            return _error(text, unbilled=True, elsewhere=True)
        return _error(
            f"was not asked as it should be ({type(error).__name__}). "
            "Is the request's text valid, and is OPENAI_BASE_URL a URL?",
            unbilled=unsent,
        )


def _of_status(error: APIStatusError) -> ModelError:
    status, told = error.status_code, error.body if isinstance(error.body, dict) else {}
    if error.code in FILTERS:
        return filtered_error(NAME, status)
    return response_error(
        NAME,
        status,
        error.response.headers,
        # A refusal proves that the model did not run. A 5xx does if it is the API's own: a gateway
        # that lost its upstream says 502 or 503 too, and by then the model may have run.
        unbilled="usage" not in told and (status < 500 or {"type", "message"} <= told.keys()),
        words=(error.type, error.code),
        request_id=error.request_id,
    )


def _error(text: str, *, unbilled: bool, elsewhere: bool = False) -> ModelError:
    return ModelError(f"{NAME} {text}", retryable=False, unbilled=unbilled, elsewhere=elsewhere)
