"""Stages ``extract`` and ``captions``: clips, images and captions to shards and tables.

``clip_shards`` and ``image_shards`` make one shard each, as pure functions of their inputs; the
stage modules plan and count. What changes the bytes of shards or tables comes in here.
"""
