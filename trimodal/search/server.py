"""A page to search with, on this machine alone: loopback, and nothing but indexed files."""

import socket
import tempfile
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from trimodal.media.container import LimitError, MediaError
from trimodal.search.api import Trimodal
from trimodal.search.encoder import QueryError, UnknownWordWarning
from trimodal.search.store import MomentStore

_PAGE = Path(__file__).parent / "page"
_LOOPBACK = "127.0.0.1"
_MOST_BYTES = 20_000_000  # of a sound or picture that is asked with
_MOST_LETTERS = 1_000
_MOST_VIDEOS = 60
FileNumber = Annotated[int, InPath(ge=0, lt=2**31)]
Second = Annotated[float, InPath(ge=0, le=1e6, allow_inf_nan=False)]
_HEADERS = {
    # Nothing from other hosts, no script but the page's, and nobody may frame it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_SOUND_PROBLEMS = {"corrupt": "it cannot be decoded", "no_audio": "the file has none"}
# What browsers are told; whether one can play it is the browser's affair.
_TYPES = {
    ".avi": "video/x-msvideo", ".m4v": "video/mp4", ".mkv": "video/x-matroska",
    ".mov": "video/quicktime", ".mp4": "video/mp4", ".ogv": "video/ogg", ".webm": "video/webm",
}  # fmt: skip


def serve(
    model: str, vocabulary: str, store: str, *, port: int, ready: Callable[[str], object]
) -> None:
    """Serves the page at http://127.0.0.1:``port`` (0: one that is free) until it is interrupted;
    ``ready`` is told the address. Raises the errors of ``Trimodal.load`` and ``MomentStore.open``,
    and OSError for a port that is taken.
    """
    app = build_app(Trimodal.load(model, vocabulary), MomentStore.open(store))
    with socket.create_server((_LOOPBACK, port)) as listening:
        ready(f"http://{_LOOPBACK}:{listening.getsockname()[1]}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


def build_app(model: Trimodal, store: MomentStore) -> FastAPI:
    """The page and what it asks for, as an ASGI application."""
    app = FastAPI(title="trimodal", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.middleware("http")(_careful)
    app.add_exception_handler(ValueError, _told)
    search = _Search(model, store)
    app.get("/api/about")(search.about)
    app.post("/api/search")(search.search)
    app.get("/thumbnails/{file}/{second}.jpg")(search.thumbnail)
    app.get("/mels/{file}/{second}.jpg")(search.mel)
    app.api_route("/videos/{file}", methods=["GET", "HEAD"])(search.video)
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


async def _careful(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuses what another site's page asks for, and tells the browser what ours may do."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return JSONResponse({"detail": "asked for by another site"}, status_code=403)
    response = await answer(request)
    response.headers.update(_HEADERS)
    return response


async def _told(_request: Request, error: Exception) -> JSONResponse:
    """An error of this package as one message; any other is a bug, and stays one."""
    if not type(error).__module__.startswith("trimodal."):
        raise error
    return JSONResponse({"detail": str(error)}, 422)


class _Search:
    """The answers. A network takes one question at a time."""

    def __init__(self, model: Trimodal, store: MomentStore) -> None:
        self._model, self._store = model, store
        self._turn = threading.Lock()
        self._root = Path(store.about.folder)

    def about(self) -> dict[str, Any]:
        """What there is to find."""
        files = self._store.files()
        return {
            "folder": self._root.name,
            "videos": sum(file.moments > 0 for file in files),
            "moments": self._store.moments,
            "problems": sum(bool(file.problem) for file in files),
        }

    async def search(
        self,
        request: Request,
        text: Annotated[str, Query(max_length=_MOST_LETTERS)] = "",
        kind: Literal["", "sound", "picture"] = "",
        audio_weight: Annotated[float, Query(ge=0, le=1)] = 0.2,
        top: Annotated[int, Query(ge=1, le=_MOST_VIDEOS)] = 12,
    ) -> dict[str, Any]:
        """Moments for a sentence, for the sound or picture that is the request's body, or both."""
        async with _upload(request) as file:
            sounds = [str(file)] if kind == "sound" else []
            pictures = [str(file)] if kind == "picture" else []
            sentences = [text] if text.strip() else []
            try:
                return await run_in_threadpool(
                    self._answer, sentences, sounds, pictures, audio_weight, top
                )
            except (MediaError, LimitError) as error:
                known = _SOUND_PROBLEMS.get(error.reason, error.detail)
                raise HTTPException(422, f"The sound cannot be used: {known}.") from error
            except QueryError as error:
                raise HTTPException(422, str(error).replace(str(file), "The file")) from error

    def _answer(
        self, text: list[str], audio: list[str], image: list[str], audio_weight: float, top: int
    ) -> dict[str, Any]:
        with self._turn, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UnknownWordWarning)
            query = self._model.query(text, audio, image)
            hits = self._model.search_in(self._store, query, top=top, audio_weight=audio_weight)
        return {
            "hits": [asdict(hit) for hit in hits],
            "warnings": [str(warning.message) for warning in told],
        }

    def thumbnail(self, file: FileNumber, second: Second) -> Response:
        """A moment's picture."""
        return _jpeg(self._store.pictures(file, second), 0)

    def mel(self, file: FileNumber, second: Second) -> Response:
        """A moment's sound as a picture."""
        return _jpeg(self._store.pictures(file, second), 1)

    def video(self, file: FileNumber) -> FileResponse:
        """An indexed video, in parts as the player asks for them."""
        try:
            path = self._root / self._store.file(file).path
        except KeyError as error:
            raise HTTPException(404, "no such video") from error
        # What was a file in the folder may have become a link to another.
        if path.resolve() != path or not path.is_file():
            raise HTTPException(404, "the video is no longer there")
        kind = _TYPES.get(path.suffix.lower(), "application/octet-stream")
        return FileResponse(path, media_type=kind)


@asynccontextmanager
async def _upload(request: Request) -> AsyncIterator[Path]:
    """A request's body as a file, which is deleted in the end; refused where it is too large."""
    with tempfile.TemporaryDirectory(prefix="trimodal-") as folder:
        path, size = Path(folder) / "upload", 0
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > _MOST_BYTES:
                    raise HTTPException(413, f"The file is larger than {_MOST_BYTES // 10**6} MB.")
                file.write(part)
        yield path


def _jpeg(pictures: tuple[bytes, bytes] | None, which: int) -> Response:
    content = pictures[which] if pictures else b""
    if not content:
        raise HTTPException(404, "no such moment")
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})
