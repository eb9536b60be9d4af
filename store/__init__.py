"""The PostgreSQL store, and the only room with SQL: who, allowed, paid, done, recorded.

Start with `pool.py` (`Store`) and `steps.py` (the governed step); the rules themselves are the
functions in `migrations/`.
"""
