"""Images and documents that go to a model with a prompt: what a file may be."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runward.contracts.encoding import is_clean
from runward.contracts.errors import RequestRefused

PDF = "application/pdf"
WEBP = "image/webp"
# How a file of a type begins. Providers refuse one that is not what it is said to be, and these are
# the types that all of them take.
MEDIA_TYPES: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    WEBP: (b"RIFF",),
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
        """Returns the file there; unless it is given, its type is known by its bytes or its name.

        Raises OSError, and RequestRefused for a file that is too large for any model.
        """
        place = Path(path)
        with place.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)  # never all of it: it may be of any size
        known = next((one for one in MEDIA_TYPES if _begins(data, one)), None)
        media_type = media_type or known or mimetypes.guess_type(place.name)[0] or ""
        if len(data) > FILE_BYTES_MAX:
            asked, found = f"The file {place.name!r}", f"more than {FILE_BYTES_MAX}"
            raise _too_large(asked, found, media_type if media_type in MEDIA_TYPES else PDF)
        return cls(data, media_type, place.name)


def check(files: Sequence[File]) -> None:
    """Raises RequestRefused for files that no model could be sent."""
    if len(files) > FILES_MAX:
        raise RequestRefused(
            f"A run with {len(files)} files", f"At most {FILES_MAX} fit", "Send fewer"
        )
    for number, one in enumerate(files, 1):
        name = f", {one.name[:80]!r}," if one.name else ""
        _check(f"{number} of {len(files)}{name}", one)
    total = sum(len(one.data) for one in files)
    if total > FILES_BYTES_MAX:
        raise RequestRefused(
            f"A run with {total} bytes of files",
            f"At most {FILES_BYTES_MAX} fit",
            "Put large content where a tool of the agent can read it",
        )


def _check(place: str, file: File) -> None:
    if file.media_type not in MEDIA_TYPES:
        kind = repr(file.media_type[:80]) if file.media_type else "of no known type"
        raise RequestRefused(
            f"File {place} is {kind}",
            "Models take " + ", ".join(sorted(MEDIA_TYPES)),
            "Convert it, or send its text as the prompt",
        )
    if len(file.data) > _most(file.media_type):
        raise _too_large(f"File {place}", str(len(file.data)), file.media_type)
    if not _begins(file.data, file.media_type):
        raise RequestRefused(
            f"File {place} is said to be {file.media_type!r}",
            "Its bytes are not",
            "Name another file, or say what it is",
        )
    if len(file.name) > NAME_CHARS_MAX or not is_clean(file.name):
        raise RequestRefused(
            f"The name of file {place}",
            f"It is text of at most {NAME_CHARS_MAX} characters",
            "Give it another name, or none",
        )


def _begins(data: bytes, media_type: str) -> bool:
    """Returns whether a file begins as one of that type; RIFF alone is sound and video, too."""
    return data.startswith(MEDIA_TYPES[media_type]) and (
        media_type != WEBP or data[8:12] == b"WEBP"
    )


def _most(media_type: str) -> int:
    return FILE_BYTES_MAX if media_type == PDF else IMAGE_BYTES_MAX


def _too_large(asked: str, found: str, media_type: str) -> RequestRefused:
    return RequestRefused(
        f"{asked} has {found} bytes",
        f"At most {_most(media_type)} fit for {media_type}",
        "Make it smaller, or put it where a tool of the agent can read it",
    )
