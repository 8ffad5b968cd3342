"""One shard of clips: 1 fps frames and one log-mel per clip (docs/method.md, Contracts).

The bytes of a shard are decided here and in what this imports; changing that code rebuilds shards.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
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
from trimodal.core.machine_errors import ReadFailures, UnreadableError, retried
from trimodal.core.manifest import ClipOutcome
from trimodal.core.records import Clip, Split
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.core.shards import Extent, ShardResult
from trimodal.core.storage import file_state
from trimodal.media.audio import decode_audio
from trimodal.media.container import DecodingLimits, LimitError, MediaError
from trimodal.media.image import image_fingerprint
from trimodal.media.mel import MelConfig, StoredMel, empty_mel
from trimodal.media.shard_format import describe_clip
from trimodal.media.spectrogram import log_mel
from trimodal.media.video import Video
from trimodal.parallel.watchdog import HUNG, ending_if_hung

_HANG_SECONDS = 30  # per clip, beyond the time limits of its frames and its audio


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class ExtractConfig:
    """Section ``extract``. Frames are stored as ``frame_px`` x ``frame_px``, aspect ratio not kept.
    A share of the training clips is held out for validation (docs/method.md, Data). Clips longer
    than ``longest_seconds`` or with more than ``largest_pixels`` per frame are left out. At least
    ``min_coverage`` of the downloaded clips must be usable.
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
        """The limits of one clip, with ``timeout_seconds`` each for its audio and its frames."""
        return DecodingLimits(
            clip_seconds=self.longest_seconds,
            frame_pixels=self.largest_pixels,
            timeout_seconds=timeout_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class IndexRow:
    """A clip's row in the shard index (schemas.AV_SCHEMA). Offsets and sizes are in bytes;
    ``mel_columns`` and ``sound_s`` (audio, in seconds) are 0 where there is no audio.
    """

    split: Split
    shard: str
    shard_fingerprint: str
    clip_id: str
    label: str
    duration_s: float
    sound_s: float
    frame_offsets: list[int]
    frame_sizes: list[int]
    mel_offset: int
    top_db_offset: int
    mel_columns: int
    youtube_id: str
    picture_fingerprints: list[int]


@dataclass(frozen=True, kw_only=True)
class ClipSample:
    """A decoded clip: the members of its sample, and what the index needs."""

    clip: Clip
    duration_s: float
    frames: list[bytes]
    frame_fingerprints: list[int]
    audio_s: float
    mel: StoredMel
    description: dict[str, Any]

    def sample(self) -> Sample:
        """The WebDataset sample: frames from 01.jpg on; json; mel.npy, uint8 (columns, mels), and
        mel_top_db.npy, float16 (columns,), without columns if there is no audio.
        """
        members = {f"{number:02d}.jpg": jpeg for number, jpeg in enumerate(self.frames, start=1)}
        members["json"] = json.dumps(self.description, sort_keys=True).encode()
        members["mel.npy"] = _npy(self.mel.codes)
        members["mel_top_db.npy"] = _npy(self.mel.top_db)
        return Sample(key=self.clip.clip_id, members=members)

    def index_row(
        self, job: "ClipShard", shard_fingerprint: str, extents: Mapping[str, Extent]
    ) -> IndexRow:
        """The clip's row in the index of a written shard, with its members at ``extents``."""
        frames = [extents[f"{number:02d}.jpg"] for number in range(1, len(self.frames) + 1)]
        codes, top_db = extents["mel.npy"], extents["mel_top_db.npy"]
        return IndexRow(
            split=job.split,
            shard=job.path.name,
            shard_fingerprint=shard_fingerprint,
            clip_id=self.clip.clip_id,
            label=self.clip.label,
            duration_s=self.duration_s,
            sound_s=self.audio_s,
            frame_offsets=[extent.offset for extent in frames],
            frame_sizes=[extent.size for extent in frames],
            mel_offset=codes.offset + codes.size - self.mel.codes.nbytes,
            top_db_offset=top_db.offset + top_db.size - self.mel.top_db.nbytes,
            mel_columns=len(self.mel),
            youtube_id=self.clip.youtube_id,
            picture_fingerprints=self.frame_fingerprints,
        )


@dataclass(frozen=True, kw_only=True)
class ClipShard:
    """The unit of work: the clips of one shard. ``crashing`` has those known to crash the decoder,
    with the reason; they are left out.
    """

    path: Path
    split: Split
    clips: tuple[ClipOutcome, ...]
    crashing: Mapping[str, str] = field(default_factory=dict)

    def inputs(self) -> Any:
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
    """Writes one shard: a pure function of its arguments and the clips' bytes. A clip that hangs
    the decoder ends the process. Raises TooManyUnreadableError if this machine cannot read many
    clips in a row.
    """
    samples: list[ClipSample] = []
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    failures = ReadFailures()
    for outcome in job.clips:
        problem = ""
        decode = partial(clip_sample, outcome, job, config, mel, timeout_seconds)
        try:
            samples.append(retried(decode))
        except (MediaError, LimitError, UnreadableError) as error:
            left_out[error.reason] += 1
            examples.setdefault(error.reason, f"{outcome.clip.clip_id}: {error.detail}")
            problem = str(error) if isinstance(error, UnreadableError) else ""
        failures.record(problem)
    extents = write_shard(job.path, (sample.sample() for sample in samples))
    fingerprint = file_fingerprint(job.path)
    rows = [sample.index_row(job, fingerprint, extents[sample.clip.clip_id]) for sample in samples]
    return ShardResult(
        rows=[asdict(row) for row in rows],
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
) -> ClipSample:
    """Decodes a clip: its frames as JPEGs, its log-mel, and its metadata.

    Raises MediaError for a clip that cannot be decoded or is known to crash the decoder, and for a
    training clip without audio; LimitError for one that exceeds a limit; UnreadableError for one
    that this machine cannot read.
    """
    source = Path(outcome.path)
    if crash := job.crashing.get(outcome.clip.clip_id):
        detail = f"the process that decoded it {crash}"
        if crash == HUNG:  # the machine, too, may make it hang
            raise LimitError(source, "too_slow", detail)
        raise MediaError(source, "corrupt", detail)
    if job.split != "test" and not outcome.has_audio:
        raise MediaError(source, "no_audio", "a training pair needs audio")
    limits = config.limits(timeout_seconds)
    try:
        with (
            ending_if_hung(2 * timeout_seconds + _HANG_SECONDS),
            as_path(outcome.file) as path,
        ):
            # Audio first: a training clip without audio is left out before its frames are decoded.
            stored, audio_s = empty_mel(mel), 0.0
            if outcome.has_audio:
                stored, audio_s = _audio(path, job.split, limits, mel)
            frames, fingerprints = [], []
            video = Video(path, limits)
            for frame in video.frames(config.frame_px, config.frame_px):
                frames.append(simplejpeg.encode_jpeg(frame, config.jpeg_quality, "RGB", "420"))
                fingerprints.append(image_fingerprint(frames[-1], frame))
    except ArchiveError as error:
        raise MediaError(source, "corrupt", str(error)) from error
    return ClipSample(
        clip=outcome.clip,
        duration_s=outcome.duration_s,
        frames=frames,
        frame_fingerprints=fingerprints,
        audio_s=audio_s,
        mel=stored,
        description=describe_clip(
            outcome.clip.label,
            outcome.duration_s,
            len(frames),
            audio_s,
            mel,
            len(stored),
            video.gaps,
        ),
    )


def _audio(
    path: Path, split: Split, limits: DecodingLimits, mel: MelConfig
) -> tuple[StoredMel, float]:
    """The clip's log-mel and the length of its audio in seconds. A test video whose track cannot be
    decoded counts as silent, so that its frames stay in the gallery.
    """
    samples = 0

    def counted_blocks() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal samples
        for block in decode_audio(path, mel.sample_rate_hz, limits):
            samples += len(block)
            yield block

    try:
        stored = log_mel(counted_blocks(), mel)
    except MediaError:
        if split == "test":
            return empty_mel(mel), 0.0
        raise
    return stored, samples / mel.sample_rate_hz


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
