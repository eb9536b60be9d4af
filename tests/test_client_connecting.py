"""What a user is told who cannot connect to Temporal: one line, and whether waiting helps."""

from __future__ import annotations

import pytest

from runward.client.connecting import connected, reason
from runward.contracts.errors import ConfigurationError, RunwardError, TemporalUnavailable
from runward.testing import Addresses

TRANSPORT = (
    "Failed client connect: Server connection error: tonic::transport::Error(Transport,"
    " ConnectError(Custom { kind: InvalidData"
)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (
            "Failed client connect: Server connection error: tonic::transport::Error(Transport,"
            ' ConnectError(ConnectError("tcp connect error", 127.0.0.1:1, Os { code: 111, kind:'
            ' ConnectionRefused, message: "Connection refused" })))',
            "Connection refused",
        ),
        (
            "Failed client connect: Server connection error: tonic::transport::Error(Transport,"
            ' ConnectError(ConnectError("dns error", Custom { kind: Uncategorized, error: "failed'
            ' to lookup address information: Name or service not known" })))',
            "failed to lookup address information: Name or service not known",
        ),
        (
            f"{TRANSPORT}, error: InvalidMessage(InvalidContentType) }})))",
            "It does not speak TLS",
        ),
        (
            f"{TRANSPORT}, error: InvalidCertificate(UnknownIssuer) }})))",
            "Its certificate is not accepted here: UnknownIssuer",
        ),
        ("invalid target URL: empty host", "invalid target URL: empty host"),
        ("one\ntwo", "one"),
        ("", "RuntimeError"),
    ],
)
def test_the_reason_is_what_the_system_said(says: str, why: str) -> None:
    assert reason(RuntimeError(says)) == why


@pytest.mark.parametrize(
    ("host", "kind", "holds"),
    [
        ("127.0.0.1:1", TemporalUnavailable, "Connection refused"),
        ("no host", ConfigurationError, "invalid international domain name"),
    ],
)
async def test_only_what_waiting_mends_is_unavailable(
    host: str, kind: type[RunwardError], holds: str
) -> None:
    with pytest.raises(kind) as caught:
        await connected({"target_host": host})

    assert caught.value.asked == f"Temporal at {host!r}"
    assert holds in caught.value.holds
    assert "TEMPORAL_ADDRESS" in caught.value.instead


async def test_no_waiting_mends_a_server_without_tls(servers: Addresses) -> None:
    with pytest.raises(ConfigurationError, match=r"does not speak TLS\. Correct TEMPORAL_TLS"):
        await connected({"target_host": servers.temporal, "tls": True})
