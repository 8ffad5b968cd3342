"""Stage ``report``, comparisons of runs and experiments: what people read of the results.

It reads what ``evaluate`` and ``train`` wrote and runs no network.
"""
