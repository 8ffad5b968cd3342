"""An HTTP server on the loopback address that serves clips, correctly or with typical failures."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

Response = Callable[["Handler", str], None]


class Handler(BaseHTTPRequestHandler):
    """Serves ``/<video id>.mp4`` as set in ``server.responses``, by default the file itself."""

    protocol_version = "HTTP/1.1"
    server: "VideoServer"

    def do_GET(self) -> None:
        name = Path(self.path).stem
        self.server.requests[name] += 1
        self.server.responses.get(name, serve_file)(self, name)

    do_HEAD = do_GET  # noqa: N815 - the base class names it

    def log_message(self, *args: object) -> None: ...

    def send_start(self, length: int) -> None:
        """The head of a response that promises a video of ``length`` bytes."""
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def send_body(self, body: bytes, *, status: int = 200, kind: str = "video/mp4") -> None:
        """A complete response."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


class VideoServer(ThreadingHTTPServer):
    """``responses``: how to respond for a video id; ``requests``: their number for each."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.responses: dict[str, Response] = {}
        self.requests: Counter[str] = Counter()
        self.closing = Event()

    @property
    def page(self) -> str:
        """The URL pattern of a video."""
        return f"http://127.0.0.1:{self.server_port}/{{id}}.mp4"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are expected."""


def serve_file(handler: Handler, name: str) -> None:
    """The file, or from ``Range: bytes=N-`` on."""
    body = (handler.server.folder / f"{name}.mp4").read_bytes()
    byte_range = handler.headers.get("Range", "")
    first = int(byte_range.removeprefix("bytes=").split("-")[0]) if byte_range else 0
    handler.send_response(206 if byte_range else 200)
    handler.send_header("Content-Type", "video/mp4")
    handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Length", str(len(body) - first))
    if byte_range:
        handler.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
    handler.end_headers()
    if handler.command == "GET":
        handler.wfile.write(body[first:])


def status(code: int) -> Response:
    """An error response."""
    return lambda handler, _: handler.send_body(b"no", status=code, kind="text/plain")


def redirect(target: str) -> Response:
    """A redirect to a URL."""

    def answer(handler: Handler, _: str) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def html_as_mp4(handler: Handler, _: str) -> None:
    """A web page with the content type of a video."""
    handler.send_body(b"<html><body>Please log in</body></html>" * 50)


def web_page(handler: Handler, _: str) -> None:
    """A web page with its own content type."""
    handler.send_body(b"<html><body>Nothing to see</body></html>", kind="text/html")


def truncated(handler: Handler, name: str) -> None:
    """Promises the whole file, sends two thirds and hangs up."""
    body = (handler.server.folder / f"{name}.mp4").read_bytes()
    handler.send_start(len(body))
    if handler.command == "GET":
        handler.wfile.write(body[: len(body) * 2 // 3])
    handler.close_connection = True


def stalled(handler: Handler, name: str) -> None:
    """Sends the first bytes and then nothing."""
    body = (handler.server.folder / f"{name}.mp4").read_bytes()
    handler.send_start(len(body))
    if handler.command == "GET":
        handler.wfile.write(body[:100])
        handler.wfile.flush()
        handler.server.closing.wait(60)


def slow_start(seconds: float) -> Response:
    """The file, after a while."""

    def answer(handler: Handler, name: str) -> None:
        time.sleep(seconds)
        serve_file(handler, name)

    return answer


def failing(times: int, code: int) -> Response:
    """An error the first ``times`` times, then the file."""
    requests = Counter[str]()

    def answer(handler: Handler, name: str) -> None:
        requests[name] += 1
        (status(code) if requests[name] <= times else serve_file)(handler, name)

    return answer


@contextmanager
def running(folder: Path) -> Iterator[VideoServer]:
    """A server of the folder's files, until the block ends."""
    with VideoServer(folder) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()
