"""Speed, memory and disk use at full size: each module runs with ``python -m``, prints a table."""
