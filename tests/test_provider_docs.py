"""The provider in docs/providers.md is one: it passes the tests beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "providers.md"


def test_the_example_provider_fulfils_the_contract(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for name, code in blocks:
        (tmp_path / name).write_text(code)
    options = ("-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path))
    command = [sys.executable, "-m", "pytest", *options, "test_acme_provider.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    assert [name for name, _ in blocks] == ["acme_provider.py", "test_acme_provider.py"]
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed in", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 50
