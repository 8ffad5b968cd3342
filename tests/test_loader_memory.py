"""A loader worker's memory does not grow over an epoch, whatever the number of samples."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
from configs import config_for_tests, front_end_for_tests
from PIL import Image
from torch.utils.data import Dataset
from training_fixtures import RATE_HZ

from trimodal.core.files import write_table
from trimodal.core.schemas import AV_SCHEMA, CAPTION_SCHEMA, IMAGE_SCHEMA
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.data.clip_index import ClipTable
from trimodal.data.readers import Pair
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.image_audio import FrameSampling, ImageAudioPairs
from trimodal.training.image_text import ImageTextPairs
from trimodal.training.loaders import training_loader
from trimodal.training.random_streams import RandomStream
from trimodal.training.rounds import ShuffledRounds
from trimodal.training.sampler import EndlessBatches

SAMPLES = 20_000
BATCH = 50
MAX_GROWTH_BYTES = 3_500_000
FRONT_END = front_end_for_tests(
    sample_rate_hz=RATE_HZ, n_fft=512, window_samples=320, hop_samples=160, mels=2
)
AUGMENT = config_for_tests(AugmentConfig, crop_px=8)


def write_shard_of_one(path: Path) -> int:
    """Writes an image and then the mel of a clip of 10 s; returns the image's size in bytes."""
    path.write_bytes(jpeg() + bytes(501 * (FRONT_END.mel.mels + 2)))
    return len(jpeg())


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


def pairs(folder: Path) -> ImageAudioPairs:
    """SAMPLES clips of 10 frames."""
    size = write_shard_of_one(folder / "train-000000.tar")
    frames = pa.array([np.zeros(10, np.int64)] * SAMPLES)
    columns = {
        "split": ["train"] * SAMPLES, "shard": ["train-000000.tar"] * SAMPLES,
        "shard_fingerprint": ["f"] * SAMPLES, "clip_id": [f"clip{n:08d}" for n in range(SAMPLES)],
        "label": [f"label {n % 300}" for n in range(SAMPLES)], "duration_s": [10.0] * SAMPLES,
        "sound_s": [10.0] * SAMPLES, "frame_offsets": frames,
        "frame_sizes": pa.array([np.full(10, size)] * SAMPLES), "mel_offset": [size] * SAMPLES,
        "top_db_offset": [size + 501 * FRONT_END.mel.mels] * SAMPLES,
        "mel_columns": [501] * SAMPLES, "youtube_id": [""] * SAMPLES,
        "picture_fingerprints": frames,
    }  # fmt: skip
    sampling = FrameSampling(first_frame=2, last_frame=8, validation_frame=4)
    return ImageAudioPairs(
        ClipTable(folder, pa.table(columns, AV_SCHEMA)), sampling, FRONT_END, AUGMENT, seed=1
    )


def images(folder: Path) -> ImageTextPairs:
    """SAMPLES images with two captions each."""
    names = [f"coco_{n:012d}" for n in range(SAMPLES)]
    first_and_last = [Sample(key=name, members={"jpg": jpeg()}) for name in (names[0], names[-1])]
    first, last = write_shard(folder / "train-000000.tar", first_and_last).values()
    offsets = [first["jpg"].offset] * (SAMPLES - 1) + [last["jpg"].offset]
    index = {
        "image_id": names, "split": ["train"] * SAMPLES, "shard": ["train-000000.tar"] * SAMPLES,
        "shard_fingerprint": ["f"] * SAMPLES, "offset": offsets,
        "size": [first["jpg"].size] * SAMPLES, "picture_fingerprint": [0] * SAMPLES,
    }  # fmt: skip
    write_table(folder / "index.parquet", pa.table(index, IMAGE_SCHEMA))
    ids = np.arange(2 * SAMPLES * 16, dtype=np.int32).reshape(-1, 16)
    captions = {
        "image_id": np.repeat(names, 2), "split": ["train"] * len(ids),
        "source": ["coco"] * len(ids), "caption": [""] * len(ids), "tokens": [[]] * len(ids),
        "token_ids": pa.FixedSizeListArray.from_arrays(ids.ravel(), 16),
    }  # fmt: skip
    write_table(folder / "captions.parquet", pa.table(captions, CAPTION_SCHEMA))
    np.save(folder / "token_ids.npy", ids)
    return ImageTextPairs(folder, folder, "train", AUGMENT, seed=1)


def unshared_bytes(process: psutil.Process) -> int:
    """The process's memory that is not shared with another one."""
    size: int = process.memory_full_info().uss
    return size


@pytest.mark.skipif(not psutil.LINUX, reason="counts a forked worker's own pages")
@pytest.mark.parametrize("open_set", [pairs, images])
def test_worker_does_not_grow_over_an_epoch(
    open_set: Callable[[Path], Dataset[Pair]], tmp_path: Path
) -> None:
    samples = open_set(tmp_path)
    rounds = ShuffledRounds(SAMPLES, BATCH, 1, RandomStream.CLIP_ORDER)
    others = set(psutil.Process().children())
    loader = iter(training_loader(samples, EndlessBatches(rounds), workers=1))
    (worker,) = set(psutil.Process().children()) - others
    sizes = []
    last_number = rounds.batches - 1
    for number in range(rounds.batches):
        next(loader)
        if number in (last_number // 10, last_number):  # the first tenth fills its own pools
            sizes.append(unshared_bytes(worker))
    first, last = sizes
    assert last - first < MAX_GROWTH_BYTES, f"grew by {(last - first) / 1e6:.1f} MB"
