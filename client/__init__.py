"""How callers reach runs: connecting, proving who asks, starting runs, deciding approvals.

Start with `runward_client.py`; `tickets.py` says how a call proves who makes it.
"""
