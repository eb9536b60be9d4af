"""The option by which the documentation's screenshot is made anew."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--screenshot FILE`."""
    parser.addoption("--screenshot", metavar="FILE", help="where to put the waiting run's picture")
