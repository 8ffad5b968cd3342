"""What the search page shows of a moment: its frame, its mel, where it sounds, and its video."""

import hashlib
import os
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt

from trimodal.core.extras import imports_of

with imports_of("search"):
    import anyio
    from fastapi import HTTPException, Request, Response
    from fastapi import Path as InPath
    from fastapi.responses import FileResponse

from trimodal.search.encoder import Encoder
from trimodal.search.heat_map import heat_map_png
from trimodal.search.live import LiveStore
from trimodal.search.store import MomentStore
from trimodal.search.tables import IndexedVideo

FileNumber = Annotated[int, InPath(ge=0, lt=2**31)]
Second = Annotated[float, InPath(ge=0, le=1e6, allow_inf_nan=False)]
StoreName = Annotated[str, InPath(pattern="^[0-9a-f]{1,64}$")]
# A URL of an image names the store and a number that no other video of it has.
_IMAGE_CACHE = "private, max-age=86400, immutable"
_VIDEO_CACHE = "private, no-cache"
# Content types of the videos; whether it can play them is up to the browser.
_CONTENT_TYPES = {
    ".avi": "video/x-msvideo", ".m4v": "video/mp4", ".mkv": "video/x-matroska",
    ".mov": "video/quicktime", ".mp4": "video/mp4", ".ogv": "video/ogg", ".webm": "video/webm",
}  # fmt: skip


class Media:
    """The request handlers of images and videos. ``networks`` limits who uses the networks."""

    def __init__(self, model: Encoder, store: LiveStore, networks: anyio.CapacityLimiter) -> None:
        self._model, self._store, self._networks = model, store, networks

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
        images = self._store.use_only(store, lambda opened: opened.images(file, second))
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
            frame, sound = self._store.use_only(store, find)
            if sound is None:
                raise HTTPException(404, "no such moment with audio")
            return heat_map_png(self._model, frame, sound)

        png = await anyio.to_thread.run_sync(draw, limiter=self._networks)
        return _image_response(request, png, "image/png")

    def video(self, request: Request, store: StoreName, file: FileNumber) -> Response:
        """An indexed video; range requests are supported."""
        try:
            video = self._store.use_only(store, lambda opened: opened.file(file))
        except KeyError as error:
            raise HTTPException(404, "no such video") from error
        path, state = _checked(video)
        content_type = _CONTENT_TYPES.get(
            Path(video.path).suffix.lower(), "application/octet-stream"
        )
        tag = f'"{store}-{file}-{state.st_mtime_ns:x}-{state.st_size:x}"'
        headers = {"Cache-Control": _VIDEO_CACHE, "ETag": tag}
        return _unless_known(
            request,
            FileResponse(path, media_type=content_type, stat_result=state, headers=headers),
        )


def _image_response(request: Request, content: bytes, media_type: str) -> Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"Cache-Control": _IMAGE_CACHE, "ETag": tag}
    return _unless_known(request, Response(content, media_type=media_type, headers=headers))


def _checked(video: IndexedVideo) -> tuple[Path, os.stat_result]:
    """Where a video is; raises HTTPException if it is not the file that was indexed: it may have
    been replaced, also by a link to another one.
    """
    path = Path(video.folder, video.path)
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
