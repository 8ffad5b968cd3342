"""The columns of the tables that stages hand on (docs/method.md, Contracts)."""

import pyarrow as pa

WORDS = 16  # word ids a caption (docs/method.md, Data)
VECTOR_DIM = 300

AV_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "shard": pa.string(),
        "shard_fingerprint": pa.string(),  # so that the index stands for the shards' content
        "clip_id": pa.string(),
        "label": pa.string(),
        "duration_s": pa.float64(),
        "sound_s": pa.float64(),  # 0 where there is no sound
        "frame_offsets": pa.list_(pa.int64()),
        "frame_sizes": pa.list_(pa.int64()),
        "mel_offset": pa.int64(),  # of the numbers, behind the .npy header
        "mel_columns": pa.int64(),  # 0 where there is no sound
        "youtube_id": pa.string(),  # empty where nobody knows
        "picture_fingerprints": pa.list_(pa.int64()),  # of the frames; 0 for one of one colour
    }
)
CAPTION_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "split": pa.string(),
        "source": pa.string(),
        "caption": pa.string(),
        "tokens": pa.list_(pa.string()),
        "token_ids": pa.list_(pa.int32(), WORDS),
    }
)
IMAGE_SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        "split": pa.string(),
        "shard": pa.string(),
        "shard_fingerprint": pa.string(),  # so that the index stands for the shards' content
        "offset": pa.int64(),
        "size": pa.int64(),
        "picture_fingerprint": pa.int64(),  # 0 for a picture of one colour
    }
)
VOCABULARY_SCHEMA = pa.schema({"word": pa.string(), "vector": pa.list_(pa.float32(), VECTOR_DIM)})
