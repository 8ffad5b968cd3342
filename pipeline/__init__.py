"""Stage entry points: each reads its paths and params sections and makes one library call.

The library is imported after parsing the command line, so that a wrong one fails at once and worker
processes, which import the entry point too, load only what they need.
"""
