"""Extraction against a bare decode and the authors' code: ``python -m benchmarks.extraction``.

Takes the real clips of ``../shared/data`` as they are, and re-encoded to 10 s of 454 x 340 pixels
at 25 fps; without that folder, test patterns of this size alone. Prints CPU time per clip, the gain
of a second worker, bytes per clip and peak memory. Needs 1 GB of disk and six minutes.
"""

import argparse
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import ffmpeg
import librosa
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.authors import authors_extraction, power_mel
from benchmarks.measuring import (
    describe_machine,
    in_child,
    params_at,
    peak_bytes,
    ratio,
    run_ffmpeg,
    say,
    side_by_side,
)
from trimodal.core.archives import StoredFile
from trimodal.core.arguments import positive, writable_folder
from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import ClipOutcome, write_manifest
from trimodal.core.records import Clip
from trimodal.core.shards import ShardResult
from trimodal.core.timing import frame_centre_seconds, frame_count
from trimodal.download.probe import inspect
from trimodal.media.audio import decode_audio
from trimodal.media.mel import MelConfig
from trimodal.media.spectrogram import log_mel
from trimodal.media.windows import (
    AudioFrontEnd,
    WindowConfig,
    scale_windows,
    window_decibels,
    window_first_column,
)
from trimodal.preprocess.clip_shards import ClipShard, ExtractConfig, extract_shard
from trimodal.preprocess.extract import extract

REAL_CLIPS = Path("../shared/data/clips")
STANDARD = "10 s, 454 x 340, 25 fps"
STANDARD_CLIPS = 20

Corpora = dict[str, list[Path]]
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Sections:
    """The params that decide what extraction writes and how."""

    extraction: ExtractConfig
    front_end: AudioFrontEnd
    machine: MachineConfig

    @property
    def mel(self) -> MelConfig:
        """Section ``mel``."""
        return self.front_end.mel

    def extract_shard(self, job: ClipShard) -> ShardResult:
        """Makes one shard in this process."""
        timeout_seconds = self.machine.clip_timeout_seconds
        return extract_shard(self.extraction, self.mel, timeout_seconds, job)


def main() -> None:
    """Encodes the clips, measures, prints the tables, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--folder", type=writable_folder, help="where to write the files (default: temporary)"
    )
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument(
        "--copies", type=positive, default=15, help="of each clip, for timing two workers"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)  # as workers do
    with TemporaryDirectory(prefix="extraction-", dir=args.folder) as name:
        folder = Path(name)
        corpora = {STANDARD: standard_clips(folder / "standard")}
        if REAL_CLIPS.is_dir():
            corpora["60 real clips, 3 to 10 s"] = sorted(REAL_CLIPS.glob("*.mp4"))
        say(f"{describe_machine()}; frames and mels as in params/paper.yaml.\n")
        sections = paper_sections(folder)
        cpu_time(corpora, sections, folder, args.rounds)
        mel_time(corpora, sections, args.rounds)
        second_worker(corpora[STANDARD], sections, folder, args.copies, args.rounds)
        bytes_and_error(corpora, sections, folder)
        peak_memory(corpora[STANDARD], sections, folder)


def paper_sections(folder: Path) -> Sections:
    """The params of paper scale, with one worker."""
    params = params_at("paper", folder)
    front_end = AudioFrontEnd(
        mel=load_section(params, "mel", MelConfig),
        window=load_section(params, "window", WindowConfig),
    )
    return Sections(
        extraction=load_section(params, "extract", ExtractConfig),
        front_end=front_end,
        machine=replace(load_section(params, "machine", MachineConfig), workers=1),
    )


def cpu_time(corpora: Corpora, sections: Sections, folder: Path, rounds: int) -> None:
    """Prints the CPU time per clip of each method, and the ratios."""
    say("| clips | method | CPU ms per clip | times the bare decode | times ours |")
    say("| --- | --- | ---: | ---: | ---: |")
    for name, clips in corpora.items():
        by_method = side_by_side(methods(clips, sections, folder), rounds)
        bare, ours, _ = by_method.values()
        for method, timings in by_method.items():
            say(
                f"| {name} | {method} | {1000 * timings.cpu / len(clips):.0f} | "
                f"{ratio(timings.cpu_s, bare.cpu_s):.2f} | "
                f"{ratio(timings.cpu_s, ours.cpu_s):.2f} |"
            )


def methods(
    clips: Sequence[Path], sections: Sections, folder: Path
) -> dict[str, Callable[[], object]]:
    """The methods compared, each on all clips."""
    job = shard_job(clips, folder / "train-000000.tar")

    def decode() -> None:
        for clip in clips:
            bare_decode(clip)

    def authors() -> None:
        for clip in clips:
            authors_extraction(clip, folder / "authors")

    return {
        "ffmpeg, decoding only": decode,
        "ours: decode, frames, mel, JPEG, shard": lambda: sections.extract_shard(job),
        "the authors': JPEGs, WAV, mels of ten windows": authors,
    }


def mel_time(corpora: Corpora, sections: Sections, rounds: int) -> None:
    """Prints the CPU time per clip of the stored log-mel beside librosa's, from decoded samples."""
    say("\n| clips | mel | CPU ms per clip | times librosa's |\n| --- | --- | ---: | ---: |")
    mel = sections.mel
    for name, clips in corpora.items():
        tracks = [decoded_audio(clip, sections) for clip in clips]

        def ours(tracks: Sequence[Samples] = tracks) -> None:
            for samples in tracks:
                log_mel([samples], mel)

        def librosas(tracks: Sequence[Samples] = tracks) -> None:
            for samples in tracks:
                librosa.power_to_db(power_mel(samples, mel), top_db=None)

        by_method = side_by_side({"librosa": librosas, "ours: torchaudio, stored": ours}, rounds)
        for method, timings in by_method.items():
            say(
                f"| {name} | {method} | {1000 * timings.cpu / len(clips):.1f} | "
                f"{ratio(timings.cpu_s, by_method['librosa'].cpu_s):.2f} |"
            )


def second_worker(
    clips: Sequence[Path], sections: Sections, folder: Path, copies: int, rounds: int
) -> None:
    """Prints the stage's wall seconds with one worker and with two."""
    outcomes = [
        replace(outcome, clip=replace(outcome.clip, clip_id=f"{outcome.clip.clip_id}-{copy:03d}"))
        for copy in range(copies)
        for outcome in shard_job(clips, folder).clips
    ]
    test = replace(outcomes[0], clip=replace(outcomes[0].clip, clip_id="test", split="test"))
    write_manifest(folder / "manifest.parquet", [*outcomes, test])
    extraction = replace(sections.extraction, clips_per_shard=10)

    def run(workers: int) -> None:
        out = folder / "av"
        machine = replace(sections.machine, workers=workers)
        extract(folder / "manifest.parquet", out, extraction, sections.mel, machine)
        shutil.rmtree(out)

    by_workers = side_by_side({"1": lambda: run(1), "2": lambda: run(2)}, rounds)
    say("\n| workers | wall s | speed-up |\n| --- | ---: | ---: |")
    for workers, timings in by_workers.items():
        gain = ratio(by_workers["1"].wall_s, timings.wall_s)
        say(f"| {workers} ({len(outcomes)} clips) | {timings.wall:.1f} | {gain:.2f} |")


def bytes_and_error(corpora: Corpora, sections: Sections, folder: Path) -> None:
    """Prints bytes per clip beside the authors', and the error of windows against exact ones."""
    say("\n| clips | authors' KB per clip | ours | ratio | largest error in a window's top 60 dB |")
    say("| --- | ---: | ---: | ---: | ---: |")
    for name, clips in corpora.items():
        ours = sections.extract_shard(shard_job(clips, folder / "train-000001.tar")).bytes
        theirs = sum(authors_extraction(clip, folder / "authors") for clip in clips)
        error = max(window_error_db(clip, sections) for clip in clips)
        say(
            f"| {name} | {theirs / len(clips) / 1e3:.0f} | {ours / len(clips) / 1e3:.0f} | "
            f"{ours / theirs:.2f} | {error:.3f} dB |"
        )


def window_error_db(clip: Path, sections: Sections) -> float:
    """The largest difference, over the windows that fit in a clip, between a window of the stored
    mel and the same window of librosa's mel, where the latter is within 60 dB of its maximum.
    """
    front_end, mel = sections.front_end, sections.mel
    samples = decoded_audio(clip, sections)
    stored, power = log_mel([samples], mel), power_mel(samples, mel)
    worst = 0.0
    for frame in range(2, frame_count(len(samples) / mel.sample_rate_hz) - 1):
        first = window_first_column(frame_centre_seconds(frame), front_end)
        columns = slice(first, first + front_end.columns)
        decibels = window_decibels(stored[columns], first, front_end)
        (window,) = scale_windows(decibels[None], front_end)
        ours = 40 * window - 40
        exact = librosa.power_to_db(power[:, columns], ref=np.max, top_db=80)
        worst = max(worst, float(np.abs(ours - exact)[exact > -60].max()))
    return worst


def decoded_audio(clip: Path, sections: Sections) -> Samples:
    """All samples of a clip."""
    limits = sections.extraction.limits(sections.machine.clip_timeout_seconds)
    return np.concatenate(list(decode_audio(clip, sections.mel.sample_rate_hz, limits)))


def peak_memory(clips: Sequence[Path], sections: Sections, folder: Path) -> None:
    """Prints the peak resident size of a fresh worker on ordinary and on very large clips."""
    shards = {
        f"{len(clips)} clips of {STANDARD}": list(clips),
        "5 s of 4096 x 2160 and 14 min of 320 x 240": [
            synthetic_clip(folder / "large.mp4", "4096x2160", 5),
            synthetic_clip(folder / "long.mp4", "320x240", 840, fps=8),
        ],
    }
    say("\n| shard | peak memory | left out |\n| --- | ---: | --- |")
    for name, members in shards.items():
        peak, left_out = in_child(peak_of_shard, members, sections, folder / "train-000002.tar")
        say(f"| {name} | {peak / 1e6:.0f} MB | {left_out or 'nothing'} |")


def peak_of_shard(
    clips: Sequence[Path], sections: Sections, path: Path
) -> tuple[int, dict[str, int]]:
    """Makes a shard in this process; returns peak memory and what was left out."""
    result = sections.extract_shard(shard_job(clips, path))
    return peak_bytes(), dict(result.left_out)


def shard_job(clips: Sequence[Path], path: Path) -> ClipShard:
    """The job of making one training shard of the clips."""
    return ClipShard(path=path, split="train", clips=tuple(outcome(clip) for clip in clips))


def outcome(clip: Path) -> ClipOutcome:
    """The row of a file in the download stage's manifest."""
    record = Clip(clip_id=clip.stem, source="vggsound", split="train", label="benchmark")
    return inspect(record, StoredFile(path=clip, size=clip.stat().st_size), None)


def bare_decode(clip: Path) -> None:
    """Decodes video and audio with ffmpeg on one thread, and discards them."""
    run_ffmpeg(ffmpeg.input(str(clip), threads=1).output("-", format="null"))


def standard_clips(folder: Path) -> list[Path]:
    """H.264 and AAC clips of VGGSound's usual size, made of real clips where available."""
    folder.mkdir()
    encoding = {
        "t": 10, "vf": "scale=454:340,fps=25,format=yuv420p", "vcodec": "libx264",
        "preset": "veryfast", "crf": 20, "acodec": "aac", "audio_bitrate": "128k",
    }  # fmt: skip
    real = sorted(REAL_CLIPS.glob("*.mp4"))[:STANDARD_CLIPS]
    for number, clip in enumerate(real):
        endless = ffmpeg.input(str(clip), stream_loop=-1)
        run_ffmpeg(endless.output(str(folder / f"{number:02d}.mp4"), **encoding))
    if not real:
        say("No ../shared/data: the clips are test patterns.\n")
        for number in range(STANDARD_CLIPS):
            synthetic_clip(folder / f"{number:02d}.mp4", "454x340", 10)
    return sorted(folder.iterdir())


def synthetic_clip(path: Path, size: str, seconds: int, fps: int = 25) -> Path:
    """ffmpeg's moving test pattern, and noise."""
    pattern = f"testsrc2=size={size}:rate={fps}:duration={seconds}"
    noise = f"anoisesrc=amplitude=0.1:duration={seconds}:sample_rate=44100"
    inputs = [ffmpeg.input(source, format="lavfi") for source in (pattern, noise)]
    encoding = {"pix_fmt": "yuv420p", "vcodec": "libx264", "preset": "veryfast", "acodec": "aac"}
    run_ffmpeg(ffmpeg.output(*inputs, str(path), **encoding))
    return path


if __name__ == "__main__":
    main()
