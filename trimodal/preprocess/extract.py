"""From clips to audio-visual shards: 1 fps frames and one log-mel a clip (docs/method.md,
Contracts).
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
from trimodal.core.manifest import ClipOutcome, read_manifest
from trimodal.core.progress import bar, log, summary_line
from trimodal.core.records import DataError, Split
from trimodal.core.schemas import AV_SCHEMA
from trimodal.core.shards import ShardResult
from trimodal.media.container import LimitError, MediaError, missing_media_tools
from trimodal.media.mel import MelConfig
from trimodal.parallel.journal import make_shards
from trimodal.parallel.pool import WorkerError, map_in_order
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, clip_sample, extract_shard
from trimodal.preprocess.splits import hold_out, keep_videos_whole


def extract(
    manifest_path: Path,
    out_dir: Path,
    config: ExtractConfig,
    mel: MelConfig,
    machine: MachineConfig,
) -> None:
    """Writes ``{train,val,test}-%06d.tar``, ``index.parquet`` and ``stats.json`` into ``out_dir``;
    shards that an earlier run finished are kept (:mod:`trimodal.parallel.journal`).

    A clip that cannot be decoded, and a training clip without sound, is left out and counted; so is
    one that crashes its decoder. Raises DataError where too few are left, and WorkerError if a
    worker is killed.
    """
    outcomes = read_manifest(manifest_path)
    usable = [outcome for outcome in outcomes if outcome.status == "ok"]
    jobs = _plan(usable, out_dir, config)
    skipped = Counter(f"download: {o.status}" for o in outcomes if o.status != "ok")
    _check_splits({job.split for job in jobs}, skipped)
    parts = [AV_SCHEMA.empty_table()]
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    size = 0
    done = _shards(jobs, out_dir, config, mel, machine)
    for shard in bar(done, task="extracting", unit="shards", total=len(jobs)):
        parts.append(pa.Table.from_pylist(shard.rows, AV_SCHEMA))
        left_out += shard.left_out
        examples = shard.examples | examples
        size += shard.bytes
    rows = pa.concat_tables(parts).combine_chunks()
    splits = Counter(rows["split"].to_pylist())
    check_coverage(
        "extract", "downloaded clips", len(rows), left_out, required=config.min_coverage,
        param="extract.min_coverage", examples=examples,
    )  # fmt: skip
    left_out += skipped
    _check_splits(set(splits), left_out)
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
    log.info(summary_line(made, left_out))


def _check_splits(present: Collection[str], left_out: Counter[str]) -> None:
    """Raises DataError, naming the empty splits, if train, val or test has no clip."""
    if empty := [split for split in ("train", "val", "test") if split not in present]:
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
        settings=settings, machine=machine, retryable={"too_slow"},
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
    """A shard again whose worker crashed: each clip alone in a process, so that only those that
    crash it are lost.
    """
    crashing: dict[str, str] = {}
    for outcome in job.clips:
        alone = replace(job, clips=(outcome,))
        for why in map_in_order(
            partial(_try, config, mel, timeout_seconds), [alone], 1, on_crash=_how_it_crashed
        ):
            if why:
                crashing[outcome.clip.clip_id] = why
    log.info(f"extract: {job.path.name}: {error}; left out for it: {crashing}")
    return extract_shard(config, mel, timeout_seconds, replace(job, crashing=crashing))


def _try(config: ExtractConfig, mel: MelConfig, timeout_seconds: float, alone: ClipShard) -> str:
    with suppress(MediaError, LimitError):
        clip_sample(alone.clips[0], alone, config, mel, timeout_seconds)
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
