"""Moments of videos found by sentences, sounds and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trimodal.search.encoder import Encoder, Points, QueryError

if TYPE_CHECKING:
    from trimodal.search.index import IndexReport
    from trimodal.search.store import Found, MomentStore

STORE = "data/search"
AUDIO_WEIGHT = 0.2  # text->video (docs/method.md, Evaluation)
_MOMENTS_PER_VIDEO = 3
_APART_SECONDS = 3.0  # moments nearer than a window of sound are one


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A second of a video, and how well it fits what was asked: a dot product in [-1, 1]."""

    second: float
    score: float


@dataclass(frozen=True, kw_only=True)
class VideoHit:
    """A video, its best moments, best first, and the score of the best. ``path`` is relative to the
    folder that was indexed; ``file`` is its number in the store.
    """

    path: str
    file: int
    has_audio: bool
    aspect: float
    score: float
    moments: list[Moment]


class Trimodal(Encoder):
    """The trained model as a tool: encodes, indexes a folder of videos, and searches it.

    ``Trimodal.load()`` takes the model that ``dvc repro`` has trained.
    """

    _store: "MomentStore | None" = None  # the one asked last: its index stays in memory

    def index(
        self, folder: str | Path, store: str | Path = STORE, *, workers: int = 2
    ) -> "IndexReport":
        """Updates the index of a folder (:func:`trimodal.search.index.index_folder`)."""
        from trimodal.search.index import index_folder

        self._store = None
        return index_folder(self, folder, str(store), workers=workers)

    def search(
        self,
        text: str | Sequence[str] = (),
        audio: str | Path | Sequence[str | Path] = (),
        image: str | Path | Sequence[str | Path] = (),
        *,
        top: int = 10,
        audio_weight: float = AUDIO_WEIGHT,
        store: str | Path = STORE,
        exact: bool = False,
    ) -> list[VideoHit]:
        """The ``top`` videos that fit best, each with up to three moments, at least 3 s apart.

        Several sentences, sounds and pictures are asked together: the mean of their points, made a
        unit vector. A moment counts (1 - w) by its picture and w = ``audio_weight`` by its sound; a
        silent one by its picture alone (docs/method.md, Evaluation). ``exact`` looks at every
        moment even where there is an approximate index: for a single question that is soonest done.

        Raises QueryError where nothing is asked, StoreError where nothing is indexed or by another
        model; errors and warnings of ``embed_text``, ``embed_audio``, ``embed_images``.
        """
        from trimodal.search.store import MomentStore

        if self._store is None or self._store.place != str(store):
            self._store = MomentStore.open(str(store))
        if self._store.about.model != self.fingerprint:  # it may have been indexed again
            self._store = MomentStore.open(str(store))
        query = self.query(_listed(text), _listed(audio), _listed(image))
        return self.search_in(self._store, query, top=top, audio_weight=audio_weight, exact=exact)

    def query(
        self, text: Sequence[str], audio: Sequence[str | Path], image: Sequence[str | Path]
    ) -> Points:
        """What is asked as one point, (256,)."""
        if not text and not audio and not image:
            raise QueryError("nothing is asked: give a sentence, a sound or a picture")
        points = [self.embed_text(text), self.embed_images(image)]
        if audio:  # what it takes to hear is loaded in a second
            points.append(self.embed_audio(audio))
        mean: Points = np.concatenate(points).mean(axis=0)
        return mean / np.linalg.norm(mean)

    def search_in(
        self,
        store: "MomentStore",
        query: npt.NDArray[np.float32],
        *,
        top: int,
        audio_weight: float,
        exact: bool = False,
    ) -> list[VideoHit]:
        """:meth:`search` for a point in a store that is open."""
        from trimodal.search.store import StoreError

        if top < 1 or not 0.0 <= audio_weight <= 1.0:
            raise QueryError(f"top >= 1 and audio_weight in [0, 1], not {top} and {audio_weight}")
        if store.about.model != self.fingerprint:
            raise StoreError(f"{store.place}: indexed by another model; index the folder again")
        most = 10 * top
        while True:
            found = store.search(query, audio_weight, most, exact=exact)
            if len({moment.file for moment in found}) >= top or len(found) < most:
                return [_hit(store, moments) for moments in _by_video(found)[:top]]
            most *= 4


def _listed(asked: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(asked)] if isinstance(asked, (str, Path)) else [str(one) for one in asked]


def _by_video(found: "list[Found]") -> "list[list[Found]]":
    """Moments, best first, by video; the video of the best moment first."""
    rank: dict[int, int] = {}
    for moment in found:
        rank.setdefault(moment.file, len(rank))
    ordered = sorted(found, key=lambda moment: rank[moment.file])  # keeps the order in a video
    return [list(moments) for _, moments in groupby(ordered, key=lambda moment: moment.file)]


def _hit(store: "MomentStore", moments: "list[Found]") -> VideoHit:
    """Of one video's moments, best first, the best that are apart."""
    chosen: list[Moment] = []
    for moment in moments:
        if all(abs(moment.second - other.second) >= _APART_SECONDS for other in chosen):
            chosen.append(Moment(second=moment.second, score=moment.score))
    stored = store.file(moments[0].file)
    return VideoHit(
        path=stored.path,
        file=stored.file,
        has_audio=stored.has_audio,
        aspect=stored.aspect,
        score=chosen[0].score,
        moments=chosen[:_MOMENTS_PER_VIDEO],
    )


def as_text(hits: Sequence[VideoHit]) -> str:
    """Results for a terminal: a line a video, its best moment first."""
    lines = []
    for place, hit in enumerate(hits, start=1):
        best, *others = (f"{m.score:.3f} at {_clock(m.second)}" for m in hit.moments)
        also = f"  (also {', '.join(others)})" if others else ""
        lines.append(f"{place:>3}  {best}  {hit.path}{'' if hit.has_audio else '  [silent]'}{also}")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
