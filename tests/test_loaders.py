"""The two streams: what a sample holds, what is random in it, and that workers do not matter."""

import io
import json
import pickle
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mel_fixtures import scaled
from PIL import Image
from torch import Tensor
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.media.mel import FLOOR_DB
from trimodal.media.windows import AudioFrontEnd
from trimodal.models.preprocessing import AugmentConfig, centre_views
from trimodal.training.clip_index import IndexedClip, read_index
from trimodal.training.image_audio import FrameSampling, ImageAudioPairs, ImageAudioValidation
from trimodal.training.image_text import ImageTextPairs, ImageTextValidation
from trimodal.training.random_streams import RandomStream, SampleIndex
from trimodal.training.readers import read_frame, read_windows
from trimodal.training.sampler import EndlessBatches, training_loader, validation_batches

SAMPLING = FrameSampling(first_frame=2, last_frame=8, validation_frame=4)
ORDER = RandomStream.CLIP_ORDER


def clips_of(data: TinyData, split: str = "train") -> list[IndexedClip]:
    return read_index(data.av_dir, split, data.mel)


def plain_augment(data: TinyData) -> AugmentConfig:
    return replace(data.augment, flip=False, brightness=0.0, saturation=0.0)


def pairs_of(data: TinyData, *, plain: bool = False) -> ImageAudioPairs:
    augment = plain_augment(data) if plain else data.augment
    return ImageAudioPairs(clips_of(data), SAMPLING, data.front_end, augment, seed=5)


def validation_pairs_of(data: TinyData, split: str = "val") -> ImageAudioValidation:
    return ImageAudioValidation(clips_of(data, split), SAMPLING, data.front_end, data.augment)


def images_of(data: TinyData, *, seed: int = 5) -> ImageTextPairs:
    return ImageTextPairs(data.captions_dir, data.images_dir, "train", data.augment, seed)


def validation_images_of(data: TinyData, split: str = "val") -> ImageTextValidation:
    return ImageTextValidation(data.captions_dir, data.images_dir, split, data.augment)


def member(shard: Path, name: str) -> bytes:
    with tarfile.open(shard) as tar:
        content = tar.extractfile(name)
        assert content is not None
        return content.read()


def stored_mel(clip: IndexedClip) -> np.ndarray:
    """Decibels: each column's loudest, and 255ths of 80 dB below it."""
    columns = np.load(io.BytesIO(member(clip.shard, f"{clip.clip_id}.mel.npy")))
    loudest = columns["top_db"].astype(np.float32) - np.float32(80.0)
    return columns["codes"] * np.float32(80 / 255) + loudest[:, None]


def pixels(jpeg: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg)))).permute(2, 0, 1)


def shown_second(view: Tensor) -> int:
    """The second (from 0) that a clip's picture was rendered for: its red."""
    return round((view[0].float().mean().item() - 20) / 20)


def read_window(clip: IndexedClip, centre: float, front_end: AudioFrontEnd) -> tuple[Tensor, int]:
    """After another window of the clip."""
    windows, missing = read_windows([clip, clip], [2.0, centre], front_end)
    return windows[1], missing[1]


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("split", ["train", "val"])
def test_window_is_cut_from_the_stored_columns(split: str, tiny_data: TinyData) -> None:
    for clip in clips_of(tiny_data, split)[:3]:
        stored = stored_mel(clip)
        for centre, first in [(1.5, 0), (4.5, 150), (8.5, 350)]:
            window, missing = read_window(clip, centre, tiny_data.front_end)
            expected = scaled(stored[first : first + 151], tiny_data.front_end)
            assert (window.shape, window.dtype, missing) == ((1, 16, 151), torch.float32, 0)
            assert np.array_equal(window[0].numpy(), expected)


@pytest.mark.parametrize(("centre", "missing"), [(0.5, 50), (9.5, None), (-4.0, 151), (20.0, 151)])
def test_window_beyond_the_sound_is_completed_with_silence(
    centre: float, missing: int | None, tiny_data: TinyData
) -> None:
    clip = clips_of(tiny_data)[0]
    stored = stored_mel(clip)
    first = round((centre - 1.5) / 0.02)
    rows = [
        stored[c] if 0 <= c < len(stored) else np.full(16, FLOOR_DB, np.float32)
        for c in range(first, first + 151)
    ]
    window, silent_columns = read_window(clip, centre, tiny_data.front_end)
    assert np.array_equal(window[0].numpy(), scaled(np.stack(rows), tiny_data.front_end))
    assert silent_columns == (first + 151 - len(stored) if missing is None else missing)


def test_frame_is_the_tars_jpeg(tiny_data: TinyData) -> None:
    for clip in clips_of(tiny_data)[:2]:
        assert clip.frames == 10
        for frame in range(1, 11):
            jpeg = member(clip.shard, f"{clip.clip_id}.{frame:02d}.jpg")
            assert torch.equal(read_frame(clip, frame), pixels(jpeg))
            assert shown_second(read_frame(clip, frame)) == frame - 1


def test_clip_facts_stand_beside_the_frames(tiny_data: TinyData) -> None:
    silent = next(clip for clip in clips_of(tiny_data, "test") if not clip.has_audio)
    facts = json.loads(member(silent.shard, f"{silent.clip_id}.json"))
    assert facts == {
        "duration_s": 10.0, "fps": 1, "label": "", "missing_audio": True,
        "front_end": tiny_data.mel.front_end_fingerprint(),
    }  # fmt: skip


def test_pair_is_a_frame_and_the_sound_around_it(tiny_data: TinyData) -> None:
    pairs, clips = pairs_of(tiny_data, plain=True), clips_of(tiny_data)
    for number, clip in enumerate(clips):
        view, window = pairs[SampleIndex(3, number)]
        assert (view.shape, view.dtype) == ((3, 24, 24), torch.uint8)
        centre = shown_second(view) + 0.5
        assert torch.equal(window, read_window(clip, centre, tiny_data.front_end)[0])


def test_training_draws_frames_2_to_8_and_only_those(tiny_data: TinyData) -> None:
    pairs = pairs_of(tiny_data, plain=True)
    drawn = Counter(shown_second(pairs[SampleIndex(k, 0)][0]) + 1 for k in range(140))
    assert set(drawn) == {2, 3, 4, 5, 6, 7, 8}
    assert min(drawn.values()) >= 8


def test_short_clips_draw_frames_whose_sound_is_there(tiny_data: TinyData) -> None:
    clip = replace(clips_of(tiny_data)[0], sound_s=4.0)
    plain, front_end = plain_augment(tiny_data), tiny_data.front_end
    pairs = ImageAudioPairs([clip], SAMPLING, front_end, plain, seed=5)
    drawn = {shown_second(pairs[SampleIndex(k, 0)][0]) + 1 for k in range(30)}
    assert drawn == {2, 3}
    validation = ImageAudioValidation([clip], SAMPLING, front_end, plain)
    assert shown_second(validation[0][0]) + 1 == 3  # the nearest to 4


def test_every_caption_of_an_image_is_drawn(tiny_data: TinyData) -> None:
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    first_id = next(row["image_id"] for row in table if row["split"] == "train")
    own = {tuple(row["token_ids"]) for row in table if row["image_id"] == first_id}
    images = images_of(tiny_data)
    drawn = {tuple(images[SampleIndex(k, 0)][1].tolist()) for k in range(40)}
    assert len(own) == 3
    assert drawn == own


@pytest.mark.parametrize("stream", ["audio", "text"])
def test_sample_is_a_function_of_seed_round_and_index(stream: str, tiny_data: TinyData) -> None:
    first, again = (
        pairs_of(tiny_data) if stream == "audio" else images_of(tiny_data) for _ in range(2)
    )
    assert all(same(first[SampleIndex(0, k)], again[SampleIndex(0, k)]) for k in (0, 3, 1, 0))
    assert not same(first[SampleIndex(0, 0)], first[SampleIndex(1, 0)])
    assert not same(first[SampleIndex(0, 0)], first[SampleIndex(0, 1)])


@pytest.mark.parametrize("open_set", [pairs_of, images_of])
def test_batch_is_its_samples(
    open_set: Callable[[TinyData], ImageAudioPairs | ImageTextPairs], tiny_data: TinyData
) -> None:
    dataset = open_set(tiny_data)
    indices = [SampleIndex(2, sample) for sample in (3, 0, 5, 1)]
    batch = dataset.__getitems__(indices)
    assert all(len(side) == 4 for side in batch)
    for place, index in enumerate(indices):
        assert same((batch[0][place], batch[1][place]), dataset[index])


@pytest.mark.parametrize("open_set", [validation_pairs_of, validation_images_of])
def test_validation_batch_is_its_samples(
    open_set: Callable[[TinyData, str], ImageAudioValidation | ImageTextValidation],
    tiny_data: TinyData,
) -> None:
    """By row alone; nothing is random, so that a data set of its own gives the same."""
    dataset, again = open_set(tiny_data, "train"), open_set(tiny_data, "train")
    rows = (3, 0, 5, 1)
    batch = dataset.__getitems__(rows)
    assert all(len(side) == 4 for side in batch)
    for place, row in enumerate(rows):
        assert same((batch[0][place], batch[1][place]), dataset[row])
        assert same(dataset[row], again[row])
        assert same(dataset[row], dataset[row])


@pytest.mark.parametrize(
    ("open_set", "open_validation"),
    [(pairs_of, validation_pairs_of), (images_of, validation_images_of)],
)
def test_training_never_gives_the_view_of_validation(
    open_set: Callable[[TinyData], ImageAudioPairs | ImageTextPairs],
    open_validation: Callable[[TinyData, str], ImageAudioValidation | ImageTextValidation],
    tiny_data: TinyData,
) -> None:
    """Every view of four rounds is augmented; there is no round and no index that is not."""
    dataset, validation = open_set(tiny_data), open_validation(tiny_data, "train")
    assert len(dataset) == len(validation)
    for number in range(4):
        for sample in range(len(dataset)):
            view = dataset[SampleIndex(number, sample)][0]
            assert not torch.equal(view, validation[sample][0])
    with pytest.raises(ValueError, match="non-negative"):
        dataset[SampleIndex(-1, 0)]
    with pytest.raises(AttributeError):
        dataset[0]  # type: ignore[index]


def test_another_seed_gives_other_samples(tiny_data: TinyData) -> None:
    assert not same(
        images_of(tiny_data)[SampleIndex(0, 0)], images_of(tiny_data, seed=6)[SampleIndex(0, 0)]
    )


def test_validation_takes_frame_4_in_the_middle(tiny_data: TinyData) -> None:
    pairs = validation_pairs_of(tiny_data)
    for number, clip in enumerate(clips_of(tiny_data, "val")):
        view, window = pairs[number]
        jpeg = member(clip.shard, f"{clip.clip_id}.04.jpg")
        assert torch.equal(view, pixels(jpeg)[:, 4:28, 4:28])
        assert torch.equal(window, read_window(clip, 3.5, tiny_data.front_end)[0])


def test_validation_takes_the_first_caption(tiny_data: TinyData) -> None:
    images = validation_images_of(tiny_data)
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    rows = [row for row in index if row["split"] == "val"]
    assert len(images) == len(rows) == 3
    for number, row in enumerate(rows):
        view, ids = images[number]
        first = next(r for r in table if r["image_id"] == row["image_id"])
        assert ids.tolist() == first["token_ids"]
        assert ids.dtype == torch.int64
        jpeg = member(tiny_data.images_dir / row["shard"], f"{row['image_id']}.jpg")
        assert torch.equal(view, centre_views([pixels(jpeg)], tiny_data.augment)[0])


def test_image_and_caption_belong_together(tiny_data: TinyData) -> None:
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    rows = [row for row in index if row["split"] == "train"]
    images = images_of(tiny_data)
    assert len(images) == len(rows) == 8
    for number, row in enumerate(rows):
        own = [r["token_ids"] for r in table if r["image_id"] == row["image_id"]]
        assert images[SampleIndex(0, number)][1].tolist() in own


def test_number_of_workers_does_not_change_the_batches(tiny_data: TinyData) -> None:
    def first_batches(workers: int) -> list[tuple[Tensor, Tensor]]:
        pairs = pairs_of(tiny_data)
        batches = EndlessBatches(len(pairs), 3, 5, ORDER)
        return list(islice(training_loader(pairs, batches, workers), 5))

    alone = first_batches(0)
    assert [batch[0].shape[0] for batch in alone] == [3] * 5
    for workers in (1, 2):
        for batch, expected in zip(first_batches(workers), alone, strict=True):
            assert same((batch[0], batch[1]), (expected[0], expected[1]))


def first_rounds(batches: EndlessBatches, rounds: int) -> list[list[list[SampleIndex]]]:
    drawn = islice(batches, rounds * batches.batches_per_round)
    step = batches.batches_per_round
    listed = list(drawn)
    return [listed[k * step : (k + 1) * step] for k in range(rounds)]


@pytest.mark.parametrize(("samples", "size"), [(12, 4), (13, 4), (2, 2), (7, 7), (5, 512)])
def test_rounds_are_shuffled_and_no_sample_comes_twice(samples: int, size: int) -> None:
    batches = EndlessBatches(samples, size, 1, ORDER)
    assert batches.batch_size == min(samples, size)
    assert batches.batches_per_round == samples // batches.batch_size
    for number, drawn in enumerate(first_rounds(batches, 4)):
        assert all(len(batch) == batches.batch_size for batch in drawn)
        flat = [draw for batch in drawn for draw in batch]
        assert {draw.round for draw in flat} == {number}
        indices = {draw.sample for draw in flat}
        assert len(indices) == len(flat) == samples // batches.batch_size * batches.batch_size
        assert indices <= set(range(samples))


def test_samples_left_over_come_in_later_rounds() -> None:
    rounds = first_rounds(EndlessBatches(13, 4, 1, ORDER), 12)
    seen = {draw.sample for batches in rounds for batch in batches for draw in batch}
    assert seen == set(range(13))


def test_order_depends_on_round_seed_and_stream() -> None:
    def order(seed: int, stream: RandomStream, number: int) -> list[int]:
        rounds = first_rounds(EndlessBatches(40, 40, seed=seed, stream=stream), number + 1)
        return [draw.sample for draw in rounds[number][0]]

    other = RandomStream.IMAGE_ORDER
    assert order(1, ORDER, 0) == order(1, ORDER, 0)
    different = [
        order(1, ORDER, 0), order(1, ORDER, 1), order(2, ORDER, 0), order(1, other, 0),
        list(range(40)),
    ]  # fmt: skip
    assert len({tuple(one) for one in different}) == 5


@pytest.mark.parametrize("samples", [0, 1])
def test_streams_without_a_negative_are_refused(samples: int) -> None:
    with pytest.raises(DataError, match="two training samples"):
        EndlessBatches(samples, 4, 1, ORDER)


def test_validation_batches_hold_every_sample_once_in_order(tiny_data: TinyData) -> None:
    """7 samples in batches of 3: the last would stand alone, without a negative."""
    pairs = validation_pairs_of(tiny_data, "train")
    assert len(pairs) == 7
    for size, lengths in [(3, [3, 4]), (2, [2, 2, 3]), (4, [4, 3]), (100, [7])]:
        batches = list(validation_batches(pairs, size))
        assert [len(batch[0]) for batch in batches] == lengths
        for k in (0, 1):
            stacked = torch.cat([batch[k] for batch in batches])
            expected = torch.stack([pairs[number][k] for number in range(7)])
            assert torch.equal(stacked, expected)


def test_validation_needs_two_samples(tiny_data: TinyData) -> None:
    lone = ImageAudioValidation(
        clips_of(tiny_data)[:1], SAMPLING, tiny_data.front_end, tiny_data.augment
    )
    with pytest.raises(DataError, match="two samples"):
        next(validation_batches(lone, 4))


def test_shards_of_another_front_end_are_refused(tiny_data: TinyData) -> None:
    other = replace(tiny_data.mel, mels=32)
    with pytest.raises(DataError) as caught:
        read_index(tiny_data.av_dir, "train", other)
    assert tiny_data.mel.front_end_fingerprint() in str(caught.value)
    assert other.front_end_fingerprint() in str(caught.value)
    assert len(read_index(tiny_data.av_dir, "train", tiny_data.mel)) == 7


def test_damaged_picture_is_named_with_its_place(tiny_data: TinyData, tmp_path: Path) -> None:
    clip = clips_of(tiny_data)[0]
    content = bytearray(clip.shard.read_bytes())
    content[clip.frame_offsets[2] : clip.frame_offsets[2] + 4] = b"oops"
    broken = replace(clip, shard=tmp_path / "broken.tar")
    broken.shard.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_frame(broken, 3)
    assert f"{broken.shard}: the {clip.frame_sizes[2]} bytes at {clip.frame_offsets[2]}" in str(
        caught.value
    )


def test_word_ids_of_another_run_are_refused(tiny_data: TinyData, tmp_path: Path) -> None:
    shutil.copytree(tiny_data.captions_dir, tmp_path / "captions")
    path = tmp_path / "captions" / "token_ids.npy"
    ids = np.load(path)
    np.save(path, ids[:-1])
    with pytest.raises(DataError, match=r"33 captions, token_ids\.npy beside it 32; run the cap"):
        ImageTextPairs(path.parent, tiny_data.images_dir, "train", tiny_data.augment, seed=5)


def test_image_without_captions_is_no_sample(tiny_data: TinyData, tmp_path: Path) -> None:
    """Its only caption may have been stop words alone."""
    table = pq.read_table(tiny_data.captions_dir / "captions.parquet")
    kept = np.array([name != "coco_000000000003" for name in table["image_id"].to_pylist()])
    pq.write_table(table.filter(pa.array(kept)), tmp_path / "captions.parquet")
    np.save(tmp_path / "token_ids.npy", np.load(tiny_data.captions_dir / "token_ids.npy")[kept])
    images = validation_images_of(replace(tiny_data, captions_dir=tmp_path), "train")
    whole = validation_images_of(tiny_data, "train")
    index = pq.read_table(tiny_data.images_dir / "index.parquet").to_pylist()
    names = [row["image_id"] for row in index if row["split"] == "train"]
    others = [number for number, name in enumerate(names) if name != "coco_000000000003"]
    assert (len(whole), len(images)) == (8, 7)
    for number, other in enumerate(others):
        assert same(images[number], whole[other])


def test_word_ids_stay_on_disk_in_every_process(tiny_data: TinyData) -> None:
    images = images_of(tiny_data)
    content = pickle.dumps(images)
    ids = np.load(tiny_data.captions_dir / "token_ids.npy")
    assert ids[5].tobytes() not in content
    assert same(pickle.loads(content)[SampleIndex(2, 1)], images[SampleIndex(2, 1)])  # noqa: S301
