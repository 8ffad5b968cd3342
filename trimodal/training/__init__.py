"""Stage ``train``: data sets, batches, the training step, epochs, several processes, resuming.

``train`` is the stage, ``loop`` the epochs, ``trainer`` one step. What comes in is used by training
alone, or (readers of shards, distributed) by training and evaluation.
"""
