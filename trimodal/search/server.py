"""The search page, served on loopback only and to who has the token; the only media files served
are indexed videos.
"""

import hashlib
import os
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlencode

import anyio
import numpy as np
import numpy.typing as npt
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware
from torch import Tensor

from trimodal.core.errors import UserError
from trimodal.core.files import remove_stale_temporary_folders, temporary_folder
from trimodal.media.container import LimitError, MediaError
from trimodal.search.api import Trimodal, default_audio_weight
from trimodal.search.encoder import QueryError, UnknownWordWarning
from trimodal.search.guard import Guard, new_token, secured
from trimodal.search.heat_map import heat_map_png
from trimodal.search.live import LiveStore
from trimodal.search.store import MomentStore
from trimodal.search.tables import IndexedVideo

Result = TypeVar("Result")

_PAGE = Path(__file__).parent / "page"
_LOOPBACK = "127.0.0.1"
_MAX_BYTES = 20_000_000  # of an uploaded audio or image file
_MAX_CHARACTERS = 1_000
_MAX_VIDEOS = 60
FileNumber = Annotated[int, InPath(ge=0, lt=2**31)]
Second = Annotated[float, InPath(ge=0, le=1e6, allow_inf_nan=False)]
StoreName = Annotated[str, InPath(pattern="^[0-9a-f]{1,64}$")]
_SOUNDS_AT_ONCE = 2  # decoded; others wait
# A URL of an image names the store and a number that no other video of it has.
_IMAGE_CACHE = "private, max-age=86400, immutable"
_VIDEO_CACHE = "private, no-cache"
_AUDIO_PROBLEMS = {"corrupt": "it cannot be decoded", "no_audio": "the file has none"}
# Content types of the videos; whether it can play them is up to the browser.
_CONTENT_TYPES = {
    ".avi": "video/x-msvideo", ".m4v": "video/mp4", ".mkv": "video/x-matroska",
    ".mov": "video/quicktime", ".mp4": "video/mp4", ".ogv": "video/ogg", ".webm": "video/webm",
}  # fmt: skip


def serve(
    model: str,
    store: str,
    *,
    port: int,
    ready: Callable[[str], object],
    token: str | None = None,
) -> None:
    """Serves the page at http://127.0.0.1:``port`` (0: any free port) until interrupted; calls
    ``ready`` with the address, which holds the token: a random one, ``token``, or none if that is
    empty. Raises the errors of ``Trimodal.load`` and ``MomentStore.open``, and OSError for a port
    that is in use.
    """
    remove_stale_temporary_folders()
    token = new_token() if token is None else token
    app = build_app(Trimodal.load(model), MomentStore.open(store), token)
    with socket.create_server((_LOOPBACK, port)) as listener:
        query = f"/?{urlencode({'token': token})}" if token else ""
        ready(f"http://{_LOOPBACK}:{listener.getsockname()[1]}{query}")
        config = uvicorn.Config(app, log_level="warning", access_log=False)  # a URL holds the token
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def build_app(model: Trimodal, store: MomentStore, token: str = "") -> FastAPI:
    """The page and its API as an ASGI application, for those who have the token if one is given."""
    app = FastAPI(title="trimodal", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.middleware("http")(Guard(token))
    app.add_exception_handler(QueryError, partial(_as_message, 422))
    app.add_exception_handler(UserError, partial(_as_message, 503))
    app.add_exception_handler(OSError, partial(_as_message, 503))
    app.add_exception_handler(Exception, _as_bug)
    search = _Search(model, store)
    app.get("/api/about")(search.about)
    app.post("/api/search")(search.search)
    app.get("/thumbnails/{store}/{file}/{second}.jpg")(search.thumbnail)
    app.get("/mels/{store}/{file}/{second}.jpg")(search.mel)
    app.get("/heat_maps/{store}/{file}/{second}.png")(search.heat_map)
    app.api_route("/videos/{store}/{file}", methods=["GET", "HEAD"])(search.video)
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


async def _as_message(status: int, _request: Request, error: Exception) -> Response:
    """An error that a user can fix as one message; any other exception is a bug."""
    return JSONResponse({"detail": str(error)}, status)


async def _as_bug(_request: Request, _error: Exception) -> Response:
    return secured(JSONResponse({"detail": "a bug; the server's messages show it"}, 500))


class _Search:
    """The request handlers. The networks embed one query at a time; queries, the decoding of sounds
    and the reading of images and videos have threads of their own.
    """

    def __init__(self, model: Trimodal, store: MomentStore) -> None:
        self._model, self._store = model, LiveStore(store.location, store)
        self._queries = anyio.CapacityLimiter(1)
        self._sounds = anyio.CapacityLimiter(_SOUNDS_AT_ONCE)

    def about(self) -> dict[str, Any]:
        """What is indexed."""
        return self._store.use(_summary)

    async def search(
        self,
        request: Request,
        text: Annotated[str, Query(max_length=_MAX_CHARACTERS)] = "",
        kind: Literal["", "audio", "image"] = "",
        audio_weight: Annotated[float | None, Query(ge=0, le=1)] = None,
        top: Annotated[int, Query(ge=1, le=_MAX_VIDEOS)] = 12,
    ) -> dict[str, Any]:
        """Moments for a sentence, the audio or image file in the request's body, or both. ``store``
        is part of the URLs of their images and videos, ``audio_weight`` the weight that was used.
        """
        async with _upload(request) if kind else nullcontext(Path()) as file:
            sentences = [text] if text.strip() else []
            images = [str(file)] if kind == "image" else []
            try:
                sounds = []
                if kind == "audio":
                    sounds.append(await _run(self._sounds, self._model.audio_windows, file))
                search = partial(self._search, sentences, sounds, images, audio_weight, top)
                return await _run(self._queries, search)
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
        top: int,
    ) -> dict[str, Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnknownWordWarning)
            query = self._model.query(text, audio, image)
        notes = [str(warning.message) for warning in caught]
        by_kind = default_audio_weight(len(text), len(audio), len(image))
        weight = by_kind if audio_weight is None else audio_weight

        def search(store: MomentStore) -> dict[str, Any]:
            hits = self._model.search_in(store, query, top=top, audio_weight=weight)
            return {"store": store.identity, "hits": [asdict(hit) for hit in hits]}

        return self._store.use(search) | {"audio_weight": weight, "warnings": notes}

    def thumbnail(
        self, request: Request, store: StoreName, file: FileNumber, second: Second
    ) -> Response:
        """A moment's frame, JPEG."""
        return self._image(request, store, file, second, 0)

    def mel(self, request: Request, store: StoreName, file: FileNumber, second: Second) -> Response:
        """A moment's mel, JPEG."""
        return self._image(request, store, file, second, 1)

    def _image(
        self, request: Request, store: str, file: int, second: float, index: int
    ) -> Response:
        images = self._in(store, lambda opened: opened.images(file, second))
        content = images[index] if images else b""
        if not content:
            raise HTTPException(404, "no such moment")
        return _image_response(request, content, "image/jpeg")

    async def heat_map(
        self, request: Request, store: StoreName, file: FileNumber, second: Second
    ) -> Response:
        """Where in a moment's frame its audio comes from, PNG; 503 if the model cannot tell."""

        def find(opened: MomentStore) -> tuple[bytes, npt.NDArray[np.float32] | None]:
            images = opened.images(file, second)
            return (images[0], opened.sound(file, second)) if images else (b"", None)

        def draw() -> bytes:
            frame, sound = self._in(store, find)
            if sound is None:
                raise HTTPException(404, "no such moment with audio")
            return heat_map_png(self._model, frame, sound)

        return _image_response(request, await _run(self._queries, draw), "image/png")

    def video(self, request: Request, store: StoreName, file: FileNumber) -> Response:
        """An indexed video; range requests are supported."""

        def find(opened: MomentStore) -> tuple[Path, IndexedVideo]:
            return Path(opened.about.folder), opened.file(file)

        try:
            root, video = self._in(store, find)
        except KeyError as error:
            raise HTTPException(404, "no such video") from error
        path, state = _checked(root, video)
        content_type = _CONTENT_TYPES.get(
            Path(video.path).suffix.lower(), "application/octet-stream"
        )
        tag = f'"{store}-{file}-{state.st_mtime_ns:x}-{state.st_size:x}"'
        headers = {"Cache-Control": _VIDEO_CACHE, "ETag": tag}
        return _unless_known(
            request,
            FileResponse(path, media_type=content_type, stat_result=state, headers=headers),
        )

    def _in(self, name: str, work: Callable[[MomentStore], Result]) -> Result:
        """What ``work`` returns for the store of this name; 404 if it has been replaced."""

        def checked(store: MomentStore) -> Result:
            if store.identity != name:
                raise HTTPException(404, "the folder has been indexed anew: search again")
            return work(store)

        return self._store.use(checked)


def _image_response(request: Request, content: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": _IMAGE_CACHE, "ETag": tag}
    return _unless_known(request, Response(content, media_type=media_type, headers=headers))


def _summary(store: MomentStore) -> dict[str, Any]:
    videos = store.files()
    return {
        "folder": Path(store.about.folder).name,
        "videos": sum(video.moments > 0 for video in videos),
        "moments": store.moments,
        "problems": sum(bool(video.problem) for video in videos),
    }


def _checked(root: Path, video: IndexedVideo) -> tuple[Path, os.stat_result]:
    """Where a video is; raises HTTPException if it is not the file that was indexed: it may have
    been replaced, also by a link to another one.
    """
    path = root / video.path
    real = Path(video.real) if video.real else path
    try:
        state = path.stat()
        if not video.moments or path.resolve() != real or not real.is_file():
            raise HTTPException(404, "the video is no longer there")
    except OSError as error:
        raise HTTPException(404, "the video is no longer there") from error
    if (state.st_size, state.st_mtime_ns) != (video.bytes, video.modified_ns):
        raise HTTPException(404, "the video has changed since it was indexed; index the folder")
    return real, state


def _unless_known(request: Request, response: Response) -> Response:
    """The response, or 304 if the browser has the same one."""
    known = request.headers.get("if-none-match", "")
    if response.headers["ETag"] not in (tag.strip().removeprefix("W/") for tag in known.split(",")):
        return response
    headers = {name: response.headers[name] for name in ("Cache-Control", "ETag")}
    return Response(status_code=304, headers=headers)


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
