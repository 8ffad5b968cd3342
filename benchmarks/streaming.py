"""Reading training pairs from an object store: ``python -m benchmarks.streaming``.

Puts the demo's training shards (run `make repro` before) on an S3 server on loopback (moto's, a
process of its own) and reads a round of image-audio pairs with one loader process: from the local
folder, through the shard cache in both orders, and by the WebDataset pipeline. Prints pairs per
second, as multiples of the local folder's in the same round, and the bytes fetched for each pair.
moto is a Python server: its own speed bounds what is fetched, so compare the rows.
"""

import argparse
import logging
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, cast
from unittest.mock import patch

from torch.utils.data import DataLoader

from benchmarks.measuring import describe_machine, ratio, say, side_by_side
from trimodal.core.config import load_section
from trimodal.core.machine import ShardCacheConfig
from trimodal.core.storage import download, storage_path
from trimodal.data import pairs
from trimodal.data.clip_index import read_index
from trimodal.data.shard_files import open_shards
from trimodal.media.mel import MelConfig
from trimodal.media.windows import AudioFrontEnd, WindowConfig
from trimodal.models.preprocessing import AugmentConfig
from trimodal.training.config import TrainConfig
from trimodal.training.image_audio import FrameSampling, ImageAudioPairs
from trimodal.training.loaders import training_loader
from trimodal.training.random_streams import RandomStream
from trimodal.training.rounds import Rounds, ShardRounds, ShuffledRounds
from trimodal.training.sampler import EndlessBatches

PARAMS, AV = Path("params.yaml"), Path("data/av")
BUCKET = "s3://shards"
MIXED = 2  # shards, of the demo's 22
FRAMES = 4  # pairs of a clip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where the shards are and how they are read; ``cached`` shards fit into the cache."""

    folder: Path
    reader: str = "indexed"
    frames_per_clip: int = 1
    cached: int = 0
    warm: bool = False


def main() -> None:
    """Starts the server, measures, prints the table, stops the server."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if not (AV / "index.parquet").is_file():
        parser.error(f"{AV} has no shards: run `make repro` before")
    with TemporaryDirectory(prefix="streaming-") as name, s3_server():
        remote = storage_path(BUCKET)
        cast(Any, remote).fs.mkdir("shards")
        for path in AV.glob("*.*"):
            (remote / path.name).write_bytes(path.read_bytes())
        shards = sorted(AV.glob("train-*.tar"))
        shard_bytes = max(path.stat().st_size for path in shards)
        settings = {
            "local folder, indexed": Setting(folder=AV),
            "local folder, stream": Setting(folder=AV, reader="stream"),
            "S3, stream, a cache of 6 shards": Setting(
                folder=remote, reader="stream", cached=6 * shard_bytes
            ),
            f"... {FRAMES} frames a clip": Setting(
                folder=remote, reader="stream", cached=10 * shard_bytes, frames_per_clip=FRAMES
            ),
            "S3, indexed, all cached, first round": Setting(folder=remote, cached=10**9),
            "S3, indexed, later rounds": Setting(folder=remote, cached=10**9, warm=True),
        }
        compare(settings, [f"{BUCKET}/{path.name}" for path in shards], Path(name), args.rounds)


def compare(settings: dict[str, Setting], urls: list[str], folder: Path, rounds: int) -> None:
    """Measures all ways of reading side by side and prints the table."""
    candidates: dict[str, Callable[[], object]] = {
        name: partial(read_round, setting, folder / str(number))
        for number, (name, setting) in enumerate(settings.items())
    }
    batch = load_section(PARAMS, "train", TrainConfig).batch_size
    candidates["S3, WebDataset pipeline"] = lambda: read_pipeline(urls, batch)
    timings = side_by_side(candidates, rounds)
    counts = {name: read_round(setting, folder / "count") for name, setting in settings.items()}
    counts["S3, WebDataset pipeline"] = read_pipeline(urls, batch)
    local = timings["local folder, indexed"]
    say(f"{describe_machine()}, one loader; {len(urls)} shards, batches of {batch}.\n")
    say("| reading | pairs per second | of the local folder's | kB fetched a pair |")
    say("| --- | ---: | ---: | ---: |")
    for name, timing in timings.items():
        pairs_read = counts[name]
        rate = statistics.median(pairs_read / wall for wall in timing.wall_s)
        per_pair = [
            (one / pairs_read, other / counts["local folder, indexed"])
            for one, other in zip(timing.wall_s, local.wall_s, strict=True)
        ]
        relative = 1 / ratio(tuple(o for o, _ in per_pair), tuple(r for _, r in per_pair))
        fetched = fetched_bytes(settings.get(name), urls, folder / "bytes")
        say(f"| {name} | {rate:.0f} | {relative:.2f} | {fetched / pairs_read / 1e3:.1f} |")


def open_pairs(setting: Setting, cache: Path) -> tuple[ImageAudioPairs, Rounds]:
    """The data set and the order of its rounds."""
    train = load_section(PARAMS, "train", TrainConfig)
    front_end = AudioFrontEnd(
        mel=load_section(PARAMS, "mel", MelConfig),
        window=load_section(PARAMS, "window", WindowConfig),
    )
    clips = read_index(setting.folder, "train", front_end.mel)
    max_gb = max(setting.cached, 1) / 10**9
    dataset = ImageAudioPairs(
        clips,
        FrameSampling(
            first_frame=train.first_frame,
            last_frame=train.last_frame,
            validation_frame=train.validation_frame,
        ),
        front_end,
        load_section(PARAMS, "augment", AugmentConfig),
        train.seed,
        frames_per_clip=setting.frames_per_clip,
        read=open_shards(clips.fingerprints, ShardCacheConfig(folder=str(cache), max_gb=max_gb)),
    )
    stream = RandomStream.CLIP_ORDER
    if setting.reader == "indexed":
        return dataset, ShuffledRounds(len(clips), train.batch_size, train.seed, stream)
    return dataset, ShardRounds(
        clips.shard_of, train.batch_size, train.seed, stream,
        shuffle_shards=MIXED, passes=setting.frames_per_clip,
    )  # fmt: skip


def read_round(setting: Setting, cache: Path, workers: int = 1) -> int:
    """Reads a round and returns the number of pairs."""
    if not setting.warm:
        rmtree(cache, ignore_errors=True)
    dataset, rounds = open_pairs(setting, cache)
    loader = training_loader(dataset, EndlessBatches(rounds), workers)
    return sum(len(frames) for frames, _ in islice(loader, rounds.batches))


def read_pipeline(urls: list[str], batch: int) -> int:
    """Reads all pairs, one a clip, through webdataset and returns their number."""
    loader = DataLoader(pairs(urls, seed=1).batched(batch), batch_size=None, num_workers=1)
    return sum(len(frames) for frames, _ in loader)


def fetched_bytes(setting: Setting | None, urls: list[str], cache: Path) -> int:
    """The bytes that reading a round fetches from the store."""
    if setting is None:
        return sum(storage_path(url).stat().st_size for url in urls)
    fetched = 0

    def counted(remote: Path, local: Path) -> None:
        nonlocal fetched
        download(remote, local)
        fetched += local.stat().st_size

    with patch("trimodal.data.shard_files.download", counted):
        read_round(replace(setting, warm=False), cache, workers=0)
        if setting.warm:
            fetched = 0
            read_round(setting, cache, workers=0)
    return fetched


@contextmanager
def s3_server() -> Iterator[None]:
    """moto's server in a process of its own; the environment says where it is."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ours.recv()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        yield
    finally:
        server.terminate()
        server.join()


def serve(connection: Connection) -> None:
    """Runs the server until the process is ended; sends its port first."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    connection.send(server.get_host_and_port()[1])
    connection.poll(None)


if __name__ == "__main__":
    main()
