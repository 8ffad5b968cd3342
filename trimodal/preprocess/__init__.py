"""Stages ``extract`` and ``captions``: clips, images and captions to shards and tables.

``clip_shards`` and ``image_shards`` write one shard each, as pure functions of their inputs; the
stage modules plan and count. Code that decides the bytes of shards or tables belongs here.
"""

from trimodal.core.extras import require

require("pipeline")
