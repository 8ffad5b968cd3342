"""Searches the moments of indexed videos with sentences, audio and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trimodal.core.display import printable
from trimodal.search.encoder import Encoder
from trimodal.search.inputs import Picture, QueryError, Sound, as_list

if TYPE_CHECKING:
    from trimodal.search.index import IndexReport
    from trimodal.search.live import LiveStore
    from trimodal.search.store import MomentStore
    from trimodal.search.tables import IndexedVideo, MomentHit

STORE = "data/search"
_TEXT_WEIGHT, _AUDIO_WEIGHT, _IMAGE_WEIGHT = 0.2, 1.0, 0.0  # docs/method.md, Search
_MOMENTS_PER_VIDEO = 3
_MIN_DISTANCE_SECONDS = 3.0  # of two moments of a hit: an audio window


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A second of a video and its similarity to the query: a dot product in [-1, 1], the sum of
    what came ``from_image`` and ``from_audio``. These are (1 - w) x the frame's similarity and w x
    the audio's, w being the audio weight. A silent moment's score is its frame's similarity, and
    its ``from_audio`` None.
    """

    second: float
    score: float
    from_image: float
    from_audio: float | None


@dataclass(frozen=True, kw_only=True)
class VideoHit:
    """A video with its best moments, best first, and the score of the best. ``path`` is relative to
    ``folder``, the indexed folder's absolute path; ``file`` is its number in the store; ``aspect``
    is width / height.
    """

    folder: str
    path: str
    file: int
    has_audio: bool
    aspect: float
    score: float
    moments: list[Moment]

    @property
    def location(self) -> Path:
        """The video's absolute path."""
        return Path(self.folder, self.path)


class Trimodal(Encoder):
    """The trained model as a tool: encodes, indexes folders of videos, and searches them.

    ``Trimodal.from_pretrained()`` reads the model trained by ``dvc repro``.
    """

    _store: "LiveStore | None" = None  # the one searched last: its index stays in memory

    def index(
        self,
        folders: str | Path | Sequence[str | Path],
        store: str | Path = STORE,
        *,
        workers: int = 2,
        rebuild: bool = False,
    ) -> "IndexReport":
        """Updates the index of one or more folders
        (:func:`trimodal.search.index.index_folders`).
        """
        from trimodal.search.index import index_folders

        self._store = None
        return index_folders(self, folders, str(store), workers=workers, rebuild=rebuild)

    def search(
        self,
        text: str | Sequence[str] = (),
        audio: "Sound | Sequence[Sound]" = (),
        image: "Picture | Sequence[Picture]" = (),
        *,
        top: int = 10,
        audio_weight: float | None = None,
        store: str | Path = STORE,
        exact: bool = False,
    ) -> list[VideoHit]:
        """The ``top`` best retrieved videos, each with up to three moments, at least 3 s apart.

        Several sentences, sounds and images form one query: the normalised mean of their
        embeddings. A moment's score is (1 - w) x its frame's similarity + w x its audio's, where w
        is ``audio_weight``, by default that of the kind of query (:func:`default_audio_weight`). A
        silent moment's is its frame's; with w = 1 silent moments are left out (docs/method.md,
        Search).
        ``exact`` compares with every moment even if there is a graph over them, which takes longer
        to load than a single exact query.

        Raises QueryError for an empty query, StoreError if nothing is indexed or by another model,
        and the errors of ``embed_text``, ``embed_audio`` and ``embed_images``.
        """
        from trimodal.search.live import LiveStore

        if self._store is None or self._store.location != str(store):
            self._store = LiveStore(str(store))
        self._store.use(self._check_model)  # before a query that may take long
        inputs = as_list(text)[0], as_list(audio)[0], as_list(image)[0]
        query = self.query(*inputs)
        weight = default_audio_weight(*map(len, inputs)) if audio_weight is None else audio_weight
        hits = self._store.use(
            lambda opened: self.search_in(opened, query, top=top, audio_weight=weight, exact=exact)
        )
        return hits or self._store.use(_none_if_filled)

    def query(
        self,
        text: str | Sequence[str],
        audio: "Sound | Sequence[Sound]",
        image: "Picture | Sequence[Picture]",
    ) -> npt.NDArray[np.float32]:
        """The query's embedding, (dim,): the normalised mean of all given inputs' embeddings."""
        sentences, sounds, images = as_list(text)[0], as_list(audio)[0], as_list(image)[0]
        if not sentences and not sounds and not images:
            raise QueryError("empty query: give a sentence, an audio file or an image")
        embeddings = [self.embed_text(sentences), self.embed_images(images)]
        if sounds:  # the audio libraries take a second to import
            embeddings.append(self.embed_audio(sounds))
        mean: npt.NDArray[np.float32] = np.concatenate(embeddings).mean(axis=0)
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
        """:meth:`search` with an embedded query, (dim,) or (2, dim), in an open store."""
        if top < 1 or not 0.0 <= audio_weight <= 1.0:
            raise QueryError(
                f"need top >= 1 and audio_weight in [0, 1], not {top} and {audio_weight}"
            )
        self._check_model(store)
        limit = 10 * top
        while True:
            moments = store.search(query, audio_weight, limit, exact=exact)
            found = _by_video(_comparable(moments, audio_weight))
            # A run in progress has not listed all of them yet.
            videos = store.videos(of_video[0].file for of_video in found)
            hits = [
                _video_hit(videos[of_video[0].file], of_video)
                for of_video in found
                if of_video[0].file in videos
            ]
            if (
                len(hits) >= top
                or len(moments) < limit
                or len(hits) == store.searchable_videos  # a few long ones
            ):
                return hits[:top]
            limit *= 4

    def _check_model(self, store: "MomentStore") -> None:
        from trimodal.search.store_errors import StoreError

        if store.about.model != self.fingerprint:
            raise StoreError(
                f"{store.location}: indexed by another model than the loaded one; "
                "index the folders again, or load that model"
            )


def _none_if_filled(store: "MomentStore") -> list[VideoHit]:
    """No hits; raises StoreError for a store without a moment."""
    from trimodal.search.store_errors import StoreError

    if not store.moments:
        raise StoreError(f"{store.location}: the index is empty; `trimodal index FOLDER` fills it")
    return []


def default_audio_weight(sentences: int, sounds: int, images: int) -> float:
    """The audio weight for a query of that many inputs, at least one: 0.2 for sentences, 1 for
    sounds, 0 for images, and for a mix the mean over its inputs, as its embedding is.
    """
    weights = sentences * _TEXT_WEIGHT + sounds * _AUDIO_WEIGHT + images * _IMAGE_WEIGHT
    return weights / (sentences + sounds + images)


def _comparable(hits: "list[MomentHit]", audio_weight: float) -> "list[MomentHit]":
    """Without the silent moments if audio alone counts: a sound's similarities to frames are of
    another scale than those to sounds.
    """
    return [hit for hit in hits if audio_weight < 1 or hit.from_audio is not None]


def _by_video(hits: "list[MomentHit]") -> "list[list[MomentHit]]":
    """Moments, best first, by video; the video of the best moment first."""
    rank: dict[int, int] = {}
    for hit in hits:
        rank.setdefault(hit.file, len(rank))
    ordered = sorted(hits, key=lambda hit: rank[hit.file])  # stable within a video
    return [list(moments) for _, moments in groupby(ordered, key=lambda hit: hit.file)]


def _video_hit(video: "IndexedVideo", moments: "list[MomentHit]") -> VideoHit:
    """A video's hit from its moments, best first: the best ones at least 3 s apart."""
    chosen: list[Moment] = []
    for moment in moments:
        if all(abs(moment.second - other.second) >= _MIN_DISTANCE_SECONDS for other in chosen):
            chosen.append(
                Moment(
                    second=moment.second,
                    score=moment.score,
                    from_image=moment.from_image,
                    from_audio=moment.from_audio,
                )
            )
    return VideoHit(
        folder=video.folder,
        path=video.path,
        file=video.file,
        has_audio=video.has_audio,
        aspect=video.aspect,
        score=chosen[0].score,
        moments=chosen[:_MOMENTS_PER_VIDEO],
    )


def as_text(hits: Sequence[VideoHit]) -> str:
    """Results for a terminal: one line per video, its best moment first. Paths below the working
    directory are relative to it, others absolute.
    """
    here = Path.cwd()
    lines = []
    for rank, hit in enumerate(hits, start=1):
        best, *others = map(_moment_as_text, hit.moments)
        also = f"  (also {', '.join(others)})" if others else ""
        silent = "" if hit.has_audio else "  [silent]"
        place = hit.location
        path = place.relative_to(here) if place.is_relative_to(here) else place
        lines.append(f"{rank:>3}  {best}  {printable(str(path))}{silent}{also}")
    return "\n".join(lines)


def _moment_as_text(moment: Moment) -> str:
    audio = "no audio" if moment.from_audio is None else f"audio {moment.from_audio:.3f}"
    parts = f"image {moment.from_image:.3f}, {audio}"
    return f"{moment.score:.3f} ({parts}) at {_clock(moment.second)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"
