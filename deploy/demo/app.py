"""The app as `runward worker --app app:app` loads it, with its settings from the environment."""

from __future__ import annotations

import os

from ledgers import LedgerClient
from support import build

app = build(os.environ["MODEL"], LedgerClient(int(os.environ["DEMO_LEDGERS_PORT"])))
