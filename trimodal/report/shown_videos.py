"""A video of the test set as the report shows it: a frame from its shard, sound from its file."""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trimodal.core.archives import ArchiveError, as_path
from trimodal.core.files import read_table
from trimodal.core.machine_errors import UnreadableError
from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.shards import read_extent
from trimodal.core.timing import frame_centre_seconds
from trimodal.media.audio import decode_audio
from trimodal.media.audio_file import aac_file
from trimodal.media.container import DecodingLimits, LimitError, MediaError

_RATE_HZ = 16_000
_MAX_SOUND_SECONDS = 5.0
# Of a clip that stage extract has decoded within limits of its own.
_LIMITS = DecodingLimits(clip_seconds=np.inf, frame_pixels=0, timeout_seconds=60.0)


@dataclass(frozen=True, kw_only=True)
class ShownVideo:
    """A video's middle frame (JPEG) and the sound around it (MP4, AAC), both in base64. ``sound``
    is empty for a silent video, and for one whose file cannot be read: then ``problem`` says why.
    """

    name: str
    frame: str
    sound: str = ""
    problem: str = ""


def show(
    names: Collection[str], av_dir: Path, manifest: Path, seconds: float
) -> dict[str, ShownVideo]:
    """The videos by name, with ``seconds`` of sound, at most 5 (20 kB)."""
    seconds = min(seconds, _MAX_SOUND_SECONDS)
    columns = ["clip_id", "shard", "frame_offsets", "frame_sizes", "sound_s"]
    index = read_table(av_dir / "index.parquet", AV_SCHEMA, columns=columns)
    index = index.filter(pa.compute.is_in(index["clip_id"], pa.array(list(names), pa.string())))
    clips = {outcome.clip.clip_id: outcome for outcome in read_manifest(manifest)}
    return {row["clip_id"]: _shown(row, clips, av_dir, seconds) for row in index.to_pylist()}


def _shown(
    row: Mapping[str, Any], clips: Mapping[str, ClipOutcome], av_dir: Path, seconds: float
) -> ShownVideo:
    name, offsets, sizes = row["clip_id"], row["frame_offsets"], row["frame_sizes"]
    middle = len(offsets) // 2
    jpeg = read_extent(av_dir / row["shard"], offsets[middle], sizes[middle])
    sound, problem = b"", ""
    if row["sound_s"]:
        latest = max(0.0, row["sound_s"] - seconds)
        start = min(max(0.0, frame_centre_seconds(middle + 1) - seconds / 2), latest)
        try:
            sound = _sound(clips[name], start, seconds)
        except (MediaError, LimitError, UnreadableError) as error:
            problem = error.reason
        except ArchiveError:
            problem = "corrupt"
    return ShownVideo(
        name=name,
        frame=base64.b64encode(jpeg).decode(),
        sound=base64.b64encode(sound).decode(),
        problem=problem,
    )


def _sound(clip: ClipOutcome, start: float, seconds: float) -> bytes:
    first, last = round(start * _RATE_HZ), round((start + seconds) * _RATE_HZ)
    blocks, samples = [], 0
    with as_path(clip.file) as path:
        for block in decode_audio(path, _RATE_HZ, _LIMITS):
            blocks.append(block)
            samples += len(block)
            if samples >= last:
                break
    return aac_file(np.concatenate(blocks)[first:last], _RATE_HZ)
