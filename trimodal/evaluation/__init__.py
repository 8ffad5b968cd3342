"""Stage ``evaluate``: embeddings of the test videos and sentences, ranks, metrics and an audit.

``retrieval`` has the metrics as pure functions of arrays. Code belongs here if it computes a metric
or decides whether a metric can be trusted.
"""
