"""Approvals: which request this attempt says it was granted, and who may grant one."""

from __future__ import annotations

import json

from runward.contracts import names
from runward.interceptors.concern import Attempt


class Approvals:
    """Carries the approval's id from the header to the store, which believes or refuses it."""

    def __init__(self, approver_role: str | None) -> None:
        self._approver_role = approver_role

    def open(self, attempt: Attempt) -> None:
        """Writes what the store compares: an id is a claim until the row confirms it."""
        draft = attempt.draft
        draft.approver_role = attempt.facts.approver_role or self._approver_role
        draft.arguments = attempt.facts.arguments
        header = attempt.call.headers.get(names.STEP_HEADER)
        if header is not None:
            claim = json.loads(header).get("a")
            draft.approval_id = claim if isinstance(claim, str) else None
