"""Stage ``evaluate``: test videos and sentences to embeddings, ranks, metrics and an audit.

``retrieval`` has the metrics as pure functions of arrays. What comes in computes a figure or
decides whether a figure can be trusted.
"""
