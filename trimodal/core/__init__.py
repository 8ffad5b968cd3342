"""What every room uses: records, files that are written whole, shards, tables, settings, time.

Nothing here knows of media, networks or stages. What comes in is needed by two rooms and imports
none.
"""
