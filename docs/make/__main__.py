"""Writes the pages and pictures that are made, each where it stands in `docs/`."""

from pathlib import Path

from docs.make import bad_input, commands, pictures, reference

DOCS = Path(__file__).resolve().parent.parent

pictures.write(DOCS / "concepts")
(DOCS / "bad-input.md").write_text(bad_input.page(), encoding="utf-8")
(DOCS / "cli.md").write_text(commands.page(), encoding="utf-8")
(DOCS / "reference.md").write_text(reference.page(), encoding="utf-8")
