"""The three networks, their preprocessing, their checkpoint on disk, and the device they run on.

It has everything that inference needs, and nothing that trains or evaluates.
"""
