"""Loading training samples beside the authors' way: ``python -m benchmarks.loading``.

Takes 20 clips of 10 s and COCO's pictures (real ones where ``../shared/data`` has them), stores
them with the extract and captions stages and, for the authors' way, as folders of JPEGs and WAVs.
Prints processor time a sample at the paper's and the demo's sizes, what share of the bytes read is
used, and how well a batch is mixed. Needs 1 GB of disk, two minutes.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import default_collate
from trimodal.training.datasets import AudioVisualPairs, CaptionedImages, Draw, FrameSampling, Pair

from benchmarks.authors import authors_files
from benchmarks.authors_samples import authors_pair, authors_pictures, authors_view
from benchmarks.caption_corpus import SHARED, make_corpus, photographs
from benchmarks.extraction import outcome, standard_clips
from benchmarks.measuring import forget, machine, params_at, ratio, say, side_by_side
from trimodal.core.config import load_section
from trimodal.core.manifest import write_manifest
from trimodal.media.mel import MelConfig
from trimodal.models.preprocessing import AugmentConfig, decode_jpeg, normalise
from trimodal.preprocess.captions import prepare_captions
from trimodal.preprocess.clip_shards import ExtractConfig
from trimodal.preprocess.extract import extract
from trimodal.preprocess.image_shards import stored_jpeg
from trimodal.training.clip_index import read_index
from trimodal.training.config import TrainConfig
from trimodal.training.sampler import EndlessBatches

IMAGES = 120
VGGSOUND_CLIPS = 170_000  # for training
REPEATED = 12  # rounds over our samples for one over the authors'

Stream = AudioVisualPairs | CaptionedImages
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A params file's sizes, and the clips stored with them."""

    extraction: ExtractConfig
    mel: MelConfig
    augment: AugmentConfig
    training: TrainConfig
    av_dir: Path
    pairs: AudioVisualPairs


def main() -> None:
    """Makes the files, measures, prints the tables, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to make the files (default: temporary)")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="loading-", dir=given.folder) as name:
        folder = Path(name)
        found = "real ones" if SHARED.is_dir() else "MADE UP: there is no ../shared/data"
        say(f"{machine()}, one thread; clips and pictures: {found}.\n")
        clips = standard_clips(folder / "standard")
        paper = stored(params_at("paper", folder), clips, folder / "paper")
        demo = stored(params_at("demo", folder), clips, folder / "demo")
        images = stored_images(paper, folder)
        say("The trainer normalises the pixels on its device; the authors' ways do it here.\n")
        say("| sample | way | CPU ms a sample | ours is faster by |")
        say("| --- | --- | ---: | ---: |")
        for scale in (paper, demo):
            compare_image_audio(scale, clips, given.rounds)
        compare_image_text(paper, images, folder / "pictures", given.rounds)
        say("\n| stream | needed | asked of the system | fetched from disk | whole clips |")
        say("| --- | ---: | ---: | ---: | ---: |")
        clip_bytes = sum(path.stat().st_size for path in paper.av_dir.glob("train-*.tar"))
        bytes_read("image-audio", paper.pairs, paper.mel, paper.av_dir, clip_bytes)
        bytes_read("image-text", images, None, folder / "images", None)
        mixing(paper.training)


def stored(params: Path, clips: Sequence[Path], folder: Path) -> Scale:
    """Extracts the clips: the last one as a test video, two for validation, the rest to train."""
    extraction = replace(load_section(params, "extract", ExtractConfig), workers=1)
    mel = load_section(params, "mel", MelConfig)
    augment = load_section(params, "augment", AugmentConfig)
    training = load_section(params, "train", TrainConfig)
    *trained, last = (outcome(clip) for clip in clips)
    test = replace(last, clip=replace(last.clip, source="msrvtt", split="test"))
    write_manifest(folder / "manifest.parquet", [*trained, test])
    extract(folder / "manifest.parquet", folder / "av", extraction, mel)
    rule = FrameSampling(
        first_frame=training.first_frame,
        last_frame=training.last_frame,
        validation_frame=training.validation_frame,
    )
    index = read_index(folder / "av", "train", mel)
    return Scale(
        extraction=extraction,
        mel=mel,
        augment=augment,
        training=training,
        av_dir=folder / "av",
        pairs=AudioVisualPairs(index, rule, mel, augment, training.seed),
    )


def stored_images(scale: Scale, folder: Path) -> CaptionedImages:
    """The training pictures of a small corpus, as the captions stage leaves them."""
    config = make_corpus(folder / "corpus", IMAGES, photographs(), 1)
    prepare_captions(config, folder / "captions", folder / "images")
    augment, seed = scale.augment, scale.training.seed
    return CaptionedImages(folder / "captions", folder / "images", "train", augment, seed)


def round_of(samples: Stream, number: int) -> Pair:
    """A round of samples in one batch, as a worker hands it on."""
    draws = [Draw(number, sample) for sample in range(len(samples))]
    return samples.__getitems__(draws)


def compare(name: str, samples: Stream, ways: Mapping[str, tuple[Work, int]], rounds: int) -> None:
    """Prints what a sample costs in ours and the given ways (work, its samples)."""

    def ours() -> None:
        for number in range(REPEATED):
            round_of(samples, number)

    def normalised() -> None:
        for number in range(REPEATED):
            normalise(round_of(samples, number)[0])

    count = REPEATED * len(samples)
    every = {**ways, "ours, normalised here": (normalised, count), "ours": (ours, count)}
    found = side_by_side({way: work for way, (work, _) in every.items()}, rounds)
    each = {way: tuple(s / every[way][1] for s in found[way].cpu_s) for way in every}
    for way, seconds in each.items():
        faster = "" if way == "ours" else f"{ratio(seconds, each['ours']):.1f} x"
        say(f"| {name} | {way} | {1000 * statistics.median(seconds):.3f} | {faster} |")


def compare_image_audio(scale: Scale, clips: Sequence[Path], rounds: int) -> None:
    """Prints what an image-audio sample costs in both ways."""
    px, rate_hz = scale.extraction.frame_px, scale.mel.sample_rate_hz
    view = authors_view(scale.augment.crop_px)
    folders = [clip.with_suffix(f".{px}") for clip in clips]
    for clip, folder in zip(clips, folders, strict=True):
        authors_files(clip, folder, px, rate_hz)

    def authors() -> None:
        default_collate([authors_pair(folder, scale.mel, view) for folder in folders])

    sizes = f"{px} px, crop {scale.augment.crop_px}, {scale.mel.mels} mels of {rate_hz} Hz"
    ways = {"authors': JPEG and WAV": (authors, len(folders))}
    compare(f"image-audio, {sizes}", scale.pairs, ways, rounds)


def compare_image_text(scale: Scale, images: CaptionedImages, folder: Path, rounds: int) -> None:
    """Prints what an image-text sample costs from our shards, from a folder of pictures as they
    come and from one of pictures that are already small.
    """
    px, crop_px = scale.extraction.frame_px, scale.augment.crop_px
    pictures = photographs()
    for kind in ("original", "small"):
        (folder / kind).mkdir(parents=True)
    for number, picture in enumerate(pictures):
        (folder / "original" / f"{number:03d}.jpg").write_bytes(picture)
        small = stored_jpeg(picture, px, scale.extraction.jpeg_quality)
        (folder / "small" / f"{number:03d}.jpg").write_bytes(small)
    as_they_come = authors_view(crop_px, px)
    already_small = authors_view(crop_px)
    ways: dict[str, tuple[Work, int]] = {
        "PIL and torchvision, pictures as they come": (
            lambda: authors_pictures(folder / "original", as_they_come),
            len(pictures),
        ),
        f"PIL and torchvision, files already {px} px": (
            lambda: authors_pictures(folder / "small", already_small),
            len(pictures),
        ),
    }
    compare(f"image-text, {px} px, crop {crop_px}", images, ways, rounds)


def bytes_read(
    name: str, samples: Stream, mel: MelConfig | None, shards: Path, whole: int | None
) -> None:
    """Prints what a round reads with nothing in memory, as shares of what it needs: its pictures
    and, given ``mel``, the columns of its windows. ``whole``: the bytes of all the clips.
    """
    needed = len(samples) * mel.columns * mel.column_type.itemsize if mel else 0

    def counting(content: bytes) -> Tensor:
        nonlocal needed
        needed += len(content)
        return decode_jpeg(content)

    os.sync()
    for shard in shards.glob("*.tar"):
        forget(shard)
    before = read_so_far()
    with patch("trimodal.training.datasets.decode_jpeg", counting):
        for sample in range(len(samples)):
            samples[Draw(0, sample)]
    after = read_so_far()
    asked, fetched = (after[key] - before[key] for key in ("rchar", "read_bytes"))
    clips = f"{whole / needed:.1f} x" if whole else ""
    say(
        f"| {name} | {needed / len(samples) / 1e3:.1f} kB a sample | {asked / needed:.3f} x | "
        f"{fetched / needed:.3f} x | {clips} |"
    )


def read_so_far() -> dict[str, int]:
    """What Linux counts of this process: ``rchar`` bytes asked for, ``read_bytes`` from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {key: int(count) for key, count in (line.split(": ") for line in lines)}


def mixing(training: TrainConfig) -> None:
    """Prints how many different clips a batch has, and how far apart they lie in the shards."""
    batches = EndlessBatches(VGGSOUND_CLIPS, training.batch_size, training.seed, stream=0)
    distinct, spread = [], []
    for batch, _ in zip(batches, range(batches.batches_per_round), strict=False):
        chosen: npt.NDArray[np.int64] = np.array([draw.sample for draw in batch])
        distinct.append(len(np.unique(chosen)))
        spread.append(chosen.std() / VGGSOUND_CLIPS)
    say(
        f"\n{VGGSOUND_CLIPS:,} clips in batches of {training.batch_size}, a whole round: at least "
        f"{min(distinct)} different clips in every batch; their places deviate by "
        f"{min(spread):.3f} to {max(spread):.3f} of the data set (evenly drawn: {12**-0.5:.3f})."
    )


if __name__ == "__main__":
    main()
