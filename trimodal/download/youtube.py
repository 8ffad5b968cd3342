"""Fetches one clip from YouTube: yt-dlp finds the streams, ffmpeg cuts exactly the clip's seconds.

The cut is re-encoded, so that it begins at the clip's first second and not at the nearest key
frame. A failure has a status, which decides whether a retry can help.
"""

import io
import random
import re
import time
from http.client import HTTPException
from http.cookiejar import LoadError
from pathlib import Path
from typing import Annotated, Any

import yt_dlp
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass as section_dataclass
from yt_dlp.cookies import CookieLoadError
from yt_dlp.networking.exceptions import HTTPError, TransportError
from yt_dlp.utils import GeoRestrictedError, UnsupportedError

from trimodal.core.config import SECTION
from trimodal.core.machine import YoutubeAccess
from trimodal.core.machine_errors import UnreadableError
from trimodal.core.records import Clip, ClipStatus, DataError
from trimodal.download.relay import PrivateStream, relayed
from trimodal.media.container import (
    MediaError,
    RemoteStream,
    SectionError,
    cut_section,
    ffmpeg_executable,
)
from trimodal.media.tracks import probe
from trimodal.sources.vggsound import CLIP_SECONDS, youtube_section

_STATUS_OF_HTTP: dict[int, ClipStatus] = {
    404: "unavailable",
    410: "unavailable",
    429: "rate_limited",
}
_STATUS_PATTERNS: tuple[tuple[ClipStatus, str], ...] = (
    ("bot_check", r"not a bot|captcha"),
    ("rate_limited", r"rate-limited|HTTP Error 429|too many requests|429 Too Many"),
    ("private", r"private video|video is private"),
    ("geo_blocked", r"in your country|from your location|geo.?restrict"),
    (
        "unavailable",
        r"video unavailable|video is not available|no longer available|has been removed"
        r"|been terminated|does not exist|members-only|join this channel|confirm your age"
        r"|age-restricted|live event|premieres in|DRM|HTTP Error (404|410)|404 Not Found|410 Gone",
    ),
    ("network", r"timed out|ends prematurely"),
    ("corrupt", r"invalid data found"),
)
# Those that a browser sends to everybody: they may stand on a command line.
_PLAIN_HEADERS = frozenset({
    "user-agent", "referer", "origin", "accept", "accept-language", "accept-encoding",
    "sec-fetch-mode",
})  # fmt: skip


@section_dataclass(frozen=True, kw_only=True, config=SECTION)
class YoutubeConfig:
    """Section ``youtube``: what is fetched (``machine.youtube``: how). ``page`` is the URL of a
    video, with ``{id}`` for its YouTube id; ``height_px`` is the preferred frame height; clips are
    encoded with H.264 at quality ``crf`` (0, the best, to 51) and ``audio_kbps`` of AAC.
    """

    page: Annotated[str, Field(pattern=r"^https?://[^\s{}]+\{id\}[^\s{}]*$")]
    height_px: PositiveInt
    crf: Annotated[int, Field(ge=0, le=51)]
    audio_kbps: PositiveInt


class FetchError(Exception):
    """Why a clip could not be fetched; ``status`` is its status in the manifest."""

    def __init__(self, status: ClipStatus, reason: str) -> None:
        super().__init__(reason)
        self.status: ClipStatus = status


def fetch_clip(config: YoutubeConfig, access: YoutubeAccess, clip: Clip, path: Path) -> None:
    """Writes the clip's 10 s to ``path`` (MP4), with retries of temporary failures.

    Raises FetchError with the last attempt's status, DataError for an invalid cookies file.
    """
    for attempt in range(access.retries + 1):
        wait = access.pause_seconds if attempt == 0 else access.backoff_seconds * 2 ** (attempt - 1)
        time.sleep(wait * random.uniform(1, 2))  # noqa: S311 - spreads requests
        try:
            return _fetch_once(config, access, clip, path)
        except FetchError as error:
            if error.status not in ("network", "rate_limited") or attempt == access.retries:
                raise
    raise AssertionError("unreachable")


def _fetch_once(config: YoutubeConfig, access: YoutubeAccess, clip: Clip, path: Path) -> None:
    youtube_id, start = youtube_section(clip)
    video = _resolve(config, access, config.page.replace("{id}", youtube_id))
    length = video.get("duration")
    if length is not None and length <= start:
        raise FetchError("too_short", f"the video has {length:g} s and ends before second {start}")
    try:
        with relayed(_streams(video)) as streams:
            cut_section(
                streams,
                path,
                start_seconds=start,
                seconds=CLIP_SECONDS,
                crf=config.crf,
                audio_kbps=config.audio_kbps,
                stall_seconds=access.stall_seconds,
                timeout_seconds=access.clip_timeout_seconds,
            )
    except SectionError as error:
        status = _status_of(str(error))
        # Only the video's page can show that it is gone; a stream's URL may have expired.
        permanent = status in ("private", "geo_blocked", "unavailable")
        raise FetchError("network" if permanent else status, str(error)) from error
    try:
        fetched_seconds = probe(path).duration_seconds
    except MediaError as error:
        path.unlink()
        raise FetchError("corrupt", f"nothing in what was cut: {error.detail}") from error
    except UnreadableError as error:
        raise FetchError("unreadable", str(error)) from error
    expected_seconds = 0.0 if length is None else min(CLIP_SECONDS, length - start)
    if fetched_seconds < expected_seconds - 1:
        path.unlink()
        raise FetchError("network", f"{fetched_seconds:.1f} of {expected_seconds:.1f} s came")


def _resolve(config: YoutubeConfig, access: YoutubeAccess, page: str) -> dict[str, Any]:
    cookies = Path(access.cookies_file).read_text() if access.cookies_file else None
    options = {
        "format": "bv*+ba/b",
        "format_sort": [f"res:{config.height_px}"],
        "noplaylist": True,
        "socket_timeout": access.stall_seconds,
        "extractor_retries": 0,
        # A copy per clip: yt-dlp writes cookies back, and workers share the file.
        "cookiefile": io.StringIO(cookies) if cookies is not None else None,
        "js_runtimes": {access.js_runtime: {}},
        "ffmpeg_location": ffmpeg_executable(),
        "logger": _SilentLogger(),
        "noprogress": True,
    }
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            video = downloader.sanitize_info(downloader.extract_info(page, download=False))
            for stream in _chosen_streams(video):
                secret = {*map(str.lower, stream.get("http_headers") or {})} - _PLAIN_HEADERS
                if secret or downloader.cookiejar.get_cookie_header(stream["url"]):
                    stream["downloader"] = downloader
            return dict(video)
    except yt_dlp.utils.YoutubeDLError as error:
        if any(isinstance(cause, CookieLoadError | LoadError) for cause in _causes(error)):
            where = f"machine.youtube.cookies_file: {access.cookies_file}"
            raise DataError(f"{where} is not in Netscape's format") from error
        raise FetchError(_status_of_error(error), _one_line(str(error))) from error
    except (
        LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError,
        RuntimeError, HTTPException,
    ) as error:  # fmt: skip
        # One page that yt-dlp cannot parse must not end the run; many in a row open the breaker.
        reason = f"yt-dlp failed: {type(error).__name__}: {error}"
        raise FetchError("network", _one_line(reason)) from error


def _chosen_streams(video: dict[str, Any]) -> list[dict[str, Any]]:
    """The streams yt-dlp chose: one, or one of video and one of audio; none for a playlist."""
    return video.get("requested_formats") or ([video] if "url" in video else [])


def _streams(video: dict[str, Any]) -> list[RemoteStream | PrivateStream]:
    chosen = _chosen_streams(video)
    if not chosen or video.get("is_live"):
        raise FetchError("unavailable", "a playlist or a live stream, not a video")
    streams = [_stream(stream) for stream in chosen]
    if not all(stream.url.startswith(("http://", "https://")) for stream in streams):
        raise FetchError("unavailable", "its streams are not served over HTTP")
    return streams


def _stream(stream: dict[str, Any]) -> RemoteStream | PrivateStream:
    """A file that needs cookies is private. A playlist is requested without: it may name files of
    any host.
    """
    url, headers = stream["url"], stream.get("http_headers") or {}
    if "downloader" in stream and stream.get("protocol", "http") in ("http", "https"):
        return PrivateStream(url=url, headers=headers, downloader=stream["downloader"])
    plain = {name: value for name, value in headers.items() if name.lower() in _PLAIN_HEADERS}
    return RemoteStream(url=url, headers=plain)


def _status_of_error(error: BaseException) -> ClipStatus:
    for cause in _causes(error):
        if isinstance(cause, GeoRestrictedError):
            return "geo_blocked"
        if isinstance(cause, HTTPError):
            return _STATUS_OF_HTTP.get(cause.status, "network")
        if isinstance(cause, TransportError):
            return "network"
        if isinstance(cause, UnsupportedError):
            return "unavailable"
    return _status_of(str(error))


def _causes(error: BaseException | None) -> list[BaseException]:
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        info = getattr(error, "exc_info", None)
        inner = info[1] if info else None
        error = getattr(error, "cause", None) or inner or error.__cause__
    return causes


def _status_of(message: str) -> ClipStatus:
    """The status that an error message stands for; unknown messages are retryable."""
    for status, pattern in _STATUS_PATTERNS:
        if re.search(pattern, message, re.IGNORECASE):
            return status
    return "network"


def _one_line(message: str) -> str:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", message).removeprefix("ERROR: ")
    return " ".join(plain.split())[:300]


class _SilentLogger:
    """Discards yt-dlp's messages; errors arrive as exceptions."""

    def debug(self, message: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warning(self, message: str) -> None: ...

    def error(self, message: str) -> None: ...
