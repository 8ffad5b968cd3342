"""Stage ``extract``: clips to audio-visual shards, 1 fps frames and one log-mel per clip
(docs/method.md, Contracts).
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from trimodal.core.archives import reading_order
from trimodal.core.coverage import check_coverage
from trimodal.core.files import write_json, write_table
from trimodal.core.fingerprint import code_fingerprint
from trimodal.core.machine import MachineConfig
from trimodal.core.machine_errors import UNREADABLE, UnreadableError
from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.core.progress import bar, log, summary_line
from trimodal.core.records import DataError, Split
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.shards import ShardResult
from trimodal.media.container import LimitError, MediaError, missing_media_tools
from trimodal.media.mel import MelConfig
from trimodal.media.shard_format import index_metadata
from trimodal.parallel.journal import make_shards
from trimodal.parallel.pool import WorkerError, map_in_order
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, clip_sample, extract_shard
from trimodal.preprocess.splits import hold_out, keep_videos_together


def extract(
    manifest_path: Path,
    out_dir: Path,
    config: ExtractConfig,
    mel: MelConfig,
    machine: MachineConfig,
) -> None:
    """Writes ``{train,val,test}-%06d.tar``, ``index.parquet`` and ``stats.json`` into ``out_dir``;
    shards finished by an earlier run are reused (:mod:`trimodal.parallel.journal`).

    Left out and counted: clips that cannot be decoded or crash the decoder, and training clips
    without audio. Clips that this machine could not read are left out of this run only; many in a
    row raise TooManyUnreadableError. Raises DataError if a split is empty, test only if it was
    asked for (before anything is extracted where the manifest shows it) or too few clips are
    usable, and WorkerError if a worker is killed.
    """
    outcomes = read_manifest(manifest_path)
    usable = [outcome for outcome in outcomes if outcome.status == "ok"]
    jobs = _plan(usable, out_dir, config)
    skipped = Counter(f"download: {o.status}" for o in outcomes if o.status != "ok")
    wanted = {outcome.clip.split for outcome in outcomes}
    _check_splits(wanted, {job.split for job in jobs}, skipped)
    tables = [AV_SCHEMA.empty_table()]
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    size = 0
    done = _shards(jobs, out_dir, config, mel, machine)
    for shard in bar(done, task="extracting", unit="shards", total=len(jobs)):
        tables.append(pa.Table.from_pylist(shard.rows, AV_SCHEMA))
        left_out += shard.left_out
        examples = shard.examples | examples
        size += shard.bytes
    rows = pa.concat_tables(tables).combine_chunks()
    splits = Counter(rows["split"].to_pylist())
    check_coverage(
        "extract", "downloaded clips", len(rows), left_out, required=config.min_coverage,
        param="extract.min_coverage", examples=examples,
    )  # fmt: skip
    left_out += skipped
    _check_splits(wanted, set(splits), left_out)
    frames = pc.sum(pc.list_value_length(rows["frame_offsets"])).as_py()
    write_table(out_dir / "index.parquet", rows.replace_schema_metadata(index_metadata(mel)))
    write_json(
        out_dir / "stats.json",
        {
            "clips": dict(splits),
            "frames": frames,
            "test_clips_without_sound": pc.sum(pc.equal(rows["mel_columns"], 0)).as_py(),
            "left_out": dict(left_out),
        },
    )
    counts = ", ".join(f"{splits[name]} {name}" for name in ("train", "val", "test"))
    summary = f"extract: {len(rows)} clips ({counts}), {frames} frames, {size / 1e6:.1f} MB"
    log.info(summary_line(summary, left_out))


def _check_splits(
    wanted: Collection[str], present: Collection[str], left_out: Counter[str]
) -> None:
    """Raises DataError, naming the empty splits, if train, val or a ``wanted`` one has no clip."""
    needed = [split for split in ("train", "val", "test") if split != "test" or split in wanted]
    if empty := [split for split in needed if split not in present]:
        raise DataError(f"extract: no clip in {', '.join(empty)}; left out: {dict(left_out)}")


def _shards(
    jobs: Sequence[ClipShard],
    out_dir: Path,
    config: ExtractConfig,
    mel: MelConfig,
    machine: MachineConfig,
) -> Iterator[ShardResult]:
    settings = {
        "code": code_fingerprint("trimodal.preprocess.clip_shards"),
        "front_end": mel.front_end_fingerprint(),
        "frame_px": config.frame_px,
        "jpeg_quality": config.jpeg_quality,
        "longest_seconds": config.longest_seconds,
        "largest_pixels": config.largest_pixels,
    }
    timeout = machine.clip_timeout_seconds
    return make_shards(
        partial(extract_shard, config, mel, timeout), jobs, out_dir,
        settings=settings, machine=machine, retryable={"too_slow", *UNREADABLE},
        on_crash=partial(_without_crashing_clips, config, mel, timeout),
        preflight=missing_media_tools,
    )  # fmt: skip


def _without_crashing_clips(
    config: ExtractConfig,
    mel: MelConfig,
    timeout_seconds: float,
    job: ClipShard,
    error: WorkerError,
) -> ShardResult:
    """Retries a shard whose worker crashed: decodes each clip in a process of its own first, so
    that only the clips that crash are left out.
    """
    crashing: dict[str, str] = {}
    for outcome in job.clips:
        single = replace(job, clips=(outcome,))
        for reason in map_in_order(
            partial(_decode_alone, config, mel, timeout_seconds),
            [single],
            1,
            on_crash=_crash_reason,
        ):
            if reason:
                crashing[outcome.clip.clip_id] = reason
    log.info(f"extract: {job.path.name}: {error}; left out because of it: {crashing}")
    return extract_shard(config, mel, timeout_seconds, replace(job, crashing=crashing))


def _decode_alone(
    config: ExtractConfig, mel: MelConfig, timeout_seconds: float, single: ClipShard
) -> str:
    """Decodes a shard's only clip; the result is always empty, a crash ends the process."""
    with suppress(MediaError, LimitError, UnreadableError):
        clip_sample(single.clips[0], single, config, mel, timeout_seconds)
    return ""


def _crash_reason(_single: ClipShard, error: WorkerError) -> str:
    return error.how


def _plan(usable: list[ClipOutcome], out_dir: Path, config: ExtractConfig) -> list[ClipShard]:
    by_id = {o.clip.clip_id: o for o in usable if o.clip.split == "train"}
    train, val = keep_videos_together(
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
