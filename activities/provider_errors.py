"""What an HTTP status from a provider means for a call; one table for all providers."""

from __future__ import annotations

from runward.contracts.providers import ModelError

_RETRYABLE_4XX = frozenset({408, 409, 429})  # timed out, locked, too many; the rest stays wrong


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
) -> ModelError:
    """Returns the error for an HTTP status; a wait is kept only where waiting can help.

    `detail` must be safe to show: an error type or a request id, never text from the conversation.
    """
    retryable = retryable_status(status)
    return ModelError(
        f"{provider} answered {status}" + (f" {detail}" if detail else ""),
        retryable=retryable,
        unbilled=unbilled,
        retry_after_s=retry_after_s if retryable else None,
    )
