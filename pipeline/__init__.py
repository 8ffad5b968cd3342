"""Stage entry points: each reads its paths and its params section and makes one library call."""
