"""Images and documents that go to a model with a prompt: what a file may be."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runward.contracts.encoding import clean
from runward.contracts.errors import RequestRefused

PDF = "application/pdf"
# How a file of a type begins. Providers refuse one that is not what it is said to be, and these are
# the types that all of them take.
MEDIA_TYPES: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
    PDF: (b"%PDF-",),
}
IMAGE_BYTES_MAX = 5_000_000  # the smallest of the providers' own limits
FILE_BYTES_MAX = 20 * 1024 * 1024
FILES_BYTES_MAX = 22 * 1024 * 1024  # as base64, with a prompt, below the 32 MB of one request
FILES_MAX = 20
NAME_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class File:
    """An image or a document for a model: its bytes, what they are, and what it is called."""

    data: bytes = field(repr=False)
    media_type: str
    name: str = ""

    @classmethod
    def from_path(cls, path: str | Path, *, media_type: str | None = None) -> File:
        """Returns the file there; its type is known by its name, if it is not given."""
        place = Path(path)
        guessed = media_type or mimetypes.guess_type(place.name)[0] or ""
        return cls(place.read_bytes(), guessed, place.name)


def check(files: Sequence[File]) -> None:
    """Raises RequestRefused for files that no model could be sent."""
    if len(files) > FILES_MAX:
        raise RequestRefused(f"A run with {len(files)} files", f"At most {FILES_MAX} fit")
    for number, one in enumerate(files, 1):
        _check(f"File {number} of {len(files)}", one)
    total = sum(len(one.data) for one in files)
    if total > FILES_BYTES_MAX:
        raise RequestRefused(
            f"A run with {total} bytes of files",
            f"At most {FILES_BYTES_MAX} fit",
            "Put large content where a tool of the agent can read it",
        )


def _check(asked: str, file: File) -> None:
    begins = MEDIA_TYPES.get(file.media_type)
    if begins is None:
        raise RequestRefused(
            f"{asked} is {file.media_type[:80]!r}",
            "Models take " + ", ".join(sorted(MEDIA_TYPES)),
            "Convert it, say media_type=, or send its text as the prompt",
        )
    most = FILE_BYTES_MAX if file.media_type == PDF else IMAGE_BYTES_MAX
    if len(file.data) > most:
        raise RequestRefused(
            f"{asked} has {len(file.data)} bytes",
            f"At most {most} fit for {file.media_type}",
            "Make it smaller, or put it where a tool of the agent can read it",
        )
    if not file.data.startswith(begins):
        raise RequestRefused(
            f"{asked} is {file.media_type!r}", "Its bytes are not", "Say what it is in media_type="
        )
    if len(file.name) > NAME_CHARS_MAX or clean(file.name) != file.name:
        raise RequestRefused(
            f"The name of {asked.lower()}", f"It is text of at most {NAME_CHARS_MAX} characters"
        )
