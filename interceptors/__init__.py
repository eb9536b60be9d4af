"""Governance at Temporal's seams. Start with `step.py`, the governed step and its concerns.

`workflow.py` is the other half: what rides on workflows, so that a step knows what it needs.
"""
