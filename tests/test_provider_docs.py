"""The provider in docs/providers.md is one: it passes the tests beside it, and has a price."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.doc_blocks import blocks

FILES = [one for one in blocks("docs/providers.md") if one.file]
ASKS = """
import acme_prices
from runward.store.prices import price
for model in ("acme:large", "acme:small", "anthropic:claude-sonnet-5"):
    found = price(model)
    print(model, found and (found.input, found.output))
"""


def shown(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Returns how Python ended in a folder with the files that the page shows."""
    for one in FILES:
        (folder / str(one.file)).write_text(one.code)
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


def test_the_example_provider_fulfils_the_contract(tmp_path: Path) -> None:
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path))
    done = shown(tmp_path, "-m", "pytest", *options, "test_acme_provider.py")

    names = ["acme_provider.py", "test_acme_provider.py", "acme_prices.py"]
    assert [one.file for one in FILES] == names
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed in", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50


def test_its_models_have_a_price_and_others_keep_theirs(tmp_path: Path) -> None:
    """In nano-dollars a token. A model that the page does not price is still denied."""
    done = shown(tmp_path, "-c", ASKS)

    assert done.returncode == 0, done.stderr
    large, small, other = done.stdout.splitlines()
    assert (large, small) == ("acme:large (3000, 15000)", "acme:small None")
    assert re.fullmatch(r"anthropic:claude-sonnet-5 \(\d+, \d+\)", other)
