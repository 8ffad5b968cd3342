"""Experiments on retrieval quality: each trains models, prints tables with intervals and tests, and
writes JSON into ``metrics``. Timings are in ``benchmarks``.
"""
