"""Writes the pages and pictures that are made, each where it stands in `docs/`."""

from pathlib import Path

from docs.make import commands, pictures, reference

DOCS = Path(__file__).resolve().parent.parent

pictures.write(DOCS / "concepts")
(DOCS / "cli.md").write_text(commands.page(), encoding="utf-8")
(DOCS / "reference.md").write_text(reference.page(), encoding="utf-8")
