"""Images and documents with a prompt: the door, what providers are sent, and a run over turns."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from anthropic.types import MessageParam
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from runward.activities import anthropic_wire, openai_wire
from runward.activities.model import TOKENS_PER_FILE
from runward.activities.transcripts import Transcripts
from runward.client.requests import sent
from runward.client.runs import ActingClient
from runward.contracts.agents import Agent
from runward.contracts.budget import Budget, Cap
from runward.contracts.encoding import digest
from runward.contracts.errors import ConfigurationError, RequestRefused
from runward.contracts.files import (
    FILE_BYTES_MAX,
    FILES_BYTES_MAX,
    FILES_MAX,
    IMAGE_BYTES_MAX,
    File,
    check,
)
from runward.contracts.providers import ModelRequest
from runward.contracts.runs import RunRequest
from runward.contracts.tools import tool
from runward.contracts.transcript import (
    FileRef,
    UserMessage,
    decode_message,
    encode_message,
    message_digest,
)
from runward.testing.provider_contract import REQUEST
from runward.testing.scripts import ScriptedProvider, Turn, ask, say
from runward.testing.stack import Stack
from tests import anthropic_calls, anthropic_double, openai_calls, openai_double

PNG = File(b"\x89PNG\r\n\x1a\n" + b"p" * 2_000_000, "image/png", "a.png")
PDF = File(b"%PDF-1.7 " + b"d" * 500, "application/pdf", "b.pdf")
BASE64 = {one: b64encode(one.data).decode() for one in (PNG, PDF)}


def ref(file: File) -> FileRef:
    return FileRef(
        digest=digest(file.data), size=len(file.data), media_type=file.media_type, name=file.name
    )


def request(text: str = "What is this?") -> ModelRequest:
    message = UserMessage(text=text, files=(ref(PNG), ref(PDF)))
    found = {digest(one.data): one.data for one in (PNG, PDF)}
    return replace(REQUEST, messages=(message,), files=found)


# --- the door


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    place = tmp_path / "scan.txt"
    place.write_bytes(PDF.data)

    assert File.from_path(place) == File(PDF.data, "application/pdf", "scan.txt")
    assert File.from_path(str(place), media_type="x/y").media_type == "x/y"
    assert "ddd" not in repr(PDF)


@pytest.mark.parametrize(
    ("data", "name", "media_type"),
    [
        (b"\xff\xd8\xff\xe0", "a", "image/jpeg"),
        (b"GIF89a", "a", "image/gif"),
        (b"RIFF\x04\0\0\0WEBP", "a", "image/webp"),
        (b"RIFF\x04\0\0\0WAVE", "a", ""),
        (b"hello", "a.png", "image/png"),
        (b"hello", "a", ""),
    ],
)
def test_a_file_of_unknown_bytes_is_known_by_its_name(
    tmp_path: Path, data: bytes, name: str, media_type: str
) -> None:
    (tmp_path / name).write_bytes(data)

    assert File.from_path(tmp_path / name).media_type == media_type


def test_of_a_file_of_any_size_only_what_fits_is_read() -> None:
    with pytest.raises(RequestRefused, match=f"'zero' has more than {FILE_BYTES_MAX} bytes"):
        File.from_path("/dev/zero")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((File(b"GIF", "image/tiff"),), r"'image/tiff'. Models take application/pdf, image/gif"),
        ((File(b"", ""),), "File 1 of 1 is of no known type. Models take"),
        ((File(b"RIFF\x04\0\0\0WAVE", "image/webp"),), "Its bytes are not"),
        ((PDF, replace(PNG, data=b"")), "File 2 of 2, 'a.png', is said to be 'image/png'"),
        ((File(b"\x89PNG", "image/png"),), "Its bytes are not"),
        ((File(b"", "application/pdf"),), "Its bytes are not"),
        ((File(PNG.data * 3, "image/png"),), f"At most {IMAGE_BYTES_MAX} fit for image/png"),
        ((PNG,) * 12, f"At most {FILES_BYTES_MAX} fit"),
        ((PDF,) * (FILES_MAX + 1), f"At most {FILES_MAX} fit"),
        ((replace(PDF, name="x" * 201),), "at most 200 characters"),
        ((replace(PDF, name="a\x00"),), "at most 200 characters"),
    ],
)
def test_what_no_model_could_be_sent_is_refused(files: tuple[File, ...], words: str) -> None:
    with pytest.raises(RequestRefused, match=words):
        check(files)


async def test_without_a_store_there_are_no_files() -> None:
    with pytest.raises(ConfigurationError, match="RUNWARD_DATABASE_URL"):
        await sent(RunRequest(agent="a", prompt="p"), (PNG,), None, "acme")


# --- what is hashed and signed


def test_a_message_without_files_has_the_bytes_that_it_had_before_there_were_files() -> None:
    assert encode_message(UserMessage(text="hi")) == b'{"k":"user","t":"hi"}'
    known = "WWD44dYjMwQjrhrLqq0zv4ncpZy0F8Tv5ZeaEQBeErM"
    assert RunRequest(agent="a", prompt="p").digest == known


def test_a_request_is_bound_to_its_files() -> None:
    bare = RunRequest(agent="a", prompt="p")
    given = bare.model_copy(update={"files": (ref(PNG),)})
    other = bare.model_copy(update={"files": (ref(PNG).model_copy(update={"name": "x"}),)})

    assert len({bare.digest, given.digest, other.digest}) == 3
    assert decode_message(encode_message(given.message)) == given.message
    assert message_digest(given.message) != message_digest(bare.message)


# --- what providers are sent


@pytest.mark.parametrize("text", ["What is this?", ""])
def test_anthropic_is_shown_the_files_before_the_words(text: str) -> None:
    (turn,) = anthropic_wire.write_request(request(text))["messages"]

    TypeAdapter(MessageParam).validate_python(turn)
    image = {"type": "base64", "media_type": "image/png", "data": BASE64[PNG]}
    document = {"type": "base64", "media_type": "application/pdf", "data": BASE64[PDF]}
    said = [{"type": "text", "text": text}] if text else []
    for block in turn["content"]:
        block.pop("cache_control", None)
    assert turn["content"] == [
        {"type": "image", "source": image},
        {"type": "document", "source": document, "title": "b.pdf"},
        *said,
    ]


@pytest.mark.parametrize("text", ["What is this?", ""])
def test_openai_is_shown_the_files_before_the_words(text: str) -> None:
    (item,) = openai_wire.write_request(request(text))["input"]

    TypeAdapter(ResponseInputItemParam).validate_python(item)
    said = [{"type": "input_text", "text": text}] if text else []
    assert item == {
        "role": "user",
        "content": [
            {
                "type": "input_image",
                "detail": "auto",
                "image_url": f"data:image/png;base64,{BASE64[PNG]}",
            },
            {
                "type": "input_file",
                "filename": "b.pdf",
                "file_data": f"data:application/pdf;base64,{BASE64[PDF]}",
            },
            *said,
        ],
    }


async def test_both_sdks_send_files_as_they_are() -> None:
    anthropic = anthropic_double.message(anthropic_double.text("A receipt."))
    openai = openai_double.response(openai_double.said(openai_double.text("A receipt.")))
    async with anthropic_calls.calling(anthropic) as (first, double):
        assert (await first.call(request())).message.text == "A receipt."
        assert BASE64[PNG] in str(double.seen[0].body)
    async with openai_calls.calling(openai) as (second, double):
        assert (await second.call(request())).message.text == "A receipt."
        assert BASE64[PNG] in str(double.seen[0].body)


# --- a run


class Viewer:
    """An agent that looks at its files, calls a tool, and looks at them again."""

    def __init__(self) -> None:
        self.seen: list[ModelRequest] = []

    def __call__(self, request: ModelRequest) -> Turn:
        self.seen.append(request)
        return say("seen") if len(request.messages) > 1 else ask("note")

    def app(self, stack: Stack) -> Any:
        @tool
        async def note() -> str:
            """Notes something."""
            return "noted"

        agent: Agent[Any] = Agent("viewer", model="scripted:viewer", tools=[note])
        return stack.plugin(agents=[agent], providers=[ScriptedProvider({"viewer": self})])


async def test_a_run_is_shown_its_files_in_every_call(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transcripts, "remember", lambda *_: None)
    viewer, ada = Viewer(), await stack.acting_as("ada")
    async with stack.worker(viewer.app(stack)):
        run = await ada.start("viewer", "", files=[PNG, PDF], key="one")
        same = await ada.start("viewer", "", files=[PNG, PDF], key="one")
        with pytest.raises(RequestRefused, match="something else"):
            await ada.start("viewer", "x", key="one")
        await ada.start("viewer", "x", key="two")
        with pytest.raises(RequestRefused, match="something else"):
            await ada.start("viewer", "x", files=[PDF], key="two")
        await run.result(timeout=60)

    assert same.id == run.id
    shown = [one for one in viewer.seen if one.files]
    assert len(shown) == 2
    for one in shown:
        assert one.messages[0] == UserMessage(text="", files=(ref(PNG), ref(PDF)))
        assert one.files == {digest(file.data): file.data for file in (PNG, PDF)}
    assert b"".join([one async for one in run.content(digest(PNG.data))]) == PNG.data
    assert (await stack.history(run)).to_json().count(BASE64[PNG][:100]) == 0


async def test_a_budget_counts_files_before_they_are_sent(stack: Stack) -> None:
    viewer, ada = Viewer(), await stack.acting_as("ada")
    agent: Agent[Any] = Agent(
        "viewer", model="scripted:viewer", budget=Budget(run=Cap(tokens=2 * TOKENS_PER_FILE))
    )
    app = stack.plugin(agents=[agent], providers=[ScriptedProvider({"viewer": viewer})])
    async with stack.worker(app):
        result = await ada.execute("viewer", "look", files=[PNG, PDF])

    assert result.interrupted and viewer.seen == []


async def test_files_that_went_before_a_worker_came_let_the_run_wait(
    stack: Stack, owner: asyncpg.Connection[asyncpg.Record]
) -> None:
    viewer, ada = Viewer(), await stack.acting_as("ada")
    run = await ada.start("viewer", "look", files=[PDF])
    await owner.execute("delete from runward.large_content where tenant = $1", stack.tenant)
    async with stack.worker(viewer.app(stack)):
        await pending(ada, run.id, "content that the request refers to is not in the store")
        await owner.execute("delete from runward.content_chunk where tenant = $1", stack.tenant)
        await ada.start("viewer", "another", files=[PDF])
        assert (await run.result(timeout=60)).output == "seen"


async def pending(ada: ActingClient, workflow_id: str, words: str) -> None:
    """Waits until the run's pending activity says so."""
    handle = ada.temporal.get_workflow_handle(workflow_id)
    async with asyncio.timeout(30):
        while True:
            found = (await handle.describe()).raw_description.pending_activities
            if any(words in one.last_failure.message for one in found):
                return
