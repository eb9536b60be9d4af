"""Deterministic code: what an agent run is, as a Temporal workflow. Start with `agent_run.py`."""
