"""The losses: embeddings and numbers in, a scalar out; and section ``loss``, which selects one.

One file for each loss, with its source, its equation and an example; each is tested against a slow
loop. A new loss is a file of its own and a value of ``loss.kind``.
"""
