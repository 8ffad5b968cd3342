"""What several tests of the data stages build upon: real data, clips, caption sets, vectors."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trimodal.core.language import NLTK_DATA
from trimodal.core.records import DataError
from trimodal.core.text import Tokeniser
from trimodal.media.container import encode_video
from trimodal.parallel.journal import FOLDER

REAL = Path(__file__).parents[1].parent / "shared" / "data"
# What `tokeniser_of("english")` returns, without NLTK's import.
ENGLISH = Tokeniser(
    language="english",
    stop_words=frozenset((NLTK_DATA / "corpora/stopwords/english").read_text().split()),
)
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real data in {REAL}")
# Decoding all of them in full takes long.
six_real_clips_or_all = pytest.mark.parametrize(
    "count", [6, pytest.param(60, marks=pytest.mark.nightly)]
)


def real_clips(count: int) -> list[Path]:
    """That number of the 60 real clips, from all over the list."""
    paths = sorted((REAL / "clips").glob("*.mp4"))
    assert len(paths) == 60
    return paths[:: 60 // count]


def write_clip(
    path: Path, *, seconds: float = 2.0, fps: int = 4, sound: bool = True, sound_s: float = 0.0
) -> Path:
    """A small real MP4 that brightens from 10 to 240 (:func:`brightness`); the sound is a tone."""
    count = round(seconds * fps)
    frames = [np.full((32, 32, 3), round(brightness(i, count)), np.uint8) for i in range(count)]
    tone = np.sin(np.arange(round((sound_s or seconds) * 8000)) * 0.3).astype(np.float32) / 2
    encode_video(path, frames, fps=fps, audio=tone if sound else None, audio_rate_hz=8000)
    return path


def brightness(frame: int, count: int) -> float:
    """How bright frame ``frame`` (from 0) of ``count`` is in a clip of :func:`write_clip`."""
    return 10 + 230 * frame / count


def write_vectors(
    path: Path, vectors: Mapping[str, npt.NDArray[np.float32]] | Iterable[str], width: int = 300
) -> Path:
    """A word2vec binary file; for bare words the vector of word i is filled with i + 1."""
    if not isinstance(vectors, Mapping):
        vectors = {w: np.full(width, i + 1, np.float32) for i, w in enumerate(vectors)}
    body = b"".join(w.encode() + b" " + v.astype("<f4").tobytes() for w, v in vectors.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{len(vectors)} {width}\n".encode() + body)
    return path


def refused(read: Callable[[], Any], *named: str) -> None:
    """The reader raises DataError whose message has every one of ``named``."""
    with pytest.raises(DataError) as caught:
        read()
    for part in named:
        assert part in str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name, hidden ones included, journals not: they tell
    of this disk.
    """
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != FOLDER
    }
