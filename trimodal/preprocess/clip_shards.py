"""One shard of clips: 1 fps frames and one log-mel a clip (design.md, Contracts).

All that shapes a shard is here and in what this imports: another version of it makes shards anew.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass

from trimodal.core.archives import ArchiveError, as_path
from trimodal.core.config import SECTION, JpegQuality, Share
from trimodal.core.fingerprint import file_fingerprint
from trimodal.core.manifest import ClipOutcome
from trimodal.core.records import Split
from trimodal.core.shards import Extent, Sample, ShardResult, write_shard
from trimodal.core.storage import file_state
from trimodal.media.audio import decode_audio
from trimodal.media.container import DecodingLimits, LimitError, MediaError
from trimodal.media.image import image_fingerprint
from trimodal.media.mel import MelConfig
from trimodal.media.spectrogram import log_mel
from trimodal.media.video import decode_frames
from trimodal.parallel.watchdog import ending_if_hung

_HANG_SECONDS = 30  # for a clip, beyond the time that its pictures and its sound may take


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class ExtractConfig:
    """Section ``extract``. Frames are stored ``frame_px`` square, their aspect not kept. The share
    ``validation_share`` of the training clips is held out, by ``validation_seed`` (paper.md, Data).
    A clip longer than ``longest_seconds`` or with frames of more than ``largest_pixels`` is left
    out. At least ``min_coverage`` of the downloaded clips must be usable.
    """

    frame_px: Annotated[int, Field(ge=2)]
    jpeg_quality: JpegQuality
    clips_per_shard: PositiveInt
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    validation_seed: int
    longest_seconds: PositiveFloat
    largest_pixels: PositiveInt
    min_coverage: Share

    def limits(self, timeout_seconds: float) -> DecodingLimits:
        """What a clip may take, with ``timeout_seconds`` for its audio and for its frames."""
        return DecodingLimits(
            clip_seconds=self.longest_seconds,
            frame_pixels=self.largest_pixels,
            timeout_seconds=timeout_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class ClipShard:
    """The unit of work: these clips become this shard, but for those known to crash a decoder."""

    path: Path
    split: Split
    clips: tuple[ClipOutcome, ...]
    crashing: Mapping[str, str] = field(default_factory=dict)

    def made_of(self) -> Any:
        """What it depends on besides params and code: its clips and their files as they are now."""
        facts = [
            [asdict(o.clip), o.has_audio, o.duration_s, o.path, o.member, o.offset]
            for o in self.clips
        ]
        states = {o.path: file_state(o.file.path) for o in self.clips}
        return [self.split, facts, states]


def extract_shard(
    config: ExtractConfig, mel: MelConfig, timeout_seconds: float, job: ClipShard
) -> ShardResult:
    """Makes one shard: a pure function of its arguments and the clips' bytes. A clip that hangs its
    decoder ends the process.
    """
    samples: list[Sample] = []
    rows: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for outcome in job.clips:
        try:
            sample, row = clip_sample(outcome, job, config, mel, timeout_seconds)
        except (MediaError, LimitError) as error:
            left_out[error.reason] += 1
            examples.setdefault(error.reason, f"{outcome.clip.clip_id}: {error.detail}")
            continue
        samples.append(sample)
        rows[sample.key] = row
    extents = write_shard(job.path, samples)
    shard = {
        "split": job.split,
        "shard": job.path.name,
        "shard_fingerprint": file_fingerprint(job.path),
    }
    for key, members in extents.items():
        rows[key] |= shard | _places(members, rows[key]["mel_columns"] * mel.column_type.itemsize)
    return ShardResult(
        rows=list(rows.values()),
        left_out=left_out,
        examples=examples,
        bytes=job.path.stat().st_size,
    )


def clip_sample(
    outcome: ClipOutcome,
    job: ClipShard,
    config: ExtractConfig,
    mel: MelConfig,
    timeout_seconds: float,
) -> tuple[Sample, dict[str, Any]]:
    source = Path(outcome.path)
    if crash := job.crashing.get(outcome.clip.clip_id):
        raise MediaError(source, "corrupt", f"the process that decoded it {crash}")
    if job.split != "test" and not outcome.has_audio:
        raise MediaError(source, "no_audio", "a training pair needs sound")
    limits = config.limits(timeout_seconds)
    patience_seconds = 2 * timeout_seconds + _HANG_SECONDS
    try:
        with ending_if_hung(patience_seconds), as_path(outcome.file) as path:
            # Sound first: a training clip without any is left out before its pictures are decoded.
            sound = _sound(path, job.split, limits, mel) if outcome.has_audio else None
            frames = decode_frames(path, config.frame_px, config.frame_px, limits)
            pictures = [_picture(frame, config.jpeg_quality) for frame in frames]
    except ArchiveError as error:
        raise MediaError(source, "corrupt", str(error)) from error
    members = {f"{number:02d}.jpg": jpeg for number, (jpeg, _) in enumerate(pictures, start=1)}
    facts = {
        "duration_s": outcome.duration_s,
        "fps": 1,
        "label": outcome.clip.label,
        "missing_audio": sound is None,
        "front_end": mel.front_end_fingerprint(),
    }
    if sound is not None:
        members["mel.npy"] = _npy(sound.columns)
    members["json"] = json.dumps(facts, sort_keys=True).encode()
    row = {
        "clip_id": outcome.clip.clip_id,
        "label": outcome.clip.label,
        "duration_s": outcome.duration_s,
        "sound_s": sound.seconds if sound else 0.0,
        "mel_columns": len(sound.columns) if sound else 0,
        "youtube_id": outcome.clip.youtube_id,
        "picture_fingerprints": [same for _, same in pictures],
    }
    return Sample(key=outcome.clip.clip_id, members=members), row


@dataclass(frozen=True, kw_only=True)
class _Sound:
    seconds: float
    columns: npt.NDArray[np.void]


def _sound(path: Path, split: Split, limits: DecodingLimits, mel: MelConfig) -> _Sound | None:
    """The clip's mel. A test video whose track cannot be decoded counts as silent, so that its
    frames stay in the gallery.
    """
    samples = 0

    def counted() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal samples
        for block in decode_audio(path, mel.sample_rate_hz, limits):
            samples += len(block)
            yield block

    try:
        stored = log_mel(counted(), mel)
    except MediaError:
        if split == "test":
            return None
        raise
    return _Sound(seconds=samples / mel.sample_rate_hz, columns=stored)


def _places(members: dict[str, Extent], mel_bytes: int) -> dict[str, Any]:
    numbered = sorted((e for e in members if e.endswith(".jpg")), key=lambda e: (len(e), e))
    frames = [members[ending] for ending in numbered]
    mel = members.get("mel.npy")
    return {
        "frame_offsets": [extent.offset for extent in frames],
        "frame_sizes": [extent.size for extent in frames],
        "mel_offset": mel.offset + mel.size - mel_bytes if mel else 0,
    }


def _picture(frame: npt.NDArray[np.uint8], quality: int) -> tuple[bytes, int]:
    """A frame as JPEG, and its fingerprint."""
    jpeg: bytes = simplejpeg.encode_jpeg(frame, quality, "RGB", "420")
    return jpeg, image_fingerprint(jpeg, frame)


def _npy(array: npt.NDArray[np.void]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
