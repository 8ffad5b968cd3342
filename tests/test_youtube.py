"""yt-dlp and ffmpeg against a server on the loopback address: cuts, failures and retries."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import video_server as serve
import yt_dlp
from configs import MACHINE, config_for_tests
from media_fixtures import frames_of, samples_of
from video_server import VideoServer

from trimodal.core.config import ConfigError, parse_section
from trimodal.core.machine import MachineConfig, YoutubeAccess
from trimodal.core.records import Clip, DataError
from trimodal.download import youtube as module
from trimodal.download.relay import PrivateStream, relayed
from trimodal.download.youtube import FetchError, YoutubeConfig, fetch_clip
from trimodal.media import container
from trimodal.media.container import (
    RemoteStream,
    SectionError,
    cut_section,
    encode_video,
)
from trimodal.media.tracks import probe

FPS = 25
CONFIG = config_for_tests(YoutubeConfig, page="http://127.0.0.1:9/{id}.mp4")
ACCESS = replace(
    MACHINE.youtube, workers=2, pause_seconds=0.0, retries=0, backoff_seconds=0.0,
    stall_seconds=1.0, clip_timeout_seconds=30.0, stop_after=3,
)  # fmt: skip


def clip_of(youtube_id: str, start: int = 3) -> Clip:
    return Clip(
        clip_id=f"{youtube_id}_{start:06d}", source="vggsound", split="train", label="a dog"
    )


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 16 s video whose frames carry their numbers as 9 bars, black or white, with key frames far
    apart and a tone that begins at second 8; the same without audio; one of 5 s.
    """
    folder = tmp_path_factory.mktemp("videos")
    bits = np.arange(16 * FPS)[:, None] >> np.arange(9) & 1
    bars = np.repeat(np.uint8(bits * 255), 16, axis=1)
    frames = [np.repeat(np.tile(row, (32, 1))[:, :, None], 3, axis=2) for row in bars]
    tone = np.sin(np.arange(16 * 8000) * 0.5).astype(np.float32) / 2
    tone[: 8 * 8000] = 0
    for name, video, audio in (
        ("-good_video", frames, tone),
        ("silentvideo", frames, None),
        ("_shortvideo", frames[: 5 * FPS], tone[: 5 * 8000]),
    ):
        encode_video(folder / f"{name}.mp4", video, fps=FPS, audio=audio, audio_rate_hz=8000)
    return folder


@pytest.fixture
def server(videos: Path) -> Iterator[VideoServer]:
    with serve.running(videos) as running:
        yield running


@pytest.fixture
def config(server: VideoServer) -> YoutubeConfig:
    return replace(CONFIG, page=server.page)


@pytest.mark.parametrize("start", [0, 1, 5, 6, 9])
def test_a_cut_starts_within_a_frame_of_the_clips_start(
    start: int, config: YoutubeConfig, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    fetch_clip(config, ACCESS, clip_of("-good_video", start), path)
    seconds = min(10, 16 - start)
    info = probe(path)
    assert info.duration_seconds == pytest.approx(seconds, abs=1 / FPS)
    assert info.has_audio
    shown = frames_of(path, 32, 144)[:, 16, 8::16, 0] > 127
    numbers = (shown * (1 << np.arange(9))).sum(axis=1)
    # Frame N of the extraction is the last one at or before second N - 0.5.
    expected = np.floor((start + np.arange(seconds) + 0.5) * FPS)
    assert np.abs(numbers - expected).max() <= 1


def test_audio_is_cut_with_the_video(config: YoutubeConfig, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    fetch_clip(config, ACCESS, clip_of("-good_video", 3), path)
    loud = np.flatnonzero(np.abs(samples_of(path, 8000)) > 0.2)
    assert loud[0] / 8000 == pytest.approx(5.0, abs=1 / FPS)


def test_quality_and_bit_rate_are_the_params(config: YoutubeConfig, tmp_path: Path) -> None:
    sizes = []
    for crf, kbps in ((20, 128), (45, 128), (20, 32)):
        path = tmp_path / f"{crf}-{kbps}.mp4"
        fetch_clip(replace(config, crf=crf, audio_kbps=kbps), ACCESS, clip_of("-good_video"), path)
        sizes.append(path.stat().st_size)
    assert sizes[0] > sizes[1]
    assert sizes[0] > sizes[2]


def test_a_video_without_audio_gives_a_clip_without_audio(
    config: YoutubeConfig, tmp_path: Path
) -> None:
    fetch_clip(config, ACCESS, clip_of("silentvideo"), tmp_path / "clip.mp4")
    assert not probe(tmp_path / "clip.mp4").has_audio


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (serve.status(404), "unavailable", "HTTP Error 404"),
        (serve.status(410), "unavailable", "HTTP Error 410"),
        (serve.status(403), "network", "HTTP Error 403"),
        (serve.status(429), "rate_limited", "HTTP Error 429"),
        (serve.status(503), "network", "HTTP Error 503"),
        (serve.web_page, "unavailable", "Unsupported URL"),
        (serve.html_as_mp4, "corrupt", "Invalid data"),
        (serve.truncated, "network", "ends prematurely"),
        (serve.stalled, "network", "timed out"),
    ],
)
def test_a_bad_response_has_its_status_and_leaves_no_file(
    answer: serve.Response,
    status: str,
    words: str,
    server: VideoServer,
    config: YoutubeConfig,
    tmp_path: Path,
) -> None:
    server.responses["-good_video"] = answer
    with pytest.raises(FetchError, match=words) as caught:
        fetch_clip(config, ACCESS, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert caught.value.status == status
    assert "://127" not in str(caught.value) or status == "unavailable"
    assert list(tmp_path.iterdir()) == []


def test_an_unreachable_server_is_a_network_failure(tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_clip(CONFIG, ACCESS, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert caught.value.status == "network"


def test_a_clip_that_takes_too_long_is_given_up(
    server: VideoServer, config: YoutubeConfig, tmp_path: Path
) -> None:
    server.responses["-good_video"] = serve.slow_start(1.0)
    short_timeout = replace(ACCESS, stall_seconds=20.0, clip_timeout_seconds=0.2)
    with pytest.raises(FetchError, match="timed out") as caught:
        fetch_clip(config, short_timeout, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert caught.value.status == "network"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [429, 500])
def test_temporary_failures_are_retried(
    code: int, server: VideoServer, config: YoutubeConfig, tmp_path: Path
) -> None:
    server.responses["-good_video"] = serve.failing(2, code)
    with pytest.raises(FetchError):
        fetch_clip(
            config, replace(ACCESS, retries=1), clip_of("-good_video"), tmp_path / "clip.mp4"
        )
    server.responses["-good_video"] = serve.failing(2, code)
    fetch_clip(config, replace(ACCESS, retries=2), clip_of("-good_video"), tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").exists()


def test_permanent_failures_are_not_retried(
    server: VideoServer, config: YoutubeConfig, tmp_path: Path
) -> None:
    server.responses["-good_video"] = serve.status(404)
    with pytest.raises(FetchError):
        fetch_clip(
            config, replace(ACCESS, retries=5), clip_of("-good_video"), tmp_path / "clip.mp4"
        )
    assert server.requests["-good_video"] == 1


def test_waits_grow_and_are_spread(
    server: VideoServer, config: YoutubeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.responses["-good_video"] = serve.status(500)
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    with_retries = replace(ACCESS, pause_seconds=3.0, retries=3, backoff_seconds=10.0)
    with pytest.raises(FetchError):
        fetch_clip(config, with_retries, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert len(waits) == 4
    for wait, minimum in zip(waits, (3, 10, 20, 40), strict=True):
        assert minimum <= wait <= 2 * minimum


def resolving(monkeypatch: pytest.MonkeyPatch, **video: object) -> None:
    """Sets what yt-dlp returns for the video."""
    monkeypatch.setattr(module, "_resolve", lambda *_: video)


def test_a_start_after_the_videos_end_is_too_short(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resolving(monkeypatch, url="http://127.0.0.1:9/", duration=3.0)
    with pytest.raises(FetchError, match="ends before second 3") as caught:
        fetch_clip(CONFIG, ACCESS, clip_of("-good_video", 3), tmp_path / "clip.mp4")
    assert caught.value.status == "too_short"


def test_a_start_after_the_end_of_a_video_of_unknown_length_leaves_no_file(
    config: YoutubeConfig, tmp_path: Path
) -> None:
    with pytest.raises(FetchError) as caught:
        fetch_clip(config, ACCESS, clip_of("-good_video", 30), tmp_path / "clip.mp4")
    assert caught.value.status in ("corrupt", "too_short")
    assert list(tmp_path.iterdir()) == []


def test_less_than_the_page_promises_is_a_network_failure(
    server: VideoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = server.page.replace("{id}", "_shortvideo")
    resolving(monkeypatch, url=url, duration=60.0)
    with pytest.raises(FetchError, match=r"of 10\.0 s came") as caught:
        fetch_clip(CONFIG, ACCESS, clip_of("_shortvideo", 1), tmp_path / "clip.mp4")
    assert caught.value.status == "network"
    assert list(tmp_path.iterdir()) == []
    resolving(monkeypatch, url=url, duration=5.0)  # the video ends there: that is all of it
    fetch_clip(CONFIG, ACCESS, clip_of("_shortvideo", 1), tmp_path / "clip.mp4")
    assert probe(tmp_path / "clip.mp4").duration_seconds == pytest.approx(4.0, abs=0.1)


def test_video_and_audio_may_be_two_streams(
    server: VideoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    streams = [
        {"url": server.page.replace("{id}", name), "http_headers": {"X-Name": "a: b"}}
        for name in ("silentvideo", "-good_video")
    ]
    resolving(monkeypatch, requested_formats=streams, duration=16.0)
    fetch_clip(CONFIG, ACCESS, clip_of("-good_video", 3), tmp_path / "clip.mp4")
    assert probe(tmp_path / "clip.mp4").has_audio


@pytest.mark.parametrize(
    "video",
    [
        {"entries": []},
        {"url": "http://127.0.0.1:9/", "is_live": True},
        {"url": "file:///etc/passwd"},
        {"url": "concat:/etc/passwd|/etc/hosts"},
    ],
)
def test_what_is_not_a_served_video_is_unavailable(
    video: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    resolving(monkeypatch, **video)
    with pytest.raises(FetchError) as caught:
        fetch_clip(CONFIG, ACCESS, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert caught.value.status == "unavailable"


def test_a_stream_cannot_reach_files(tmp_path: Path, server: VideoServer) -> None:
    playlist = server.folder / "playlist000.mp4"
    secret = server.folder / "silentvideo.mp4"
    playlist.write_text(f"#EXTM3U\n#EXTINF:10,\nfile://{secret}\n#EXT-X-ENDLIST\n")
    url = server.page.replace("{id}", "playlist000")
    with pytest.raises(SectionError):
        cut_section(
            [RemoteStream(url=url, headers={})], tmp_path / "clip.mp4",
            start_seconds=0, seconds=5, crf=20, audio_kbps=128, stall_seconds=5, timeout_seconds=20,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Sign in to confirm you\u2019re not a bot. Use --cookies", "bot_check"),
        ("YouTube is requiring a captcha challenge before playback", "bot_check"),
        (
            "Video unavailable. This content isn't available, try again later. The current session "
            "has been rate-limited by YouTube for up to an hour.",
            "rate_limited",
        ),
        ("Private video. Sign in if you've been granted access to this video", "private"),
        ("The uploader has not made this video available in your country", "geo_blocked"),
        ("Video unavailable. This video has been removed by the uploader", "unavailable"),
        (
            "This video is no longer available because the account has been terminated",
            "unavailable",
        ),
        ("Sign in to confirm your age. This video may be inappropriate", "unavailable"),
        ("Join this channel to get access to members-only content", "unavailable"),
        ("Requested format is not available. Use --list-formats", "network"),
        ("Only images are available for download", "network"),
        ("Something that nobody has seen before", "network"),
    ],
)
def test_messages_of_youtube_have_their_status(message: str, status: str) -> None:
    assert module._status_of(message) == status


def test_cookies_are_read_and_not_written_back(
    server: VideoServer, config: YoutubeConfig, tmp_path: Path
) -> None:
    cookies = tmp_path / "cookies.txt"
    line = "127.0.0.1\tFALSE\t/\tFALSE\t4102444800\tname\tvalue"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    before = cookies.read_bytes()
    received: list[str] = []

    def answer(handler: serve.Handler, name: str) -> None:
        received.append(handler.headers.get("Cookie", ""))
        serve.serve_file(handler, name)

    server.responses["-good_video"] = answer
    fetch_clip(
        config,
        replace(ACCESS, cookies_file=str(cookies)),
        clip_of("-good_video"),
        tmp_path / "clip.mp4",
    )
    assert "name=value" in received[0]
    assert "name=value" in received[-1]
    assert cookies.read_bytes() == before


@pytest.fixture
def with_cookies(tmp_path: Path) -> YoutubeAccess:
    """A cookie of 127.0.0.1, with which localhost must not be trusted."""
    cookies = tmp_path / "cookies.txt"
    line = "127.0.0.1\tFALSE\t/\tFALSE\t4102444800\tsession\tSECRET"
    cookies.write_text(f"# Netscape HTTP Cookie File\n{line}\n")
    return replace(ACCESS, cookies_file=str(cookies), stall_seconds=5.0)


class Watched:
    """The commands that run, and the cookies that a server gets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        self.cookies: list[tuple[str, str]] = []
        run = container.subprocess.run

        def watched(command: list[str], **options: Any) -> Any:
            self.commands.append(command)
            return run(command, **options)

        monkeypatch.setattr(container.subprocess, "run", watched)

    def file(self, handler: serve.Handler, name: str) -> None:
        host = handler.headers["Host"].partition(":")[0]
        self.cookies.append((host, handler.headers.get("Cookie", "")))
        serve.serve_file(handler, name)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def test_cookies_do_not_stand_on_ffmpegs_command_line(
    server: VideoServer, config: YoutubeConfig, with_cookies: YoutubeAccess, watched: Watched,
    tmp_path: Path,
) -> None:  # fmt: skip
    server.responses["-good_video"] = watched.file
    path, same = tmp_path / "clip.mp4", tmp_path / "same.mp4"
    fetch_clip(config, with_cookies, clip_of("-good_video", 5), path)
    assert watched.commands
    assert not any("SECRET" in word for command in watched.commands for word in command)
    assert len(watched.cookies) > 1
    assert set(watched.cookies) == {("127.0.0.1", "session=SECRET")}
    server.responses.clear()
    fetch_clip(config, ACCESS, clip_of("-good_video", 5), same)
    assert path.read_bytes() == same.read_bytes()


def test_cookies_do_not_travel_to_another_host(
    server: VideoServer, videos: Path, config: YoutubeConfig, with_cookies: YoutubeAccess,
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """The video's page is redirected, or only the requests for its stream."""
    with serve.running(videos) as other:
        other.responses["-good_video"] = watched.file
        elsewhere = other.page.replace("127.0.0.1", "localhost").replace("{id}", "-good_video")
        server.responses["-good_video"] = serve.redirect(elsewhere)
        fetch_clip(config, with_cookies, clip_of("-good_video"), tmp_path / "page.mp4")
        pages = len(watched.cookies)
        assert pages
        resolve = module._resolve

        def resolve_before_the_redirect(*arguments: Any) -> dict[str, Any]:
            server.responses.clear()
            video = resolve(*arguments)
            server.responses["-good_video"] = serve.redirect(elsewhere)
            return video

        monkeypatch.setattr(module, "_resolve", resolve_before_the_redirect)
        fetch_clip(config, with_cookies, clip_of("-good_video"), tmp_path / "stream.mp4")
        assert len(watched.cookies) > pages
    assert set(watched.cookies) == {("localhost", "")}


def test_a_playlist_gets_no_cookies() -> None:
    """Its files may be on any host."""
    video = {
        "url": "http://127.0.0.1:9/list.m3u8", "protocol": "m3u8_native", "downloader": object(),
        "http_headers": {"User-Agent": "a", "Cookie": "session=SECRET", "X-Token": "SECRET"},
    }  # fmt: skip
    (stream,) = module._streams(video)
    assert stream == RemoteStream(url=video["url"], headers={"User-Agent": "a"})  # type: ignore[arg-type]


TARGETS = [
    "file:///etc/passwd",
    "ftp://127.0.0.1:9/x",
    "data:video/mp4,x",
    "gopher://x/",
    "http://[::1",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_page_redirected_to_what_is_not_http_is_a_counted_failure(
    target: str, server: VideoServer, config: YoutubeConfig, tmp_path: Path
) -> None:
    server.responses["-good_video"] = serve.redirect(target)
    with pytest.raises(FetchError) as caught:
        fetch_clip(config, ACCESS, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert caught.value.status == "network"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cookies", [False, True])
@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1:9/x", "data:video/mp4,x"]
)
def test_a_stream_redirected_to_what_is_not_http_is_a_counted_failure(
    target: str, cookies: bool, server: VideoServer, config: YoutubeConfig,
    with_cookies: YoutubeAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    resolve = module._resolve

    def resolve_before_the_redirect(*arguments: Any) -> dict[str, Any]:
        video = resolve(*arguments)
        server.responses["-good_video"] = serve.redirect(target)
        return video

    monkeypatch.setattr(module, "_resolve", resolve_before_the_redirect)
    with pytest.raises(FetchError) as caught:
        fetch_clip(
            config, with_cookies if cookies else ACCESS, clip_of("-good_video"),
            tmp_path / "clip.mp4",
        )  # fmt: skip
    assert caught.value.status == "network"
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("answer", [serve.truncated, serve.stalled, serve.status(503)])
def test_what_fails_behind_the_relay_fails_before_it(
    answer: serve.Response, server: VideoServer, config: YoutubeConfig,
    with_cookies: YoutubeAccess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    resolve = module._resolve

    def resolve_before_the_failure(*arguments: Any) -> dict[str, Any]:
        video = resolve(*arguments)
        server.responses["-good_video"] = answer
        return video

    monkeypatch.setattr(module, "_resolve", resolve_before_the_failure)
    with pytest.raises(FetchError) as caught:
        fetch_clip(
            config, replace(with_cookies, stall_seconds=1.0), clip_of("-good_video"),
            tmp_path / "clip.mp4",
        )  # fmt: skip
    assert caught.value.status == "network"
    assert not (tmp_path / "clip.mp4").exists()


def test_the_relay_answers_for_its_streams_only(server: VideoServer) -> None:
    with yt_dlp.YoutubeDL({"quiet": True}) as downloader:
        url = server.page.replace("{id}", "-good_video")
        private = PrivateStream(url=url, headers={}, downloader=downloader)
        with relayed([private]) as (stream,):
            base, _, name = stream.url.rpartition("/")
            assert len(name) >= 20
            assert urllib.request.urlopen(stream.url).read()[4:8] == b"ftyp"  # noqa: S310
            for path in ("", f"{name}/..", f"{name}?x", "etc/passwd"):
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(f"{base}/{path}")  # noqa: S310
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(stream.url)  # noqa: S310


def test_a_page_that_yt_dlp_cannot_parse_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("playerResponse")

    monkeypatch.setattr(module.yt_dlp.YoutubeDL, "extract_info", fail)
    with pytest.raises(FetchError, match="KeyError: 'playerResponse'") as caught:
        fetch_clip(CONFIG, ACCESS, clip_of("-good_video"), tmp_path / "clip.mp4")
    assert caught.value.status == "network"


def test_an_invalid_cookies_file_ends_the_run(tmp_path: Path) -> None:
    wrong = tmp_path / "cookies.txt"
    wrong.write_text("not a cookies file")
    with pytest.raises(DataError, match=r"cookies\.txt"):
        fetch_clip(
            CONFIG,
            replace(ACCESS, cookies_file=str(wrong)),
            clip_of("-good_video"),
            tmp_path / "clip.mp4",
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"page": "https://www.youtube.com/watch"},
        {"page": "file:///tmp/{id}"},
        {"height_px": 0},
        {"crf": 52},
        {"audio_kbps": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"^youtube\.{next(iter(wrong))}: "):
        parse_section(asdict(CONFIG) | wrong, "youtube", YoutubeConfig)


@pytest.mark.parametrize(
    "wrong",
    [
        {"workers": 0},
        {"stop_after": 0},
        {"pause_seconds": -1.0},
        {"retries": -1},
        {"stall_seconds": 0.0},
    ],
)
def test_access_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    section = asdict(MACHINE) | {"youtube": asdict(ACCESS) | wrong}
    with pytest.raises(ConfigError, match=rf"^machine\.youtube\.{next(iter(wrong))}: "):
        parse_section(section, "machine", MachineConfig)


def test_yt_dlp_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FetchError):
        module._resolve(CONFIG, ACCESS, "http://127.0.0.1:9/x.mp4")
    assert capfd.readouterr() == ("", "")
