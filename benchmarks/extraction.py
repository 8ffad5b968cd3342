"""Extraction beside a bare decode and the authors' way: ``python -m benchmarks.extraction``.

Takes the real clips of ``../shared/data`` as they are, and re-encoded to 10 s of 454 x 340 pixels
at 25 fps; without that folder, made-up pictures of this size alone. Prints processor seconds a
clip, the gain of a second worker, bytes a clip and peak memory. Needs 1 GB of disk, six minutes.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import librosa
import numpy as np

from benchmarks.authors import authors_extraction, power_mel
from benchmarks.measuring import (
    ffmpeg,
    in_child,
    machine,
    params_at,
    peak_bytes,
    ratio,
    say,
    side_by_side,
)
from trimodal.core.archives import StoredFile
from trimodal.core.config import load_section
from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.records import Clip
from trimodal.core.timing import frame_centre_seconds, frame_count
from trimodal.download.probe import inspect
from trimodal.media.audio import decode_audio
from trimodal.media.mel import MelConfig
from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import scale_windows, window_decibels, window_first_column
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, extract_shard
from trimodal.preprocess.extract import extract

REAL_CLIPS = Path("../shared/data/clips")
STANDARD = "10 s, 454 x 340, 25 fps"
STANDARD_CLIPS = 20

Corpora = dict[str, list[Path]]
Sections = tuple[ExtractConfig, MelConfig]


def main() -> None:
    """Makes the clips, measures, prints the tables, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to make the files (default: temporary)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=15, help="of each clip, for the workers")
    given = parser.parse_args()
    with TemporaryDirectory(prefix="extraction-", dir=given.folder) as name:
        folder = Path(name)
        corpora = {STANDARD: standard_clips(folder / "standard")}
        if REAL_CLIPS.is_dir():
            corpora["60 real clips, 3 to 10 s"] = sorted(REAL_CLIPS.glob("*.mp4"))
        say(f"{machine()}; params/paper.yaml's frames and mels.\n")
        params = params_at("paper", folder)
        extraction = replace(load_section(params, "extract", ExtractConfig), workers=1)
        sections = (extraction, load_section(params, "mel", MelConfig))
        processor_seconds(corpora, sections, folder, given.rounds)
        second_worker(corpora[STANDARD], sections, folder, given.copies, given.rounds)
        bytes_and_error(corpora, sections, folder)
        peak_memory(corpora[STANDARD], sections, folder)


def processor_seconds(corpora: Corpora, sections: Sections, folder: Path, rounds: int) -> None:
    """Prints what a clip costs in each way, and the ratios."""
    say("| clips | way | CPU ms a clip | to the bare decode | ours is faster by |")
    say("| --- | --- | ---: | ---: | ---: |")
    for name, clips in corpora.items():
        found = side_by_side(ways(clips, sections, folder), rounds)
        bare, ours, _ = found.values()
        for way, timings in found.items():
            say(
                f"| {name} | {way} | {1000 * timings.cpu / len(clips):.0f} | "
                f"{ratio(timings.cpu_s, bare.cpu_s):.2f} | "
                f"{ratio(timings.cpu_s, ours.cpu_s):.2f} |"
            )


def ways(
    clips: Sequence[Path], sections: Sections, folder: Path
) -> dict[str, Callable[[], object]]:
    """What is compared: each does all clips."""
    job = shard_job(clips, folder / "train-000000.tar")

    def decode() -> None:
        for clip in clips:
            bare_decode(clip)

    def theirs() -> None:
        for clip in clips:
            authors_extraction(clip, folder / "authors")

    return {
        "ffmpeg decodes, nothing else": decode,
        "ours: decode, frames, mel, JPEG, shard": lambda: extract_shard(*sections, job),
        "the authors': JPEGs, WAV, mels of ten windows": theirs,
    }


def second_worker(
    clips: Sequence[Path], sections: Sections, folder: Path, copies: int, rounds: int
) -> None:
    """Prints the wall seconds of the stage with one worker and with two."""
    outcomes = [
        replace(outcome, clip=replace(outcome.clip, clip_id=f"{outcome.clip.clip_id}-{copy:03d}"))
        for copy in range(copies)
        for outcome in shard_job(clips, folder).clips
    ]
    test = replace(outcomes[0], clip=replace(outcomes[0].clip, clip_id="test", split="test"))
    write_manifest(folder / "manifest.parquet", [*outcomes, test])
    extraction, mel = sections
    extraction = replace(extraction, clips_per_shard=10)

    def run(workers: int) -> None:
        out = folder / "av"
        extract(folder / "manifest.parquet", out, replace(extraction, workers=workers), mel)
        shutil.rmtree(out)

    found = side_by_side({"1": lambda: run(1), "2": lambda: run(2)}, rounds)
    say("\n| workers | wall s | faster by |\n| --- | ---: | ---: |")
    for workers, timings in found.items():
        gain = ratio(found["1"].wall_s, timings.wall_s)
        say(f"| {workers} ({len(outcomes)} clips) | {timings.wall:.1f} | {gain:.2f} |")


def bytes_and_error(corpora: Corpora, sections: Sections, folder: Path) -> None:
    """Prints bytes a clip beside the authors', and how far windows are from uncompressed ones."""
    extraction, mel = sections
    say("\n| clips | authors' KB a clip | ours | share | window's error in its top 60 dB |")
    say("| --- | ---: | ---: | ---: | ---: |")
    for name, clips in corpora.items():
        done = extract_shard(extraction, mel, shard_job(clips, folder / "train-000001.tar"))
        theirs = sum(authors_extraction(clip, folder / "authors") for clip in clips)
        error = max(window_error_db(clip, extraction, mel) for clip in clips)
        say(
            f"| {name} | {theirs / len(clips) / 1e3:.0f} | {done.bytes / len(clips) / 1e3:.0f} | "
            f"{done.bytes / theirs:.2f} | {error:.3f} dB |"
        )


def window_error_db(clip: Path, extraction: ExtractConfig, mel: MelConfig) -> float:
    """The largest difference, over a clip's whole windows, between a window of the stored mel and
    the same window of librosa's, where the latter is within 60 dB of its loudest.
    """
    samples = np.concatenate(list(decode_audio(clip, mel.sample_rate_hz, extraction.limits)))
    stored, power = log_mel([samples], mel), power_mel(samples, mel)
    worst = 0.0
    for frame in range(2, frame_count(len(samples) / mel.sample_rate_hz) - 1):
        first = window_first_column(frame_centre_seconds(frame), mel)
        columns = slice(first, first + mel.columns)
        (window,) = scale_windows(window_decibels(stored[columns], first, mel)[None], mel)
        ours = 40 * window - 40
        own = librosa.power_to_db(power[:, columns], ref=np.max, top_db=80)
        worst = max(worst, float(np.abs(ours - own)[own > -60].max()))
    return worst


def peak_memory(clips: Sequence[Path], sections: Sections, folder: Path) -> None:
    """Prints the peak resident size of fresh workers on ordinary and on outsize clips."""
    kinds = {
        f"{len(clips)} clips of {STANDARD}": list(clips),
        "5 s of 4096 x 2160 and 14 min of 320 x 240": [
            made_up_clip(folder / "large.mp4", "4096x2160", 5),
            made_up_clip(folder / "long.mp4", "320x240", 840, fps=8),
        ],
    }
    say("\n| a worker's shard | peak memory | left out |\n| --- | ---: | --- |")
    for name, members in kinds.items():
        peak, left_out = in_child(peak_of_shard, members, sections, folder / "train-000002.tar")
        say(f"| {name} | {peak / 1e6:.0f} MB | {left_out or 'nothing'} |")


def peak_of_shard(
    clips: Sequence[Path], sections: Sections, path: Path
) -> tuple[int, dict[str, int]]:
    """Makes a shard in this process; its peak memory and what was left out."""
    done = extract_shard(*sections, shard_job(clips, path))
    return peak_bytes(), dict(done.left_out)


def shard_job(clips: Sequence[Path], path: Path) -> ClipShard:
    """The clips as a training shard."""
    return ClipShard(path=path, split="train", clips=tuple(outcome(clip) for clip in clips))


def outcome(clip: Path) -> ClipOutcome:
    """What the download stage would say of a file."""
    named = Clip(clip_id=clip.stem, source="vggsound", split="train", label="benchmark")
    return inspect(named, StoredFile(path=clip, size=clip.stat().st_size), None)


def bare_decode(clip: Path) -> None:
    """ffmpeg decodes picture and sound on one thread and throws them away."""
    ffmpeg("-threads", "1", "-i", clip, "-f", "null", "-")


def standard_clips(folder: Path) -> list[Path]:
    """H.264 and AAC clips of VGGSound's usual size, of real ones where they are there."""
    folder.mkdir()
    encoding = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-c:a", "aac", "-b:a",
                "128k")  # fmt: skip
    real = sorted(REAL_CLIPS.glob("*.mp4"))[:STANDARD_CLIPS]
    for number, clip in enumerate(real):
        ffmpeg("-stream_loop", "-1", "-i", clip, "-t", "10", "-vf",
               "scale=454:340,fps=25,format=yuv420p", *encoding,
               folder / f"{number:02d}.mp4")  # fmt: skip
    if not real:
        say("No ../shared/data: the clips are test pictures.\n")
        for number in range(STANDARD_CLIPS):
            made_up_clip(folder / f"{number:02d}.mp4", "454x340", 10)
    return sorted(folder.iterdir())


def made_up_clip(path: Path, size: str, seconds: int, fps: int = 25) -> Path:
    """ffmpeg's moving test picture and a tone with noise."""
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={fps}:duration={seconds}",
        "-f", "lavfi", "-i", f"anoisesrc=amplitude=0.1:duration={seconds}:sample_rate=44100",
        "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-c:a", "aac", path,
    )  # fmt: skip
    return path


if __name__ == "__main__":
    main()
