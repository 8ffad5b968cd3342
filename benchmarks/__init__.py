"""Measurements at true size: each module runs with ``python -m`` and prints a table."""
