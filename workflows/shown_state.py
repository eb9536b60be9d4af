"""`RunwardState`: what lists of workflows show of a run that waits. Each change is an event."""

from __future__ import annotations

from typing import Literal

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from runward.contracts import names

_STATE = SearchAttributeKey.for_keyword(names.STATE_ATTRIBUTE)
# Its client found all of ours registered: one that is not would fail the workflow's task.
_LABEL = SearchAttributeKey.for_keyword(names.AGENT_ATTRIBUTE)


def show_state(state: Literal["waiting", "parked"] | None) -> None:
    """Shows the state, None for a run that goes on; nothing where the run carries no labels."""
    shown = workflow.info().typed_search_attributes
    if shown.get(_LABEL) is None or shown.get(_STATE) == state:
        return
    update = _STATE.value_unset() if state is None else _STATE.value_set(state)
    workflow.upsert_search_attributes([update])
