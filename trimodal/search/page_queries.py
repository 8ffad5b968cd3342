"""What the search page asks: what is indexed, example queries, and moments for a query."""

import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from trimodal.core.extras import imports_of

with imports_of("search"):
    import anyio
    from fastapi import HTTPException, Query, Request

from trimodal.core.files import temporary_folder
from trimodal.media.container import LimitError, MediaError
from trimodal.search.api import Trimodal, VideoHit, default_audio_weight
from trimodal.search.encoder import EmbeddingMatrix, QueryError, UnknownWordWarning
from trimodal.search.example_queries import example_queries
from trimodal.search.folder import folder_names
from trimodal.search.live import LiveStore
from trimodal.search.store import MomentStore
from trimodal.search.tables import IndexedVideo

Result = TypeVar("Result")

_MAX_BYTES = 20_000_000  # of an uploaded audio or image file
_MAX_CHARACTERS = 1_000
_MAX_PAGE, _MAX_VIDEOS = 60, 600  # of a response; of all responses to a query
_MAX_PROBLEMS = 100  # listed; of others the number
_SOUNDS_AT_ONCE = 2  # decoded; others wait
_MOMENT_WEIGHT = 0.5  # of the audio where a moment with audio is the query
_MOMENT = r"[0-9a-f]{1,64}/[0-9]{1,9}/[0-9]{1,6}(\.[0-9]{1,6})?"
_AUDIO_PROBLEMS = {"corrupt": "it cannot be decoded", "no_audio": "the file has none"}


class Queries:
    """The request handlers. ``networks`` lets one thread at a time use the networks."""

    def __init__(self, model: Trimodal, store: LiveStore, networks: anyio.CapacityLimiter) -> None:
        self._model, self._store, self._networks = model, store, networks
        self._sounds = anyio.CapacityLimiter(_SOUNDS_AT_ONCE)
        self._examples: tuple[tuple[str, int], list[str]] | None = None

    def about(self) -> dict[str, Any]:
        """What is indexed."""
        return self._store.use(_summary)

    async def examples(self) -> list[str]:
        """Queries that the model can read and that differ in what they find here."""

        def examples_of(store: MomentStore) -> list[str]:
            state = store.identity, store.moments
            if self._examples is None or self._examples[0] != state:
                self._examples = state, example_queries(self._model, store)
            return self._examples[1]

        return await _run(self._networks, self._store.use, examples_of)

    async def search(
        self,
        request: Request,
        text: Annotated[str, Query(max_length=_MAX_CHARACTERS)] = "",
        kind: Literal["", "audio", "image"] = "",
        like: Annotated[str, Query(pattern=f"^({_MOMENT})?$")] = "",
        audio_weight: Annotated[float | None, Query(ge=0, le=1)] = None,
        top: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 12,
        skip: Annotated[int, Query(ge=0, le=_MAX_VIDEOS - 1)] = 0,
    ) -> dict[str, Any]:
        """Videos for a sentence, the audio or image file in the request's body, or both; or for the
        indexed moment ``like``, STORE/FILE/SECOND. These are the ``top`` best after the first
        ``skip``; ``more`` says whether others follow. ``store`` is part of the URLs of their images
        and videos, ``audio_weight`` the weight that was used.
        """
        answer = partial(self._answer, top=top, skip=skip)
        if like:
            if text.strip() or kind:
                raise HTTPException(422, "A moment is a query of its own, without text and file.")
            return await _run(self._networks, self._similar, like, audio_weight, answer)
        async with _upload(request) if kind else nullcontext(Path()) as file:
            sentences = [text] if text.strip() else []
            images = [str(file)] if kind == "image" else []
            try:
                sounds = []
                if kind == "audio":
                    sounds.append(await _run(self._sounds, self._model.audio_windows, file))
                search = partial(self._search, sentences, sounds, images, audio_weight, answer)
                return await _run(self._networks, search)
            except (MediaError, LimitError) as error:
                problem = _AUDIO_PROBLEMS.get(error.reason, error.detail)
                raise HTTPException(422, f"The audio cannot be used: {problem}.") from error
            except QueryError as error:
                raise HTTPException(422, str(error).replace(str(file), "The file")) from error

    def _search(
        self,
        text: list[str],
        audio: list[Tensor],
        image: list[str],
        audio_weight: float | None,
        answer: Callable[..., dict[str, Any]],
    ) -> dict[str, Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnknownWordWarning)
            query = self._model.query(text, audio, image)
        notes = [str(warning.message) for warning in caught]
        by_kind = default_audio_weight(len(text), len(audio), len(image))
        weight = by_kind if audio_weight is None else audio_weight
        return self._store.use(partial(answer, query=query, weight=weight)) | {"warnings": notes}

    def _similar(
        self, moment: str, audio_weight: float | None, answer: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        """Other videos' moments by how similar their frame is to the moment's, and their audio to
        its audio; for a silent moment the frames alone, unless a weight is given.
        """
        name, number, clock = moment.split("/")
        file, second = int(number), float(clock)

        def search(store: MomentStore) -> dict[str, Any]:
            query = store.embeddings(file, second)
            if query is None:
                raise HTTPException(404, "no such moment")
            silent = np.array_equal(query[0], query[1])
            by_kind = 0.0 if silent else _MOMENT_WEIGHT
            weight = by_kind if audio_weight is None else audio_weight
            found = answer(store, query=query, weight=weight, but=file)
            video = store.file(file)
            path = _shown_path(video, folder_names({*store.folders, video.folder}))
            return found | {"like": {"path": path, "second": second}, "warnings": []}

        return self._store.use_only(name, search)

    def _answer(
        self,
        store: MomentStore,
        *,
        query: EmbeddingMatrix,
        weight: float,
        top: int,
        skip: int,
        but: int | None = None,
    ) -> dict[str, Any]:
        """The hits from ``skip`` on, but the video ``but``."""
        end = min(skip + top, _MAX_VIDEOS)
        wanted = end + 1 + (but is not None)
        hits = self._model.search_in(store, query, top=wanted, audio_weight=weight)
        others = [hit for hit in hits if hit.file != but]
        return {
            "store": store.identity,
            "hits": _shown(others[skip:end], store.folders),
            "more": end < min(len(others), _MAX_VIDEOS),
            "audio_weight": weight,
        }


def _shown(hits: Sequence[VideoHit], folders: Sequence[str]) -> list[dict[str, Any]]:
    """The hits with short names of their folders, which paths begin with if there are several. A
    run in progress may have added videos of another folder since the store was opened.
    """
    names = folder_names({*folders, *(hit.folder for hit in hits)})
    return [
        asdict(hit) | {"folder": names[hit.folder], "path": _shown_path(hit, names)} for hit in hits
    ]


def _shown_path(video: VideoHit | IndexedVideo, names: Mapping[str, str]) -> str:
    return f"{names[video.folder]}/{video.path}" if len(names) > 1 else video.path


def _summary(store: MomentStore) -> dict[str, Any]:
    videos, names = store.files(), folder_names(store.folders)
    problems = [
        {"path": _shown_path(video, names), "problem": video.problem}
        for video in videos
        if video.problem
    ]
    return {
        "folder": ", ".join(sorted(names.values())) or "no folder",
        "videos": sum(video.moments > 0 for video in videos),
        "moments": store.moments,
        "problems": problems[:_MAX_PROBLEMS],
        "further_problems": len(problems[_MAX_PROBLEMS:]),
    }


async def _run(
    limiter: anyio.CapacityLimiter, work: Callable[..., Result], *arguments: Any
) -> Result:
    return await anyio.to_thread.run_sync(work, *arguments, limiter=limiter)


@asynccontextmanager
async def _upload(request: Request) -> AsyncIterator[Path]:
    """The request's body as a temporary file; raises HTTPException if it is too large."""
    with temporary_folder() as folder:
        path, size = folder / "upload", 0
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > _MAX_BYTES:
                    raise HTTPException(413, f"The file is larger than {_MAX_BYTES // 10**6} MB.")
                file.write(part)
        yield path
