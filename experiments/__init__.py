"""Experiments on retrieval quality: series for ``trimodal experiments``, which are YAML files, and
``real``, which trains models, prints tables with intervals and tests, and writes JSON into
``metrics``. Timings are in ``benchmarks``.
"""

import trimodal  # noqa: F401 - before torch (trimodal/core/runtime.py)
