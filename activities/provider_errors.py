"""What a failed call means: tried again or not, billed or surely not; one table for all providers.

An SDK's own errors hold request and response, and with them the conversation and the key: nothing
of theirs is shown but what looks as it should (`shown`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from runward.activities.retry_after import retry_after_s as wait_asked_for
from runward.contracts.providers import NO_ANSWER, ModelError

_RETRYABLE_4XX = frozenset({408, 409, 429})  # timed out, locked, too many; the rest stays wrong
# Statuses that say "too late" rather than "no": the model may have run for nothing, and be billed.
_TIMED_OUT = frozenset({408, 499, 504})
# What is missing here, another provider may have: the key, the money, the right, the model.
_ELSEWHERE = frozenset({401, 402, 403, 404})
_TYPE = re.compile(r"[a-z_]{1,64}")
_REQUEST_ID = re.compile(r"req_[A-Za-z0-9_]{1,64}")


def retryable_status(status: int) -> bool:
    """Returns whether the same call may succeed later: busy, broken or overloaded, not wrong."""
    return status in _RETRYABLE_4XX or status >= 500


def status_error(
    provider: str,
    status: int,
    *,
    unbilled: bool,
    detail: str = "",
    retry_after_s: float | None = None,
    retryable: bool | None = None,
) -> ModelError:
    """Returns the error for an HTTP status; a wait is kept only where waiting can help.

    `detail` must be safe to show: an error type or a request id, never text from the conversation.
    `retryable` is for a provider that says by itself what its status means.
    """
    retryable = retryable_status(status) if retryable is None else retryable
    return ModelError(
        f"{provider} answered {status}" + (f" {detail}" if detail else ""),
        retryable=retryable,
        unbilled=unbilled,
        retry_after_s=retry_after_s if retryable else None,
        elsewhere=status in _ELSEWHERE or retryable_status(status),
    )


def response_error(
    provider: str,
    status: int,
    headers: Mapping[str, str],
    *,
    unbilled: bool,
    words: tuple[object, ...],
    request_id: object,
) -> ModelError:
    """Returns the error for a response; `words` are its error's type and code, `headers` the SDK's.

    `x-should-retry` is the providers' own judgement, and goes before ours.
    """
    found = (*(shown(_TYPE, one) for one in words), shown(_REQUEST_ID, request_id))
    return status_error(
        provider,
        status,
        unbilled=unbilled and status not in _TIMED_OUT,
        detail=" ".join(part for part in dict.fromkeys(found) if part),
        retry_after_s=wait_asked_for(headers),
        retryable={"true": True, "false": False}.get(headers.get("x-should-retry", "")),
    )


def filtered_error(provider: str, status: int) -> ModelError:
    """Returns the error for a status that stands for a content filter; what it billed is open."""
    return ModelError(
        f"{NO_ANSWER['filtered']}: {provider} answered {status}", retryable=False, unbilled=False
    )


def connection_error(provider: str, cause: BaseException | None) -> ModelError:
    """Returns the error for a call that HTTP failed; `cause` is what the SDK wrapped."""
    import httpx2  # what both SDKs call with; a worker without calls does not load it

    not_sent = (
        httpx2.ConnectError,
        httpx2.ConnectTimeout,
        httpx2.PoolTimeout,
        httpx2.ProxyError,
        httpx2.UnsupportedProtocol,
    )
    return ModelError(
        f"{provider} was not reached or did not answer ({type(cause).__name__})",
        retryable=not isinstance(cause, httpx2.UnsupportedProtocol),
        unbilled=isinstance(cause, not_sent),
        elsewhere=True,
    )


def unreadable_error(provider: str, why: Exception) -> ModelError:
    """Returns the error for an answer that is none; it is paid for."""
    return ModelError(
        f"{provider} sent no answer: {why}", retryable=True, unbilled=False, unreadable=True
    )


def shown(pattern: re.Pattern[str], text: object) -> str:
    """Returns the text if it looks as it should: what a server sends may repeat our message."""
    return text if isinstance(text, str) and pattern.fullmatch(text) else ""
