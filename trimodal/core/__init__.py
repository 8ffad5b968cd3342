"""What every room uses: records, atomic file writes, shards, tables, settings, timing.

Nothing here depends on media, networks or stages. A module belongs here if at least two rooms need
it and it imports none of them.
"""
