"""What a run is asked: refused at the door if no worker could take it; what is large is stored."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from runward.client.reader import Reader
from runward.contracts.content import Content
from runward.contracts.encoding import clean
from runward.contracts.errors import ConfigurationError, RequestRefused
from runward.contracts.files import File, check
from runward.contracts.outcomes import Ref
from runward.contracts.runs import (
    PROMPT_BYTES_MAX,
    REQUEST_BYTES_MAX,
    REQUEST_INLINE_BYTES_MAX,
    RunInput,
    RunRequest,
)
from runward.contracts.transcript import FileRef, encode_message
from runward.contracts.wire import encode_wire

NAME_CHARS_MAX = 64
SESSION_CHARS_MAX = 256
_AGENT_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")
_ELSEWHERE = "Put large content where a tool of the agent can read it"


def admitted(agent: str, prompt: str, session_id: str, files: Sequence[File] = ()) -> RunRequest:
    """Returns the request without its files; raises RequestRefused for one that nobody could take.

    It has its whole prompt: `sent` makes of it what goes to a workflow.
    """
    if len(agent) > NAME_CHARS_MAX or not _AGENT_NAME.match(agent):
        raise RequestRefused(
            f"A run of agent {agent[:80]!r}",
            f"Names are a-z, 0-9, _ and -, at most {NAME_CHARS_MAX} characters",
            "`runward agents list` has those of an app",
        )
    if not isinstance(prompt, str):
        raise RequestRefused(
            f"A run of agent {agent!r} with a prompt of type {type(prompt).__name__}",
            "A prompt is text",
            'Say what it is to do; beside files it may be ""',
        )
    if not prompt.strip() and not files:
        raise RequestRefused(
            f"A run of agent {agent!r}",
            "The prompt is empty, which providers refuse",
            "Say what it is to do; only beside files a prompt may be empty",
        )
    if len(session_id) > SESSION_CHARS_MAX:
        raise RequestRefused(
            f"A run of agent {agent!r}",
            f"The session id has {len(session_id)} characters, at most {SESSION_CHARS_MAX} fit",
            "Choose a shorter one",
        )
    if len(prompt) > PROMPT_BYTES_MAX:  # before anything copies it
        raise _too_large(agent, f"{len(prompt)} characters")
    check(files)
    return RunRequest(agent=agent, prompt=clean(prompt), session_id=clean(session_id))


async def sent(
    request: RunRequest, files: Sequence[File], reader: Reader | None, tenant: str
) -> RunRequest:
    """Returns the request as it goes to a workflow; files and a long prompt are in the store then.

    Raises RequestRefused for one that is too large, ConfigurationError where a store is needed and
    this client has none, StoreUnavailable.
    """
    if files:
        if reader is None:
            raise _no_store(f"A run of agent {request.agent!r} with files")
        refs = tuple([await _file(one, reader, tenant) for one in files])
        request = request.model_copy(update={"files": refs})
    size = len(encode_wire(RunInput(request=request)))
    if size <= REQUEST_INLINE_BYTES_MAX:
        return request
    message = encode_message(request.message)
    if len(message) > PROMPT_BYTES_MAX:
        raise _too_large(request.agent, f"{len(message)} bytes")
    if reader is None:
        if size <= REQUEST_BYTES_MAX:
            return request
        raise _no_store(f"A run of agent {request.agent!r} with a prompt of {size} bytes")
    content = await asyncio.to_thread(Content, message)
    await reader.put(tenant, content)
    ref = Ref(digest=content.digest, size=content.size)
    return request.model_copy(update={"prompt": "", "files": (), "ref": ref})


async def _file(file: File, reader: Reader, tenant: str) -> FileRef:
    content = await asyncio.to_thread(Content, file.data)
    await reader.put(tenant, content)
    return FileRef(
        digest=content.digest, size=content.size, media_type=file.media_type, name=file.name
    )


def _too_large(agent: str, found: str) -> RequestRefused:
    return RequestRefused(
        f"A run of agent {agent!r} with a prompt of {found}",
        f"At most {PROMPT_BYTES_MAX} bytes fit, as JSON",
        _ELSEWHERE,
    )


def _no_store(asked: str) -> ConfigurationError:
    return ConfigurationError(
        asked,
        f"Files, and requests of more than {REQUEST_BYTES_MAX} bytes, go through the store, and"
        " this client has no way to it",
        f"Connect with database_url=, or set RUNWARD_DATABASE_URL. {_ELSEWHERE}",
    )
