"""Work in parallel with results in order: worker processes, a Ray cluster, and a journal of shards.

It runs any picklable function on any jobs. What comes in knows nothing of what the jobs are.
"""
