"""The losses: tensors and numbers in, a scalar out; and section ``loss``, which chooses one.

One file a loss, each with its source and tested against a slow loop. A new loss comes in as a file
of its own and a value of ``loss.kind``.
"""
