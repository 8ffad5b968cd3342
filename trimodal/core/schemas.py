"""The schemas of the tables that stages exchange (docs/method.md, Contracts)."""

import pyarrow as pa

WORDS = 16  # word ids per caption (docs/method.md, Data)
VECTOR_DIM = 300

AV_SCHEMA = pa.schema(
    {
        "split": pa.string(),
        "shard": pa.string(),
        "shard_fingerprint": pa.string(),  # so that the index identifies the shards' content
        "clip_id": pa.string(),
        "label": pa.string(),
        "duration_s": pa.float64(),
        "sound_s": pa.float64(),  # 0 if there is no audio
        "frame_offsets": pa.list_(pa.int64()),
        "frame_sizes": pa.list_(pa.int64()),
        "mel_offset": pa.int64(),  # of the array data, after the .npy header
        "top_db_offset": pa.int64(),  # as mel_offset
        "mel_columns": pa.int64(),  # 0 if there is no audio
        "youtube_id": pa.string(),  # empty if unknown
        "picture_fingerprints": pa.list_(pa.int64()),  # of the frames; 0 for a uniform frame
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
        "shard_fingerprint": pa.string(),  # so that the index identifies the shards' content
        "offset": pa.int64(),
        "size": pa.int64(),
        "picture_fingerprint": pa.int64(),  # 0 for a uniform image
    }
)
VOCABULARY_SCHEMA = pa.schema(
    {
        "word": pa.string(),
        "kind": pa.string(),  # trimodal.core.text.write_vocabulary
        "vector": pa.list_(pa.float32(), VECTOR_DIM),
    }
)
# The demo's: what is true of each test video and its caption, such as `drum=red` and `hear=dog`;
# and for each frame the boxes of the things that are seen and heard, as shares of the frame.
_FACTS = pa.list_(pa.string())
_BOX = pa.list_(pa.float64(), 4)  # left, top, right, bottom
TRUTH_SCHEMA = pa.schema(
    {
        "video_id": pa.string(),
        "video_seen": _FACTS,
        "video_heard": _FACTS,
        "caption_seen": _FACTS,
        "caption_heard": _FACTS,
        "has_audio": pa.bool_(),
        "sounding_boxes": pa.list_(pa.list_(_BOX)),
    }
)
# Examples of a test set of kind localisation: a picture, a map of its sound, and true boxes.
SOUND_MAP_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "ciou_half": pa.float64(),
        "ciou_as_many": pa.float64(),
        "frame": pa.binary(),  # JPEG
        "heat_map": pa.binary(),  # PNG with transparency, to be laid over the frame
        "boxes": pa.list_(_BOX),
    }
)
