"""Frozen types and pure decisions: what is promised between the rooms. No I/O, no clock.

Start with `steps.py` (what a governed step is), then `outcomes.py` (what crosses between the
workflow and its steps) and `transcript.py` (how messages are named). Others are one concern each.
"""
