"""Loading training samples against the authors' code: ``python -m benchmarks.loading``.

Takes 20 clips of 10 s and COCO's images (real ones where ``../shared/data`` has them), stores them
with the extract and captions stages and, for the authors' code, as folders of JPEGs and WAVs.
Prints CPU time per sample at paper and demo scale, how many bytes are read for each byte used, and
how well batches are shuffled. Needs 1 GB of disk and two minutes.
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

from benchmarks.authors import authors_files
from benchmarks.authors_samples import authors_images, authors_pair, authors_view
from benchmarks.caption_corpus import SHARED, make_corpus, photographs
from benchmarks.extraction import outcome, standard_clips
from benchmarks.measuring import (
    describe_machine,
    drop_from_cache,
    params_at,
    ratio,
    say,
    side_by_side,
)
from trimodal.core.arguments import positive, writable_folder
from trimodal.core.config import load_section
from trimodal.core.machine import MachineConfig
from trimodal.core.manifest import write_manifest
from trimodal.data.clip_index import read_index
from trimodal.data.readers import Pair
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.image_input import ImageInput
from trimodal.models.preprocessing import AugmentConfig, decode_jpeg
from trimodal.preprocess.captions import prepare_captions
from trimodal.preprocess.clip_shards import ExtractConfig
from trimodal.preprocess.extract import extract
from trimodal.preprocess.image_shards import stored_jpeg
from trimodal.training.config import TrainConfig
from trimodal.training.image_audio import FrameSampling, ImageAudioPairs
from trimodal.training.image_text import ImageTextPairs
from trimodal.training.random_streams import RandomStream, SampleIndex
from trimodal.training.rounds import ShuffledRounds
from trimodal.training.sampler import EndlessBatches

IMAGES = 120
VGGSOUND_CLIPS = 170_000  # for training
REPEATS = 12  # passes over our samples for one over the authors'

Samples = ImageAudioPairs | ImageTextPairs
Work = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The params of a scale, and the clips stored with them."""

    extraction: ExtractConfig
    front_end: AudioFrontEnd
    augment: AugmentConfig
    training: TrainConfig
    machine: MachineConfig
    av_dir: Path
    pairs: ImageAudioPairs


def main() -> None:
    """Writes the files, measures, prints the tables, deletes the files."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--folder", type=writable_folder, help="where to write the files (default: temporary)"
    )
    parser.add_argument("--rounds", type=positive, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory(prefix="loading-", dir=args.folder) as name:
        folder = Path(name)
        media = "real" if SHARED.is_dir() else "SYNTHETIC, as there is no ../shared/data"
        say(f"{describe_machine()}, one thread; clips and images are {media}.\n")
        clips = standard_clips(folder / "standard")
        paper = stored(params_at("paper", folder), clips, folder / "paper")
        demo = stored(params_at("demo", folder), clips, folder / "demo")
        images = stored_images(paper, folder)
        say("The trainer normalises pixels on its device; the authors' code while loading.\n")
        say("| sample | method | CPU ms per sample | times ours |")
        say("| --- | --- | ---: | ---: |")
        for scale in (paper, demo):
            compare_image_audio(scale, clips, args.rounds)
        compare_image_text(paper, images, folder / "jpegs", args.rounds)
        say("\n| stream | used | read() | read from disk | whole clips |")
        say("| --- | ---: | ---: | ---: | ---: |")
        clip_bytes = sum(path.stat().st_size for path in paper.av_dir.glob("train-*.tar"))
        bytes_read("image-audio", paper.pairs, paper.front_end, paper.av_dir, clip_bytes)
        bytes_read("image-text", images, None, folder / "images", None)
        mixing(paper.training)


def stored(params: Path, clips: Sequence[Path], folder: Path) -> Scale:
    """Extracts the clips with the params of a file: the last one as a test video, a tenth for
    validation, the rest for training.
    """
    extraction = load_section(params, "extract", ExtractConfig)
    front_end = AudioFrontEnd(
        mel=load_section(params, "mel", MelConfig),
        window=load_section(params, "window", WindowConfig),
    )
    machine = replace(load_section(params, "machine", MachineConfig), workers=1)
    augment = load_section(params, "augment", AugmentConfig)
    training = load_section(params, "train", TrainConfig)
    *rest, last = (outcome(clip) for clip in clips)
    test = replace(last, clip=replace(last.clip, source="msrvtt", split="test"))
    write_manifest(folder / "manifest.parquet", [*rest, test])
    extract(folder / "manifest.parquet", folder / "av", extraction, front_end.mel, machine)
    sampling = FrameSampling(
        first_frame=training.first_frame,
        last_frame=training.last_frame,
        validation_frame=training.validation_frame,
    )
    index = read_index(folder / "av", "train", front_end.mel)
    return Scale(
        extraction=extraction,
        front_end=front_end,
        augment=augment,
        training=training,
        machine=machine,
        av_dir=folder / "av",
        pairs=ImageAudioPairs(index, sampling, front_end, augment, training.seed),
    )


def stored_images(scale: Scale, folder: Path) -> ImageTextPairs:
    """The training images of a small corpus, as the captions stage stores them."""
    config = make_corpus(folder / "corpus", IMAGES, photographs())
    prepare_captions(config, folder / "captions", folder / "images", scale.machine)
    augment, seed = scale.augment, scale.training.seed
    return ImageTextPairs(folder / "captions", folder / "images", "train", augment, seed)


def whole_round(samples: Samples, number: int) -> Pair:
    """All samples of a round as one batch, as a loader worker returns it."""
    indices = [SampleIndex(number, sample) for sample in range(len(samples))]
    return samples.__getitems__(indices)


def compare(
    name: str, samples: Samples, others: Mapping[str, tuple[Work, int]], rounds: int
) -> None:
    """Prints the cost of a sample by our loader and by ``others`` (work, its number of samples)."""

    def ours() -> None:
        for number in range(REPEATS):
            whole_round(samples, number)

    def normalised() -> None:
        for number in range(REPEATS):
            ImageInput().prepare(whole_round(samples, number)[0])

    count = REPEATS * len(samples)
    methods = {**others, "ours, normalised here": (normalised, count), "ours": (ours, count)}
    timings = side_by_side({method: work for method, (work, _) in methods.items()}, rounds)
    per_sample = {
        method: tuple(seconds / samples_done for seconds in timings[method].cpu_s)
        for method, (_, samples_done) in methods.items()
    }
    for method, seconds in per_sample.items():
        times = "" if method == "ours" else f"{ratio(seconds, per_sample['ours']):.1f} x"
        say(f"| {name} | {method} | {1000 * statistics.median(seconds):.3f} | {times} |")


def compare_image_audio(scale: Scale, clips: Sequence[Path], rounds: int) -> None:
    """Prints the cost of an image-audio sample by our loader and by the authors'."""
    mel, px = scale.front_end.mel, scale.extraction.frame_px
    view = authors_view(scale.augment.crop_px)
    folders = [clip.with_suffix(f".{px}") for clip in clips]
    for clip, folder in zip(clips, folders, strict=True):
        authors_files(clip, folder, px, mel.sample_rate_hz)

    def authors() -> None:
        default_collate([authors_pair(folder, mel, view) for folder in folders])

    sizes = f"{px} px, crop {scale.augment.crop_px}, {mel.mels} mels of {mel.sample_rate_hz} Hz"
    others = {"authors': JPEG and WAV": (authors, len(folders))}
    compare(f"image-audio, {sizes}", scale.pairs, others, rounds)


def compare_image_text(scale: Scale, images: ImageTextPairs, folder: Path, rounds: int) -> None:
    """Prints the cost of an image-text sample from our shards, from a folder of images of original
    size and from one of images already resized.
    """
    px, crop_px = scale.extraction.frame_px, scale.augment.crop_px
    jpegs = photographs()
    for kind in ("original", "resized"):
        (folder / kind).mkdir(parents=True)
    for number, jpeg in enumerate(jpegs):
        (folder / "original" / f"{number:03d}.jpg").write_bytes(jpeg)
        resized = stored_jpeg(jpeg, px, scale.extraction.jpeg_quality)
        (folder / "resized" / f"{number:03d}.jpg").write_bytes(resized)
    original_view = authors_view(crop_px, px)
    resized_view = authors_view(crop_px)
    others: dict[str, tuple[Work, int]] = {
        "PIL and torchvision, original images": (
            lambda: authors_images(folder / "original", original_view),
            len(jpegs),
        ),
        f"PIL and torchvision, images already {px} px": (
            lambda: authors_images(folder / "resized", resized_view),
            len(jpegs),
        ),
    }
    compare(f"image-text, {px} px, crop {crop_px}", images, others, rounds)


def bytes_read(
    name: str,
    samples: Samples,
    front_end: AudioFrontEnd | None,
    shards: Path,
    all_clips_bytes: int | None,
) -> None:
    """Prints the bytes that a round reads with a cold page cache, as multiples of the bytes it
    uses: its images and, given ``front_end``, the columns of its windows.
    """
    used = 0
    if front_end:
        used = len(samples) * front_end.columns * (front_end.mel.mels + 2)

    def counting(content: bytes) -> Tensor:
        nonlocal used
        used += len(content)
        return decode_jpeg(content)

    os.sync()
    for shard in shards.glob("*.tar"):
        drop_from_cache(shard)
    before = io_counters()
    with patch("trimodal.data.readers.decode_jpeg", counting):
        for sample in range(len(samples)):
            samples[SampleIndex(0, sample)]
    after = io_counters()
    requested, fetched = (after[key] - before[key] for key in ("rchar", "read_bytes"))
    clips = f"{all_clips_bytes / used:.1f} x" if all_clips_bytes else ""
    say(
        f"| {name} | {used / len(samples) / 1e3:.1f} kB per sample | {requested / used:.3f} x | "
        f"{fetched / used:.3f} x | {clips} |"
    )


def io_counters() -> dict[str, int]:
    """Linux's counters of this process: ``rchar``, bytes read(), and ``read_bytes``, from disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return {key: int(count) for key, count in (line.split(": ") for line in lines)}


def mixing(training: TrainConfig) -> None:
    """Prints how many different clips a batch has, and how widely they are spread."""
    rounds = ShuffledRounds(
        VGGSOUND_CLIPS, training.batch_size, training.seed, RandomStream.CLIP_ORDER
    )
    distinct, spread = [], []
    for batch, _ in zip(EndlessBatches(rounds), range(rounds.batches), strict=False):
        chosen: npt.NDArray[np.int64] = np.array([index.sample for index in batch])
        distinct.append(len(np.unique(chosen)))
        spread.append(chosen.std() / VGGSOUND_CLIPS)
    say(
        f"\n{VGGSOUND_CLIPS:,} clips in batches of {training.batch_size}, one round: at least "
        f"{min(distinct)} different clips in every batch; the standard deviation of their rows is "
        f"{min(spread):.3f} to {max(spread):.3f} of the data set (uniform: {12**-0.5:.3f})."
    )


if __name__ == "__main__":
    main()
