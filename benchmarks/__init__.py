"""Speed, memory and disk use at full size: each module runs with ``python -m``, prints a table."""

import trimodal  # noqa: F401 - before torch (trimodal/core/runtime.py)
