"""The shards in other people's hands: webdataset alone, and the public pipelines."""

import gc
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import webdataset as wds
from stream_fixtures import clips_of, member, pixels, read_window, shown_second
from torch.utils.data import DataLoader
from training_fixtures import TinyData

from trimodal.core.records import DataError
from trimodal.core.shard_writer import Sample, write_shard
from trimodal.data import captioned, pairs

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def closed_shards() -> Iterator[None]:
    """webdataset leaves its files to the garbage collector: within the test that opened them."""
    yield
    gc.collect()


def shards(data: TinyData, split: str = "train") -> list[str]:
    return [str(path) for path in sorted(data.av_dir.glob(f"{split}-*.tar"))]


def strangers_window(sample: dict[str, Any], frame: int, seconds: float = 3.0) -> np.ndarray:
    """As docs/shards.md shows it: NumPy and the sample alone."""
    clip, codes, top_db = sample["json"], sample["mel.npy"], sample["mel_top_db.npy"]
    mel = clip["mel"]
    hop_s = mel["hop_samples"] / mel["sample_rate_hz"]
    first = round((clip["frame_times_s"][frame - 1] - seconds / 2) / hop_s)
    columns = np.arange(first, first + round(seconds / hop_s) + 1)
    inside = (columns >= 0) & (columns < len(codes))
    window = np.full((len(columns), mel["mels"]), mel["floor_db"], np.float32)
    steps = 255 - codes[columns[inside]].astype(np.float32)
    window[inside] = top_db[columns[inside], None].astype(np.float32) - steps * mel["step_db"]
    window = np.maximum(window - window.max(), -mel["depth_db"])
    return (window.T + mel["depth_db"] / 2) / (mel["depth_db"] / 2)


def test_a_stranger_cuts_our_windows_with_webdataset_and_numpy_alone(tiny_data: TinyData) -> None:
    clips = {clip.clip_id: clip for clip in clips_of(tiny_data)}
    seen = 0
    for sample in wds.WebDataset(shards(tiny_data), shardshuffle=False).decode():
        assert sample["mel.npy"].dtype == np.uint8
        for frame in (1, 4, 10):
            ours, _ = read_window(clips[sample["__key__"]], frame - 0.5, tiny_data.front_end)
            np.testing.assert_allclose(strangers_window(sample, frame), ours[0], atol=2e-6)
            seen += 1
    assert seen == 3 * 7


def test_a_strangers_loader_stacks_the_arrays(tiny_data: TinyData) -> None:
    """PyTorch's own collation; a clip without sound has arrays of the same types."""
    dataset = wds.WebDataset(shards(tiny_data, "test"), shardshuffle=False).decode("torchrgb8")
    samples = list(dataset.to_tuple("01.jpg", "mel.npy", "mel_top_db.npy", "json"))
    loud, silent = sorted(samples, key=lambda sample: not sample[3]["has_audio"])
    assert loud[1].shape == (506, 16)
    assert (silent[1].shape, silent[1].dtype) == ((0, 16), np.uint8)
    assert (silent[2].shape, silent[2].dtype) == ((0,), np.float16)
    stacked = torch.utils.data.default_collate([loud[:3], loud[:3]])
    assert [tuple(part.shape) for part in stacked] == [(2, 3, 32, 32), (2, 506, 16), (2, 506)]


def windows_of(data: TinyData) -> dict[tuple[str, int], torch.Tensor]:
    """Each clip's windows by clip and frame, read by index."""
    return {
        (clip.clip_id, frame): read_window(clip, frame - 0.5, data.front_end)[0]
        for clip in clips_of(data)
        for frame in range(2, 10)
    }


def test_pairs_are_a_frame_and_the_window_around_it(tiny_data: TinyData) -> None:
    windows = windows_of(tiny_data)
    drawn = list(pairs(shards(tiny_data), seed=1))
    assert len(drawn) == 7  # every clip once
    found = set()
    for frame, window in drawn:
        number = shown_second(frame) + 1
        matches = [key for key, own in windows.items() if torch.equal(own, window)]
        assert [key[1] for key in matches] == [number]
        found.add(matches[0][0])
    assert len(found) == 7
    every = list(pairs(shards(tiny_data), frames_per_clip=99, shuffle=0))
    assert len(every) == 7 * 8  # frames 2 to 9 have a complete window


def test_pairs_are_batched_by_a_loader_of_any_number_of_workers(tiny_data: TinyData) -> None:
    seen = []
    for workers in (0, 2):
        dataset = pairs(shards(tiny_data), seed=1).batched(2)
        loaded = list(DataLoader(dataset, batch_size=None, num_workers=workers))
        assert all(len(frames) == len(windows) <= 2 for frames, windows in loaded)
        frames = torch.cat([frames for frames, _ in loaded])
        seen.append(sorted(((frames[:, 1].float().mean((1, 2)) - 20) / 20).round().int().tolist()))
    assert seen[0] == seen[1] == sorted(seen_numbers(tiny_data))


def seen_numbers(data: TinyData) -> list[int]:
    """The numbers of the training clips, which their green shows."""
    return [int(clip.clip_id.split("-")[1].split("_")[0]) for clip in clips_of(data)]


def test_seed_decides_the_order_and_epochs_differ(tiny_data: TinyData) -> None:
    def epochs(seed: int) -> list[list[float]]:
        dataset = pairs(shards(tiny_data), seed=seed)
        return [[float(frame.float().sum()) for frame, _ in dataset] for _ in range(2)]

    assert epochs(1) == epochs(1)
    first, second = epochs(1)
    assert first != second
    assert first != epochs(2)[0]


def test_each_epoch_draws_other_frames(tiny_data: TinyData) -> None:
    """Also where the clips keep their order."""
    dataset = pairs(shards(tiny_data), shuffle=0, seed=1)
    first, second = ([shown_second(frame) for frame, _ in dataset] for _ in range(2))
    assert len(first) == len(second) == 7
    assert first != second


def test_a_clip_without_audio_gives_no_pair(tiny_data: TinyData) -> None:
    assert [clip.has_audio for clip in clips_of(tiny_data, "test")].count(False) == 1
    assert len(list(pairs(shards(tiny_data, "test")))) == 1


def test_captioned_images(tiny_data: TinyData) -> None:
    rows = pq.read_table(tiny_data.captions_dir / "captions.parquet").to_pylist()
    captions: dict[str, set[str]] = {}
    for row in rows:
        captions.setdefault(row["image_id"], set()).add(row["caption"])
    paths = sorted(tiny_data.images_dir.glob("train-*.tar"))
    images = {}
    for path in paths:
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".jpg"):
                    images[pixels(member(path, name)).sum().item()] = name.removesuffix(".jpg")
    urls = [str(path) for path in paths]
    drawn = list(captioned(urls, seed=3))
    assert len(drawn) == 8
    for image, caption in drawn:
        assert caption in captions[images[image.sum().item()]]


def test_shards_come_through_a_pipe(tiny_data: TinyData) -> None:
    urls = [f"pipe:cat {path}" for path in shards(tiny_data)]
    assert len(list(pairs(urls, shuffle=0))) == 7


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def members_of(data: TinyData) -> dict[str, bytes]:
    """The members of the first training clip, by suffix."""
    (sample,) = list(wds.WebDataset(shards(data)[:1], shardshuffle=False))[:1]
    return {name: value for name, value in sample.items() if not name.startswith("__")}


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("json", b"{", r"clip\.json: not valid JSON"),
        ("json", b"[]", r"clip\.json: format is not 'trimodal clip'"),
        ("json", {"format": "other"}, r"clip\.json: format is not 'trimodal clip'"),
        ("json", {"format_version": 3}, r"clip\.json: format_version is 3, not 2"),
        ("json", {"duration_s": "long"}, r"clip\.json\.duration_s"),
        ("json", {"mel.step_db": 0.5}, r"clip\.json\.mel: step_db is 0\.5"),
        ("json", {"mel.mels": 32}, r"clip\.mel\.npy: .*mel\.mels 32"),
        ("json", {"has_audio": False}, r"clip\.mel\.npy: 506 columns, has_audio False"),
        ("mel.npy", b"", r"clip\.mel\.npy: not a \.npy array"),
        ("mel.npy", npy(np.zeros((506, 16), np.float32)), r"clip\.mel\.npy: float32"),
        ("mel_top_db.npy", npy(np.zeros(500, np.float16)), r"clip\.mel_top_db\.npy: float16 \(500"),
        ("mel_top_db.npy", None, r"clip\.mel_top_db\.npy: missing"),
        ("04.jpg", b"\xff\xd8", r"clip\.04\.jpg: not a JPEG"),
    ],
)
def test_a_sample_that_is_not_ours_is_refused_with_its_name(
    member: str, content: Any, message: str, tiny_data: TinyData, tmp_path: Path
) -> None:
    members = members_of(tiny_data)
    if isinstance(content, dict):
        described = json.loads(members["json"])
        for path, value in content.items():
            *outer, key = path.split(".")
            (described[outer[0]] if outer else described)[key] = value
        content = json.dumps(described).encode()
    changed = {k: v for k, v in (members | {member: content}).items() if v is not None}
    write_shard(tmp_path / "odd.tar", [Sample(key="clip", members=changed)])
    with pytest.raises(DataError, match=r"odd\.tar: " + message):
        list(pairs(str(tmp_path / "odd.tar"), frames_per_clip=99, shuffle=0))


def test_a_tar_of_another_project_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path / "other.tar", [Sample(key="a", members={"jpg": b"x", "cls": b"1"})])
    for read in (pairs, captioned):
        with pytest.raises(DataError, match=r"other\.tar: a\.json: missing"):
            list(read(str(tmp_path / "other.tar")))
