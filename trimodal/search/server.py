"""The search page, served on loopback only and to who has the token; the only media files served
are indexed videos.
"""

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

from trimodal.core.errors import UserError
from trimodal.core.extras import imports_of

with imports_of("search"):
    import anyio
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse
    from fastapi.staticfiles import StaticFiles
    from starlette.middleware.trustedhost import TrustedHostMiddleware

from trimodal.core.files import remove_stale_temporary_folders
from trimodal.search.api import Trimodal
from trimodal.search.encoder import QueryError
from trimodal.search.guard import Guard, new_token, secured
from trimodal.search.live import LiveStore, ReplacedError
from trimodal.search.page_media import Media
from trimodal.search.page_queries import Queries
from trimodal.search.store import MomentStore

_PAGE = Path(__file__).parent / "page"
_LOOPBACK = "127.0.0.1"


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
    empty. Raises the errors of ``Trimodal.from_pretrained`` and ``MomentStore.open``, and OSError
    for a port that is in use.
    """
    remove_stale_temporary_folders()
    token = new_token() if token is None else token
    app = build_app(Trimodal.from_pretrained(model), MomentStore.open(store), token)
    with socket.create_server((_LOOPBACK, port)) as listener:
        query = f"/?{urlencode({'token': token})}" if token else ""
        ready(f"http://{_LOOPBACK}:{listener.getsockname()[1]}{query}")
        config = uvicorn.Config(app, log_level="warning", access_log=False)  # a URL holds the token
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def build_app(model: Trimodal, store: MomentStore, token: str = "") -> FastAPI:
    """The page and its API as an ASGI application, for those who have the token if one is given.
    The networks embed one query at a time; queries, the decoding of sounds and the reading of
    images and videos have threads of their own.
    """
    app = FastAPI(title="trimodal", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.middleware("http")(Guard(token))
    app.add_exception_handler(QueryError, partial(_as_message, 422))
    app.add_exception_handler(ReplacedError, partial(_as_message, 404))
    app.add_exception_handler(UserError, partial(_as_message, 503))
    app.add_exception_handler(OSError, partial(_as_message, 503))
    app.add_exception_handler(Exception, _as_bug)
    live, networks = LiveStore(store.location, store), anyio.CapacityLimiter(1)
    queries, media = Queries(model, live, networks), Media(model, live, networks)
    app.get("/api/about")(queries.about)
    app.get("/api/examples")(queries.examples)
    app.post("/api/search")(queries.search)
    app.get("/thumbnails/{store}/{file}/{second}.jpg")(media.thumbnail)
    app.get("/mels/{store}/{file}/{second}.jpg")(media.mel)
    app.get("/heat_maps/{store}/{file}/{second}.png")(media.heat_map)
    app.api_route("/videos/{store}/{file}", methods=["GET", "HEAD"])(media.video)
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


async def _as_message(status: int, _request: Request, error: Exception) -> Response:
    """An error that a user can fix as one message; any other exception is a bug."""
    return JSONResponse({"detail": str(error)}, status)


async def _as_bug(_request: Request, _error: Exception) -> Response:
    return secured(JSONResponse({"detail": "a bug; the server's messages show it"}, 500))
