"""Speed, memory and disk at realistic sizes: each module runs with ``python -m`` and prints a table."""
