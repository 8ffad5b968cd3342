"""Stage entry points: each reads its paths and its params section and makes one library call.

The library is imported when the command line has been read: a wrong one is told at once, and the
workers, which import the entry point too, load only what they need.
"""
