"""Effects: model calls, tools, and the small activities that close and decide.

Each body runs inside the governed step and learns who it serves from `CURRENT`, never from input.
"""
