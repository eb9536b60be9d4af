"""Approvals: which request this attempt says it was granted, who may grant one, and until when."""

from __future__ import annotations

import json

from runward.contracts import names
from runward.contracts.approvals import ApprovalTerms
from runward.interceptors.concern import Attempt


class Approvals:
    """Carries the approval's id from the header to the store, which believes or refuses it."""

    def __init__(self, terms: ApprovalTerms) -> None:
        self._approver_role = terms.approver_role
        self._approval_ttl_s = int(terms.approval_ttl.total_seconds())
        self._execution_ttl_s = int(terms.execution_ttl.total_seconds())

    def open(self, attempt: Attempt) -> None:
        """Writes what the store compares: an id is a claim until the row confirms it."""
        draft = attempt.draft
        draft.approver_role = attempt.facts.approver_role or self._approver_role
        draft.approval_ttl_s = self._approval_ttl_s
        draft.execution_ttl_s = self._execution_ttl_s
        draft.arguments = attempt.facts.arguments
        header = attempt.call.headers.get(names.STEP_HEADER)
        if header is not None:
            claim = json.loads(header).get("a")
            draft.approval_id = claim if isinstance(claim, str) else None
