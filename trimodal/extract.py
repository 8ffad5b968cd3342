"""From clips to audio-visual shards: 1 fps frames and one log-mel a clip (design.md, Contracts)."""

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import simplejpeg

from trimodal.archives import ArchiveError, as_path, reading_order
from trimodal.coverage import check_coverage, check_share
from trimodal.engine import LOCAL, EngineConfig
from trimodal.files import code_fingerprint, file_fingerprint, write_json, write_table
from trimodal.frames import decode_frames
from trimodal.journal import ShardDone, file_state, make_shards
from trimodal.manifest import ClipOutcome, read_manifest
from trimodal.media import DecodingLimits, LimitError, MediaError, lacking_media_tools
from trimodal.mel import MelConfig
from trimodal.pictures import picture_fingerprint
from trimodal.progress import bar, closing_line, log
from trimodal.records import DataError, Split
from trimodal.shards import Extent, Sample, write_shard
from trimodal.sound import decode_audio
from trimodal.spectrogram import log_mel
from trimodal.splits import hold_out, keep_videos_whole
from trimodal.tables import AV_SCHEMA
from trimodal.workers import WorkerError, ending_if_hung, map_in_order

# The source that shapes a shard: another version of it makes them anew.
SHAPING_MODULES = (
    "trimodal.archives", "trimodal.extract", "trimodal.frames", "trimodal.media", "trimodal.mel",
    "trimodal.pictures", "trimodal.shards", "trimodal.sound", "trimodal.spectrogram",
    "trimodal.tables", "trimodal.timing",
)  # fmt: skip
_HANG_SECONDS = 30  # for a clip, beyond the time that its pictures and its sound may take


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Section ``extract``. Frames are stored ``frame_px`` square, their aspect not kept. The share
    ``validation_share`` of the training clips is held out, by ``validation_seed`` (paper.md, Data).
    A clip longer than ``longest_seconds``, with pictures of more than ``largest_pixels`` or that
    takes over ``timeout_seconds`` is left out. At least ``min_coverage`` of the clips that were
    downloaded must be usable.
    """

    frame_px: int
    jpeg_quality: int
    clips_per_shard: int
    validation_share: float
    validation_seed: int
    longest_seconds: float
    largest_pixels: int
    timeout_seconds: float
    min_coverage: float
    workers: int

    @property
    def limits(self) -> DecodingLimits:
        """What a clip may ask of this machine."""
        return DecodingLimits(
            clip_seconds=self.longest_seconds,
            frame_pixels=self.largest_pixels,
            timeout_seconds=self.timeout_seconds,
        )

    def __post_init__(self) -> None:
        if not 0.0 < self.validation_share < 1.0:
            raise ValueError("extract.validation_share lies between 0 and 1")
        if self.workers < 1:
            raise ValueError("extract.workers must be at least 1")
        if self.frame_px < 2 or self.clips_per_shard < 1 or not 1 <= self.jpeg_quality <= 95:
            raise ValueError("extract: frame_px >= 2, clips_per_shard >= 1, jpeg_quality 1..95")
        if min(self.longest_seconds, self.largest_pixels, self.timeout_seconds) <= 0:
            raise ValueError("extract: longest_seconds, largest_pixels, timeout_seconds > 0")
        check_share(self.min_coverage, "extract.min_coverage")


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


def extract(
    manifest_path: Path,
    out_dir: Path,
    config: ExtractConfig,
    mel: MelConfig,
    engine: EngineConfig = LOCAL,
) -> None:
    """Writes ``{train,val,test}-%06d.tar``, ``index.parquet`` and ``stats.json`` into ``out_dir``;
    shards that an earlier run finished are kept (:mod:`trimodal.journal`).

    A clip that cannot be decoded, and a training clip without sound, is left out and counted; so is
    one that crashes its decoder. Raises DataError where too few are left, and WorkerError if a
    worker is killed.
    """
    outcomes = read_manifest(manifest_path)
    usable = [outcome for outcome in outcomes if outcome.status == "ok"]
    jobs = _plan(usable, out_dir, config)
    parts = [AV_SCHEMA.empty_table()]
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    size = 0
    done = _shards(jobs, out_dir, config, mel, engine)
    for shard in bar(done, task="extracting", unit="shards", total=len(jobs)):
        parts.append(pa.Table.from_pylist(shard.rows, AV_SCHEMA))
        left_out += shard.left_out
        examples = shard.examples | examples
        size += shard.bytes
    rows = pa.concat_tables(parts).combine_chunks()
    splits = Counter(rows["split"].to_pylist())
    check_coverage(
        "extract", "downloaded clips", len(rows), left_out, needed=config.min_coverage,
        param="extract.min_coverage", examples=examples,
    )  # fmt: skip
    left_out += Counter(f"download: {o.status}" for o in outcomes if o.status != "ok")
    if not splits["train"] or not splits["val"] or not splits["test"]:
        raise DataError(f"extract: an empty split ({dict(splits)}); left out: {dict(left_out)}")
    frames = pc.sum(pc.list_value_length(rows["frame_offsets"])).as_py()
    write_table(out_dir / "index.parquet", rows)
    write_json(
        out_dir / "stats.json",
        {
            "front_end": mel.front_end_fingerprint(),
            "clips": dict(splits),
            "frames": frames,
            "test_clips_without_sound": pc.sum(pc.equal(rows["mel_columns"], 0)).as_py(),
            "left_out": dict(left_out),
        },
    )
    counts = ", ".join(f"{splits[name]} {name}" for name in ("train", "val", "test"))
    made = f"extract: {len(rows)} clips ({counts}), {frames} frames, {size / 1e6:.1f} MB"
    log.info(closing_line(made, left_out))


def _shards(
    jobs: Sequence[ClipShard],
    out_dir: Path,
    config: ExtractConfig,
    mel: MelConfig,
    engine: EngineConfig,
) -> Iterator[ShardDone]:
    form = {
        "code": code_fingerprint(*SHAPING_MODULES),
        "front_end": mel.front_end_fingerprint(),
        "frame_px": config.frame_px,
        "jpeg_quality": config.jpeg_quality,
        "longest_seconds": config.longest_seconds,
        "largest_pixels": config.largest_pixels,
    }
    return make_shards(
        partial(extract_shard, config, mel), jobs, out_dir, form=form, workers=config.workers,
        engine=engine, may_heal={"too_slow"}, rescue=partial(_without_crashing_clips, config, mel),
        lacking=lacking_media_tools,
    )  # fmt: skip


def extract_shard(config: ExtractConfig, mel: MelConfig, job: ClipShard) -> ShardDone:
    """Makes one shard: a pure function of its arguments and the clips' bytes. A clip that hangs its
    decoder ends the process.
    """
    samples: list[Sample] = []
    rows: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for outcome in job.clips:
        try:
            sample, row = _sample(outcome, job, config, mel)
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
    return ShardDone(
        rows=list(rows.values()),
        left_out=left_out,
        examples=examples,
        bytes=job.path.stat().st_size,
    )


def _without_crashing_clips(
    config: ExtractConfig, mel: MelConfig, job: ClipShard, error: WorkerError
) -> ShardDone:
    """A shard again whose worker crashed: each clip alone in a process, so that only those that
    crash it are lost.
    """
    crashing: dict[str, str] = {}
    for outcome in job.clips:
        alone = replace(job, clips=(outcome,))
        for why in map_in_order(partial(_try, config, mel), [alone], 1, rescue=_how_it_crashed):
            if why:
                crashing[outcome.clip.clip_id] = why
    log.info(f"extract: {job.path.name}: {error}; left out for it: {crashing}")
    return extract_shard(config, mel, replace(job, crashing=crashing))


def _try(config: ExtractConfig, mel: MelConfig, alone: ClipShard) -> str:
    with suppress(MediaError, LimitError):
        _sample(alone.clips[0], alone, config, mel)
    return ""


def _how_it_crashed(_alone: ClipShard, error: WorkerError) -> str:
    return error.how


def _plan(usable: list[ClipOutcome], out_dir: Path, config: ExtractConfig) -> list[ClipShard]:
    by_id = {o.clip.clip_id: o for o in usable if o.clip.split == "train"}
    train, val = keep_videos_whole(
        *hold_out(sorted(by_id), config.validation_share, config.validation_seed),
        {name: outcome.clip.youtube_id for name, outcome in by_id.items()},
    )
    parts: dict[Split, list[ClipOutcome]] = {
        "train": [by_id[name] for name in train],
        "val": [by_id[name] for name in val],
        "test": [o for o in usable if o.clip.split == "test"],
    }
    for clips in parts.values():
        clips.sort(key=lambda o: reading_order(o.file))
    step = config.clips_per_shard
    return [
        ClipShard(
            path=out_dir / f"{split}-{start // step:06d}.tar",
            split=split,
            clips=tuple(clips[start : start + step]),
        )
        for split, clips in parts.items()
        for start in range(0, len(clips), step)
    ]


def _sample(
    outcome: ClipOutcome, job: ClipShard, config: ExtractConfig, mel: MelConfig
) -> tuple[Sample, dict[str, Any]]:
    source = Path(outcome.path)
    if crash := job.crashing.get(outcome.clip.clip_id):
        raise MediaError(source, "corrupt", f"the process that decoded it {crash}")
    if job.split != "test" and not outcome.has_audio:
        raise MediaError(source, "no_audio", "a training pair needs sound")
    patience_seconds = 2 * config.timeout_seconds + _HANG_SECONDS
    try:
        with ending_if_hung(patience_seconds), as_path(outcome.file) as path:
            # Sound first: a training clip without any is left out before its pictures are decoded.
            sound = _sound(path, job.split, config, mel) if outcome.has_audio else None
            frames = decode_frames(path, config.frame_px, config.frame_px, config.limits)
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


def _sound(path: Path, split: Split, config: ExtractConfig, mel: MelConfig) -> _Sound | None:
    """The clip's mel. A test video whose track cannot be decoded counts as silent, so that its
    frames stay in the gallery.
    """
    samples = 0

    def counted() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal samples
        for block in decode_audio(path, mel.sample_rate_hz, config.limits):
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
    return jpeg, picture_fingerprint(jpeg, frame)


def _npy(array: npt.NDArray[np.void]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
