"""Key files: only the owner reads them, and what is no key is refused without being quoted."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runward.client.keys import KeyFile
from runward.contracts.errors import ConfigurationError
from runward.contracts.identity import Principal, verify

from .client_stand_in import registered


def new_key(folder: Path) -> KeyFile:
    return KeyFile.create(folder / "issuer.key", kid="tests")


ADA = Principal("acme", "ada", frozenset({"support"}))


def test_created_file_is_the_owners_alone(tmp_path: Path) -> None:
    key = KeyFile.create(tmp_path / "k")

    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600


def test_ticket_verifies_against_the_public_half(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    token = key.ticket(ADA, "decide", subject="ap-1", digest="d", decision="approve")

    ticket = verify(token, registered(key), at=datetime.now(UTC))

    assert ticket.principal == ADA
    assert (ticket.subject, ticket.digest, ticket.decision) == ("ap-1", "d", "approve")


def test_public_half_holds_no_secret(tmp_path: Path) -> None:
    assert "d" not in new_key(tmp_path).public_key


def test_read_back_is_the_same_key(tmp_path: Path) -> None:
    key = new_key(tmp_path)

    assert KeyFile(key.path).public_key == key.public_key


def test_unnamed_key_is_named_by_its_thumbprint(tmp_path: Path) -> None:
    key = KeyFile.create(tmp_path / "k")

    assert key.kid == key.key.thumbprint()


def test_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    key = new_key(tmp_path)

    with pytest.raises(ConfigurationError, match="exists"):
        KeyFile.create(key.path)


def test_key_with_the_older_algorithm_name_signs(tmp_path: Path) -> None:
    key = new_key(tmp_path)
    jwk = json.loads(key.path.read_text())
    key.path.write_text(json.dumps({**jwk, "alg": "EdDSA"}))

    token = KeyFile(key.path).ticket(ADA, "start", subject="w", digest="d")

    assert verify(token, registered(key), at=datetime.now(UTC)).subject == "w"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("not json", "not a JWK"),
        ("[]", "not a JWK"),
        ('{"kty":"RSA"}', "not an Ed25519 key"),
        ('{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"k"}', "public half only"),
        ('{"kty":"OKP","crv":"Ed25519","x":"AA","d":"topsecret"}', "no kid"),
        ('{"kty":"OKP","crv":"Ed25519","x":"AA","d":"topsecret","kid":"k"}', "broken"),
        (" " * 20_000, "not a JWK"),
    ],
)
def test_wrong_file_is_refused_without_being_quoted(
    tmp_path: Path, content: str, says: str
) -> None:
    path = tmp_path / "k"
    path.write_text(content)

    with pytest.raises(ConfigurationError, match=says) as refusal:
        KeyFile(path)

    assert "topsecret" not in str(refusal.value)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"KeyFile\.create"):
        KeyFile(tmp_path / "none")
