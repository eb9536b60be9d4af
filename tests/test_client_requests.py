"""The door: what a request must be, and what its workflow is called."""

import pytest

from runward.client.requests import admitted, sent
from runward.client.runs import run_workflow_id
from runward.client.tickets import start_digest
from runward.contracts import names
from runward.contracts.encoding import digest_of
from runward.contracts.errors import ConfigurationError, RequestRefused
from runward.contracts.identity import Principal
from runward.contracts.runs import PROMPT_BYTES_MAX, REQUEST_BYTES_MAX, RunInput, RunRequest

ADA = Principal("acme", "ada")


def test_id_is_the_same_for_the_same_user_and_key() -> None:
    assert run_workflow_id(ADA, "case-17") == run_workflow_id(Principal("acme", "ada"), "case-17")


@pytest.mark.parametrize(
    ("other", "key"),
    [(Principal("acme", "bob"), "k"), (Principal("other", "ada"), "k"), (ADA, "l"), (ADA, None)],
)
def test_id_differs_for_another_user_tenant_or_key(other: Principal, key: str | None) -> None:
    assert run_workflow_id(other, key) != run_workflow_id(ADA, "k")


def test_id_without_a_key_is_new_each_time() -> None:
    assert run_workflow_id(ADA, None) != run_workflow_id(ADA, None)


def test_id_holds_no_names() -> None:
    found = run_workflow_id(ADA, "case-17")

    assert not any(word in found for word in ("acme", "ada", "case-17"))


def test_empty_key_is_refused() -> None:
    with pytest.raises(RequestRefused, match="empty key"):
        run_workflow_id(ADA, "")


async def test_without_a_store_a_request_is_refused_by_its_encoded_size() -> None:
    # Each of these takes six bytes in JSON.
    long = admitted("support", "\x01" * (REQUEST_BYTES_MAX // 6), "")
    fits = admitted("support", "\x01" * (REQUEST_BYTES_MAX // 7), "")

    with pytest.raises(ConfigurationError, match=f"{REQUEST_BYTES_MAX}.*RUNWARD_DATABASE_URL"):
        await sent(long, (), None, "acme")
    assert await sent(fits, (), None, "acme") == fits


async def test_what_the_store_could_not_take_is_refused_before_anything_is_sent() -> None:
    for prompt in ("x" * (PROMPT_BYTES_MAX + 1), "\x01" * (PROMPT_BYTES_MAX // 6)):
        with pytest.raises(RequestRefused, match=f"At most {PROMPT_BYTES_MAX}"):
            await sent(admitted("support", prompt, ""), (), None, "acme")


def test_prompt_is_text_that_the_store_can_hold() -> None:
    assert admitted("support", "a\x00b\ud800", "").prompt == "a\ufffdb?"


@pytest.mark.parametrize("agent", ["", "Support", "a b", "x" * 65, "a\n"])
def test_name_that_no_agent_can_have_is_refused(agent: str) -> None:
    with pytest.raises(RequestRefused, match="Names are"):
        admitted(agent, "p", "")


def test_empty_prompt_and_long_session_are_refused() -> None:
    for prompt in ("", " \n"):
        with pytest.raises(RequestRefused, match="prompt is empty"):
            admitted("support", prompt, "")
    with pytest.raises(RequestRefused, match="session id"):
        admitted("support", "p", "s" * 257)


def test_ticket_of_an_agent_run_is_bound_to_its_request() -> None:
    request = RunRequest(agent="support", prompt="p")

    assert start_digest(names.AGENT_RUN, [RunInput(request=request)]) == request.digest


def test_ticket_of_a_users_workflow_is_bound_to_its_type() -> None:
    assert start_digest("Mine", ["anything"]) == digest_of({"workflow": "Mine"})


def test_agent_run_with_other_arguments_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="RunInput"):
        start_digest(names.AGENT_RUN, [{"r": {}}])


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(RequestRefused, match=r"prompt of type NoneType. A prompt is text. Say"):
        admitted("support", None, "")  # type: ignore[arg-type]
