"""Stores of a few videos with four moments each, and their vectors."""

import numpy as np
import numpy.typing as npt

from trimodal.search.store import MomentStore
from trimodal.search.tables import About, IndexedVideo

ABOUT = About(model="m1")
Vectors = npt.NDArray[np.float32]


def unit(rows: npt.NDArray[np.floating]) -> Vectors:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def vectors(count: int, seed: int = 1) -> Vectors:
    parts = unit(np.random.default_rng(seed).standard_normal((count, 2, 256)))
    parts[::5, 1] = parts[::5, 0]  # silent
    return parts.reshape(count, 512)


def video(number: int, moments: int = 4) -> IndexedVideo:
    return IndexedVideo(
        file=number, folder="/videos", path=f"{number}.mp4", bytes=1, modified_ns=2,
        moments=moments, has_audio=True, aspect=1.5, problem="",
    )  # fmt: skip


def filled(location: str, videos: int) -> tuple[MomentStore, Vectors]:
    store = MomentStore.create(location, ABOUT, 256)
    rows = vectors(videos * 4)
    moments = [(v, s + 1, b"t%d" % v, b"m%d" % s) for v in range(videos) for s in range(4)]
    store.add([video(number) for number in range(videos)], moments, rows)
    return store, rows
