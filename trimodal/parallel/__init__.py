"""Parallel work with ordered results: worker processes, a Ray cluster and a journal of shards.

It runs any picklable function on any jobs; nothing here depends on what the jobs do.
"""
