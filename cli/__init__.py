"""What people type: one file per noun, and `output.py`, through which everything is said.

Files import what they need when a command runs: `runward --help` must not load a database driver.
"""
