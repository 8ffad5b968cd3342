"""Experiments on retrieval quality: series for ``trimodal experiments``, which are YAML files, and
what they need. Timings are in ``benchmarks``.
"""

import trimodal  # noqa: F401 - before torch (trimodal/core/runtime.py)
