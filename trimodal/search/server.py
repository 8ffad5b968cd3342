"""The search page, served on loopback only; the only media files served are indexed videos."""

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

from trimodal.core.errors import UserError
from trimodal.media.container import LimitError, MediaError
from trimodal.search.api import Trimodal
from trimodal.search.encoder import QueryError, UnknownWordWarning
from trimodal.search.store import MomentStore

_PAGE = Path(__file__).parent / "page"
_LOOPBACK = "127.0.0.1"
_MAX_BYTES = 20_000_000  # of an uploaded audio or image file
_MAX_CHARACTERS = 1_000
_MAX_VIDEOS = 60
FileNumber = Annotated[int, InPath(ge=0, lt=2**31)]
Second = Annotated[float, InPath(ge=0, le=1e6, allow_inf_nan=False)]
_HEADERS = {
    # Nothing from other hosts, only the page's own script, and no framing.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_AUDIO_PROBLEMS = {"corrupt": "it cannot be decoded", "no_audio": "the file has none"}
# Content types of the videos; whether it can play them is up to the browser.
_CONTENT_TYPES = {
    ".avi": "video/x-msvideo", ".m4v": "video/mp4", ".mkv": "video/x-matroska",
    ".mov": "video/quicktime", ".mp4": "video/mp4", ".ogv": "video/ogg", ".webm": "video/webm",
}  # fmt: skip


def serve(
    model: str, vocabulary: str, store: str, *, port: int, ready: Callable[[str], object]
) -> None:
    """Serves the page at http://127.0.0.1:``port`` (0: any free port) until interrupted; calls
    ``ready`` with the address. Raises the errors of ``Trimodal.load`` and ``MomentStore.open``, and
    OSError for a port that is in use.
    """
    app = build_app(Trimodal.load(model, vocabulary), MomentStore.open(store))
    with socket.create_server((_LOOPBACK, port)) as listener:
        ready(f"http://{_LOOPBACK}:{listener.getsockname()[1]}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def build_app(model: Trimodal, store: MomentStore) -> FastAPI:
    """The page and its API as an ASGI application."""
    app = FastAPI(title="trimodal", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.middleware("http")(_guard)
    app.add_exception_handler(UserError, _user_error)
    search = _Search(model, store)
    app.get("/api/about")(search.about)
    app.post("/api/search")(search.search)
    app.get("/thumbnails/{file}/{second}.jpg")(search.thumbnail)
    app.get("/mels/{file}/{second}.jpg")(search.mel)
    app.api_route("/videos/{file}", methods=["GET", "HEAD"])(search.video)
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuses requests by other sites' pages, and adds the security headers."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return JSONResponse({"detail": "requested by another site"}, status_code=403)
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


async def _user_error(_request: Request, error: Exception) -> JSONResponse:
    """An error that a user can fix as one message; any other exception is a bug."""
    return JSONResponse({"detail": str(error)}, 422)


class _Search:
    """The request handlers. The networks embed one query at a time."""

    def __init__(self, model: Trimodal, store: MomentStore) -> None:
        self._model, self._store = model, store
        self._lock = threading.Lock()
        self._root = Path(store.about.folder)

    def about(self) -> dict[str, Any]:
        """What is indexed."""
        videos = self._store.files()
        return {
            "folder": self._root.name,
            "videos": sum(video.moments > 0 for video in videos),
            "moments": self._store.moments,
            "problems": sum(bool(video.problem) for video in videos),
        }

    async def search(
        self,
        request: Request,
        text: Annotated[str, Query(max_length=_MAX_CHARACTERS)] = "",
        kind: Literal["", "audio", "image"] = "",
        audio_weight: Annotated[float, Query(ge=0, le=1)] = 0.2,
        top: Annotated[int, Query(ge=1, le=_MAX_VIDEOS)] = 12,
    ) -> dict[str, Any]:
        """Moments for a sentence, the audio or image file in the request's body, or both."""
        async with _upload(request) as file:
            sentences = [text] if text.strip() else []
            audio = [str(file)] if kind == "audio" else []
            images = [str(file)] if kind == "image" else []
            try:
                return await run_in_threadpool(
                    self._search, sentences, audio, images, audio_weight, top
                )
            except (MediaError, LimitError) as error:
                problem = _AUDIO_PROBLEMS.get(error.reason, error.detail)
                raise HTTPException(422, f"The audio cannot be used: {problem}.") from error
            except QueryError as error:
                raise HTTPException(422, str(error).replace(str(file), "The file")) from error

    def _search(
        self, text: list[str], audio: list[str], image: list[str], audio_weight: float, top: int
    ) -> dict[str, Any]:
        with self._lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UnknownWordWarning)
            query = self._model.query(text, audio, image)
            hits = self._model.search_in(self._store, query, top=top, audio_weight=audio_weight)
        return {
            "hits": [asdict(hit) for hit in hits],
            "warnings": [str(warning.message) for warning in caught],
        }

    def thumbnail(self, file: FileNumber, second: Second) -> Response:
        """A moment's frame, JPEG."""
        return _jpeg(self._store.images(file, second), 0)

    def mel(self, file: FileNumber, second: Second) -> Response:
        """A moment's mel, JPEG."""
        return _jpeg(self._store.images(file, second), 1)

    def video(self, file: FileNumber) -> FileResponse:
        """An indexed video; range requests are supported."""
        try:
            path = self._root / self._store.file(file).path
        except KeyError as error:
            raise HTTPException(404, "no such video") from error
        # The file may have been replaced by a link to another one.
        if path.resolve() != path or not path.is_file():
            raise HTTPException(404, "the video is no longer there")
        content_type = _CONTENT_TYPES.get(path.suffix.lower(), "application/octet-stream")
        return FileResponse(path, media_type=content_type)


@asynccontextmanager
async def _upload(request: Request) -> AsyncIterator[Path]:
    """The request's body as a temporary file; raises HTTPException if it is too large."""
    with tempfile.TemporaryDirectory(prefix="trimodal-") as folder:
        path, size = Path(folder) / "upload", 0
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > _MAX_BYTES:
                    raise HTTPException(413, f"The file is larger than {_MAX_BYTES // 10**6} MB.")
                file.write(part)
        yield path


def _jpeg(images: tuple[bytes, bytes] | None, index: int) -> Response:
    content = images[index] if images else b""
    if not content:
        raise HTTPException(404, "no such moment")
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})
