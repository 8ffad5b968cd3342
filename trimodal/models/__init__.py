"""The three networks, their preprocessing, their checkpoint on disk, and the device they run on.

All that inference needs is here; nothing here trains or evaluates.
"""
