"""Gives ffmpeg streams that need cookies without giving it the cookies.

Every user of a machine can read a command line, and ffmpeg repeats its headers to any host that it
is redirected to. So yt-dlp makes such requests, which sends a cookie only to the host that it
belongs to, and a relay on the loopback address hands the answers on.
"""

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yt_dlp
from yt_dlp.networking import Request
from yt_dlp.networking.exceptions import HTTPError, RequestError

from trimodal.media.container import RemoteStream

_FORWARDED = ("Content-Type", "Content-Length", "Content-Range", "Accept-Ranges")


@dataclass(frozen=True, kw_only=True)
class PrivateStream:
    """A stream whose requests carry secrets: ``headers``, and cookies of ``downloader``, which
    makes them.
    """

    url: str
    headers: Mapping[str, str]
    downloader: yt_dlp.YoutubeDL


@contextmanager
def relayed(streams: Sequence[RemoteStream | PrivateStream]) -> Iterator[list[RemoteStream]]:
    """The streams, the private ones at URLs of a relay that runs until the block ends. It answers
    for these streams only, at names that cannot be guessed.
    """
    named = {f"/{secrets.token_urlsafe(16)}": stream for stream in streams}
    private = {name: s for name, s in named.items() if isinstance(s, PrivateStream)}
    if not private:
        yield [stream for stream in streams if isinstance(stream, RemoteStream)]
        return
    with _running(_Relay(private)) as relay:
        yield [
            RemoteStream(url=f"http://127.0.0.1:{relay.server_port}{name}", headers={}, local=True)
            if isinstance(stream, PrivateStream)
            else stream
            for name, stream in named.items()
        ]


@contextmanager
def _running(relay: "_Relay") -> Iterator["_Relay"]:
    thread = Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.shutdown()
        thread.join()
        relay.server_close()
        for stream in relay.streams.values():
            stream.downloader.close()


class _Relay(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, streams: Mapping[str, PrivateStream]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.streams = streams

    def handle_error(self, request: Any, client_address: Any) -> None:
        """ffmpeg hangs up when it has what it needs."""


class _Handler(BaseHTTPRequestHandler):
    server: _Relay

    def do_GET(self) -> None:
        stream = self.server.streams.get(self.path)
        if stream is None:
            self.send_error(404)
            return
        headers = {**stream.headers, "Accept-Encoding": "identity"}
        if byte_range := self.headers.get("Range"):
            headers["Range"] = byte_range
        try:
            response = stream.downloader.urlopen(Request(stream.url, headers=headers))
        except HTTPError as error:
            self.send_error(error.status)
            return
        except (RequestError, OSError, ValueError):  # also a redirect to what is not HTTP
            self.send_error(502)
            return
        with response:
            self.send_response(response.status)
            for name in _FORWARDED:
                if value := response.headers.get(name):
                    self.send_header(name, value)
            self.end_headers()
            # An answer that ends early ends early for ffmpeg, too.
            with suppress(RequestError, HTTPException, OSError):
                shutil.copyfileobj(response, self.wfile)

    def log_message(self, *_: Any) -> None:
        """Nothing is logged."""
