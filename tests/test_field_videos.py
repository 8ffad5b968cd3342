"""Videos as people have them: mirrored, without a length, with gaps, with several tracks.

The cases are public bug reports; where ../shared/cases is absent, the same files are made here.
"""

import struct
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clock_fixtures import AAC, CASES, H264, clock, corners, four_colours, numbers, tone_input
from configs import front_end_for_tests
from media_fixtures import LIMITS, RATE_HZ, ffmpeg, frames_of, pitch_hz, samples_of
from PIL import Image
from training_fixtures import extract_config

from trimodal.core.archives import StoredFile
from trimodal.core.records import Clip
from trimodal.download.probe import inspect
from trimodal.media.container import MediaError
from trimodal.media.tracks import probe
from trimodal.media.video import Video
from trimodal.preprocess.clip_shards import ClipShard, extract_shard
from trimodal.search import footage as footage_module
from trimodal.search.footage import Footage, VideoFile

STORED = "rgbw"


def case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path


def shown(path: Path) -> list[str]:
    return [corners(frame) for frame in frames_of(path, 32, 64)]


def read_through(path: Path) -> Video:
    """A video whose frames have been read."""
    video = Video(path, LIMITS)
    for _ in video.frames(2, 2):
        pass
    return video


def display_aspect(path: Path) -> float:
    return read_through(path).aspect


def gaps(path: Path) -> str:
    return read_through(path).gaps


def seconds_of_sound(path: Path) -> float:
    return len(samples_of(path)) / RATE_HZ


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Writes a display matrix into an MP4: the one of the track, which is the identity before."""
    content = path.read_bytes()
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    position = content.index(upright, content.index(b"tkhd"))
    turned = struct.pack(">9i", *(n << 16 for n in (a, b)), 0, *(n << 16 for n in (c, d)), 0, 0, 0,
                         1 << 30)  # fmt: skip
    path.write_bytes(content[:position] + turned + content[position + 36 :])
    return path


# What each matrix (a, b, c, d) shows of red, green / blue, white; pixel (x, y) is shown at
# (ax + cy, bx + dy).
MATRICES = {
    (1, 0, 0, 1): "rgbw",
    (-1, 0, 0, 1): "grwb",
    (1, 0, 0, -1): "bwrg",
    (-1, 0, 0, -1): "wbgr",
    (0, 1, 1, 0): "rbgw",
    (0, 1, -1, 0): "brwg",
    (0, -1, 1, 0): "gwrb",
    (0, -1, -1, 0): "wgbr",
}


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return four_colours(tmp_path_factory.mktemp("colours") / "clip.mp4").read_bytes()


@pytest.mark.parametrize("matrix", MATRICES)
def test_every_display_matrix(
    matrix: tuple[int, int, int, int], upright: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(upright)
    with_matrix(path, *matrix)
    assert shown(path) == [MATRICES[matrix]]
    assert display_aspect(path) == pytest.approx(0.5 if matrix[1] else 2.0)
    pixels = ffmpeg("-i", path, "-vf", "scale=64:32", "-frames:v", 1, "-f", "rawvideo", "-pix_fmt",
                    "rgb24", "pipe:1")  # fmt: skip
    assert corners(np.frombuffer(pixels, np.uint8).reshape(32, 64, 3)) == MATRICES[matrix]


@pytest.mark.parametrize(("name", "expected"), [("hflip", "grwb"), ("vflip", "bwrg")])
def test_mirrored_cases(name: str, expected: str) -> None:
    assert shown(case(f"mirrored/{name}.mp4")) == [expected] * 2


def test_a_portrait_is_not_squashed() -> None:
    assert display_aspect(case("portrait_aspect/portrait.mp4")) == 0.5


def test_a_portrait_of_pixels_that_are_not_square(tmp_path: Path) -> None:
    """64 x 32 pixels, each twice as wide as high: shown as 32 x 128 after a quarter turn."""
    wide, path = tmp_path / "wide.mp4", tmp_path / "clip.mp4"
    four_colours(wide, "-aspect", "4:1")
    assert display_aspect(wide) == pytest.approx(4.0)
    ffmpeg("-display_rotation", 90, "-i", wide, "-c", "copy", path)
    assert display_aspect(path) == pytest.approx(0.25)


def with_messages(path: Path, *parts: tuple[int, str] | None) -> Path:
    """H.264 of one second for each part: its orientation message (degrees against the clock, flip)
    at the first of its ten pictures, None for none.
    """
    annex_b = b""
    for number, part in enumerate(parts):
        plain = four_colours(path.with_suffix(f".{number}.h264"), "-f", "h264")
        if part is None:
            annex_b += plain.read_bytes()
            continue
        flips = {"": "", "h": ":flip=horizontal", "v": ":flip=vertical"}[part[1]]
        message = f"h264_metadata=display_orientation=insert:rotate={part[0]}{flips}"
        annex_b += ffmpeg("-i", plain, "-c", "copy", "-bsf:v", message, "-f", "h264", "pipe:1")
    ffmpeg("-fflags", "+genpts", "-r", 10, "-f", "h264", "-i", "pipe:0", "-c", "copy", path,
           stdin=annex_b)  # fmt: skip
    return path


@pytest.mark.parametrize(("degrees", "flip"), list(product([0, 90, 180, 270], ["", "h", "v"])))
def test_an_orientation_message_holds_until_the_next(
    degrees: int, flip: str, tmp_path: Path
) -> None:
    """Frame N is its tenth picture but 5, which has no message of its own. The decoder's matrix of
    the picture that has one is the oracle.
    """
    path = with_messages(tmp_path / "clip.mp4", (degrees, flip))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        sides = [frame.side_data[index] for index in range(len(frame.side_data))]
    data = {side.type.name: bytes(side) for side in sides}
    matrix = np.array([1, 0, 0, 1])
    if "DISPLAYMATRIX" in data:
        matrix = np.frombuffer(data["DISPLAYMATRIX"], np.int32)[[0, 1, 3, 4]]
    a, b, c, d = np.sign(np.round(matrix / abs(matrix).max())).astype(int).tolist()
    assert shown(path) == [MATRICES[a, b, c, d]]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_orientation_messages_that_change(ending: str, tmp_path: Path) -> None:
    """A turn of 0 degrees ends the turn before; a part without a message keeps it."""
    parts = [None, (90, ""), None, (180, ""), (0, ""), (0, "h"), None]
    path = with_messages(tmp_path / f"clip.{ending}", *parts)
    assert shown(path) == ["rgbw", "gwrb", "gwrb", "wbgr", "rgbw", "grwb", "grwb"]


def test_a_message_before_a_turned_container(tmp_path: Path) -> None:
    """The container's matrix holds for every picture, as in ffmpeg."""
    path = with_messages(tmp_path / "plain.mp4", (180, ""), None)
    turned = tmp_path / "clip.mp4"
    ffmpeg("-display_rotation", 90, "-i", path, "-c", "copy", turned)
    assert shown(turned) == ["gwrb"] * 2


def test_pictures_that_state_their_turn_in_exif(tmp_path: Path) -> None:
    """Of Motion JPEG; PyAV has no name for this kind of side data."""
    exif = Image.Exif()
    exif[0x0112] = 6
    frame = frames_of(four_colours(tmp_path / "plain.mp4"), 32, 64)[0]
    Image.fromarray(frame).save(tmp_path / "turned.jpg", exif=exif)
    path = tmp_path / "clip.mkv"
    ffmpeg("-loop", 1, "-framerate", 5, "-t", 2, "-i", tmp_path / "turned.jpg", "-c", "copy", path)
    assert shown(path) == ["brwg"] * 2
    assert display_aspect(path) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["live.webm", "pipe.mkv"])
def test_cases_without_a_duration(name: str) -> None:
    path = case(f"no_duration/{name}")
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.03)
    assert probe(path).has_audio
    assert numbers(path) == [5, 15, 25, 35]
    assert seconds_of_sound(path) == pytest.approx(4.0, abs=0.03)


VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M")
WRITTEN_TO_A_PIPE = {
    "webm": ("webm", VP8, ("-c:a", "libopus")),
    "matroska": ("matroska", H264, AAC),
    "fragmented": ("mp4", H264, (*AAC, "-movflags", "+frag_keyframe+empty_moov+default_base_moof")),
    "cmaf": ("mp4", H264, (*AAC, "-movflags", "+cmaf+frag_keyframe+empty_moov")),
    "flv": ("flv", H264, AAC),
    "avi": ("avi", ("-c:v", "mpeg4"), ("-c:a", "libmp3lame")),
    "asf": ("asf", ("-c:v", "wmv2"), ("-c:a", "wmav2")),
    "mpegts": ("mpegts", H264, AAC),
    "mpeg": ("mpeg", ("-c:v", "mpeg2video", "-q:v", "2", "-r", "25"), ("-c:a", "mp2")),
    "ogg": ("ogg", ("-c:v", "libtheora", "-q:v", "9"), ("-c:a", "libvorbis")),
}


@pytest.mark.parametrize("name", WRITTEN_TO_A_PIPE)
def test_the_length_is_that_of_the_packets_where_the_header_lacks_it(
    name: str, tmp_path: Path
) -> None:
    muxer, video, audio = WRITTEN_TO_A_PIPE[name]
    path = tmp_path / "clip.mp4"
    piped = clock(tmp_path / "seekable", *audio, "-f", muxer, video=video)
    path.write_bytes(ffmpeg("-i", piped, "-c", "copy", "-f", muxer, *audio[2:], "pipe:1"))
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.3)
    # These muxers move a picture by up to one.
    assert numbers(path) == pytest.approx(
        [5, 15, 25, 35], abs=name in ("mpeg", "avi", "fragmented")
    )
    assert seconds_of_sound(path) == pytest.approx(4.0, abs=0.15)


def test_a_duration_that_is_not_that_of_the_packets(tmp_path: Path) -> None:
    whole = clock(tmp_path / "whole.mkv", *AAC)
    header = bytearray(whole.read_bytes())
    position = header.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes
    header[position : position + 8] = struct.pack(">d", 100_000)
    whole.write_bytes(header)
    with av.open(str(whole)) as container:
        assert container.duration == 100_000_000
    assert probe(whole).duration_seconds == pytest.approx(4.0, abs=0.05)
    assert numbers(whole) == [5, 15, 25, 35]


def test_a_file_of_headers_alone_is_corrupt(tmp_path: Path) -> None:
    whole, path = clock(tmp_path / "whole.mkv", *AAC), tmp_path / "clip.mkv"
    content = ffmpeg("-i", whole, "-c", "copy", "-f", "matroska", "pipe:1")
    path.write_bytes(content[: content.index(b"\x1f\x43\xb6\x75")])  # the first cluster
    with pytest.raises(MediaError, match="corrupt"):
        probe(path)


def test_measuring_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    path = case("no_duration/live.webm")
    ticks = iter(range(0, 9999, 30))
    clock_of_steps = SimpleNamespace(monotonic=lambda: next(ticks))
    monkeypatch.setattr("trimodal.media.container.time", clock_of_steps)
    with pytest.raises(MediaError, match=r"its length is not stated; .* took over 120 s"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "expected"), [("one.mkv", [0, 0, 0, 0]), ("vfr.webm", [0, 12, 21, 21])]
)
def test_the_last_picture_of_the_cases_stands(name: str, expected: list[int]) -> None:
    path = case(f"still_picture/{name}")
    assert numbers(path) == expected
    assert seconds_of_sound(path) == pytest.approx(4.0, abs=0.03)
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.03)


CONTAINERS = {
    "mp4": (H264, AAC),
    "mov": (H264, AAC),
    "mkv": (H264, AAC),
    "webm": (VP8, ("-c:a", "libopus")),
    "ts": (H264, AAC),
    "flv": (H264, AAC),
    "avi": (("-c:v", "mpeg4"), ("-c:a", "libmp3lame")),
    "mpg": (("-c:v", "mpeg2video", "-r", "25"), ("-c:a", "mp2")),
}


def still(path: Path, pictures: str) -> Path:
    """Those pictures of the clock, and four seconds of sound."""
    video, audio = CONTAINERS[path.suffix[1:]]
    chosen = path.with_name(f"pictures{path.suffix}")
    select = ("-vf", f"select='{pictures}'", "-fps_mode", "vfr")
    options = [option for option in video if option not in ("-r", "25")]
    clock(chosen, *select, inputs=(), video=tuple(options))
    ffmpeg("-i", chosen, *tone_input(), "-map", "0:v", "-map", "1:a", "-c:v", "copy", *audio, path)
    return path


@pytest.mark.parametrize("ending", [name for name in CONTAINERS if name != "mpg"])
def test_a_single_picture_stands_while_there_is_sound(ending: str, tmp_path: Path) -> None:
    path = still(tmp_path / f"clip.{ending}", "eq(n,0)")
    assert numbers(path) == [0] * 4
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv", "webm", "ts"])
@pytest.mark.parametrize(
    ("pictures", "expected"),
    [("eq(n,0)+eq(n,12)+eq(n,21)", [0, 12, 21, 21]), ("lt(n,10)+eq(n,23)", [5, 9, 23, 23]),
     ("eq(n,0)+eq(n,12)", [0, 12, 12, 12])],
)  # fmt: skip
def test_pictures_at_a_variable_rate_stand_until_the_next(
    ending: str, pictures: str, expected: list[int], tmp_path: Path
) -> None:
    assert numbers(still(tmp_path / f"clip.{ending}", pictures)) == expected


def test_pictures_at_a_constant_rate_end_with_the_last(tmp_path: Path) -> None:
    """The sound goes on for two seconds."""
    assert numbers(clock(tmp_path / "clip.mp4", *AAC, pictures=20)) == [5, 15]


def packet_offsets(content: bytes, pid: int) -> list[int]:
    """Offsets of a transport stream's packets with this identifier."""
    return [
        offset for offset in range(0, len(content), 188)
        if (content[offset + 1] & 0x1F) << 8 | content[offset + 2] == pid
    ]  # fmt: skip


PICTURES, SOUND = 0x100, 0x101


@pytest.fixture(scope="module")
def transport(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The clock as a transport stream, of ten pictures a key picture."""
    return clock(tmp_path_factory.mktemp("ts") / "clip.ts", *AAC).read_bytes()


def without(content: bytes, offsets: list[int]) -> bytes:
    kept = bytearray(content)
    for offset in sorted(offsets, reverse=True):
        del kept[offset : offset + 188]
    return bytes(kept)


@pytest.mark.parametrize("name", ["lost_one", "lost_sound"])
def test_lost_packet_cases(name: str) -> None:
    path = case(f"ts_lost_packet/{name}.mp4")
    first, second, third, fourth = numbers(path)
    assert [first, second, fourth] == [5, 15, 35]
    assert third in (range(20, 26) if name == "lost_one" else [25])  # 20 is the last intact one
    assert seconds_of_sound(path) == pytest.approx(4.0, abs=0.05)
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.05)
    assert f"packets of its {'pictures' if name == 'lost_one' else 'sound'} may be" in gaps(path)


def test_an_intact_transport_stream_has_no_gaps(transport: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(transport)
    assert numbers(path) == [5, 15, 25, 35]
    assert gaps(path) == ""


@pytest.mark.parametrize("index", [1, 30, 60, 90])
def test_a_lost_packet_of_pictures_shows_only_pictures_that_were_sent(
    index: int, transport: bytes, tmp_path: Path
) -> None:
    offsets = packet_offsets(transport, PICTURES)
    path = tmp_path / "clip.ts"
    path.write_bytes(without(transport, [offsets[min(index, len(offsets) - 3)]]))
    frames = numbers(path)
    assert len(frames) == 4
    behind = np.array([5, 15, 25, 35]) - frames
    assert np.all((behind >= 0) & (behind <= 10))
    assert np.count_nonzero(behind) <= 1


def test_lost_sound_keeps_the_rest_in_place(transport: bytes, tmp_path: Path) -> None:
    offsets = packet_offsets(transport, SOUND)
    path = tmp_path / "clip.ts"
    path.write_bytes(without(transport, offsets[len(offsets) // 3 : len(offsets) // 3 + 4]))
    samples = samples_of(path)
    assert len(samples) / RATE_HZ == pytest.approx(4.0, abs=0.05)
    assert pitch_hz(samples[-RATE_HZ:]) == pytest.approx(440, abs=3)
    assert "packets of its sound" in gaps(path)


def test_too_little_left_is_corrupt(transport: bytes, tmp_path: Path) -> None:
    """Two of three packets of the sound, or of the pictures, are noise."""
    for pid, read in ((SOUND, samples_of), (PICTURES, numbers)):
        content = bytearray(transport)
        for number, offset in enumerate(packet_offsets(transport, pid)):
            if number % 6:
                content[offset + 12 : offset + 188] = b"\xff" * 176
        path = tmp_path / f"{pid}.ts"
        path.write_bytes(content)
        with pytest.raises(MediaError, match="corrupt"):
            read(path)


@pytest.mark.parametrize("clock_of_second", ["goes on", "begins anew", "is hours ahead"])
def test_joined_segments(clock_of_second: str, tmp_path: Path) -> None:
    """Two whole segments of two seconds behind one another; nothing is lost."""
    whole = clock(tmp_path / "whole.mp4", *AAC)
    parts = []
    for number, start in enumerate((0, 2)):
        offset = {"goes on": start, "begins anew": 0, "is hours ahead": 9000 * number}
        part = tmp_path / f"{number}.ts"
        clock(
            part, *AAC, "-ss", start, "-t", 2, "-output_ts_offset", offset[clock_of_second],
            "-muxdelay", 0, inputs=tone_input(),
        )  # fmt: skip
        parts.append(part.read_bytes())
    assert whole.exists()
    path = tmp_path / "clip.ts"
    path.write_bytes(b"".join(parts))
    assert numbers(path) == pytest.approx([5, 15, 25, 35], abs=1)
    assert seconds_of_sound(path) == pytest.approx(4.0, abs=0.15)
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_transport_stream_that_was_cut_has_fewer_seconds(
    share: float, transport: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "clip.ts"
    path.write_bytes(transport[: int(share * len(transport))])
    frames = numbers(path)
    assert frames == [5, 15, 25, 35][: len(frames)]
    assert 1 <= len(frames) < 4


def two_tracks(path: Path, *options: str | Path) -> Path:
    """Clock and tone of 440 Hz, then a black video of 2 s and a tone of 880 Hz."""
    black = ("-f", "lavfi", "-i", "color=black:size=64x32:rate=10:duration=2")
    return clock(
        path, *AAC, "-map", "0:v", "-map", "2:v", "-map", "1:a", "-map", "3:a", *options,
        inputs=(*tone_input(), *black, *tone_input(hz=880)),
    )  # fmt: skip


def default(video: int, audio: int) -> tuple[str, ...]:
    return tuple(
        word
        for kind, chosen in (("v", video), ("a", audio))
        for index in (0, 1)
        for word in (f"-disposition:{kind}:{index}", "default" if index == chosen else "0")
    )


def hertz(path: Path) -> float:
    return pitch_hz(samples_of(path)[:RATE_HZ])


def test_default_tracks_behind_the_first_are_used(tmp_path: Path) -> None:
    first = two_tracks(tmp_path / "first.mkv", *default(0, 0))
    assert (numbers(first), hertz(first)) == ([5, 15, 25, 35], pytest.approx(440, abs=3))
    second = two_tracks(tmp_path / "second.mkv", *default(1, 1))
    assert (numbers(second), hertz(second)) == ([0, 0], pytest.approx(880, abs=3))
    assert display_aspect(second) == pytest.approx(2.0)
    neither = two_tracks(tmp_path / "neither.mkv", *default(-1, -1))
    assert (len(numbers(neither)), hertz(neither)) == (4, pytest.approx(440, abs=3))


def test_a_track_for_the_blind_is_no_choice_where_there_is_another(tmp_path: Path) -> None:
    path = two_tracks(
        tmp_path / "clip.mkv", "-disposition:a:0", "visual_impaired", "-disposition:a:1", "0"
    )
    assert hertz(path) == pytest.approx(880, abs=3)


def test_a_cover_before_the_video_is_not_used(tmp_path: Path) -> None:
    cover, path = tmp_path / "cover.png", tmp_path / "clip.mp4"
    Image.new("RGB", (40, 40), "white").save(cover)
    clock(
        path, *AAC, "-map", "2:v", "-map", "0:v", "-map", "1:a", "-c:v:0", "png",
        "-disposition:v:0", "attached_pic", "-disposition:v:1", "0",
        inputs=(*tone_input(), "-i", cover),
    )  # fmt: skip
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    assert numbers(path) == [5, 15, 25, 35]
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.03)


def test_a_second_sound_track_replaces_one_of_an_unknown_codec(tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "clip.mkv", "-c:a:0", "pcm_s16le", *default(0, 0))
    content = path.read_bytes()
    assert content.count(b"A_PCM/INT/LIT") == 1
    path.write_bytes(content.replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    assert hertz(path) == pytest.approx(880, abs=3)
    assert probe(path).has_audio


def test_a_second_video_track_replaces_one_of_an_unknown_codec(tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "clip.mkv", "-c:v:0", "mpeg4", *default(0, 0))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"V_MPEG4/ISO/ASP", b"V_XYZ/4/ISO/ASP"))
    assert numbers(path) == [0, 0]


@pytest.mark.parametrize("ending", ["mkv", "mp4", "webm"])
def test_subtitles_do_not_make_a_clip_longer(ending: str, tmp_path: Path) -> None:
    subtitles, path = tmp_path / "words.srt", tmp_path / f"clip.{ending}"
    subtitles.write_text("1\n00:00:00,000 --> 00:01:40,000\nwords\n")
    codec = {"mkv": "srt", "mp4": "mov_text", "webm": "webvtt"}[ending]
    video, audio = CONTAINERS[ending]
    clock(path, *audio, "-c:s", codec, inputs=(*tone_input(), "-i", subtitles), video=video)
    assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.03)
    assert len(numbers(path)) == 4


def test_another_video_track_does_not_make_a_clip_longer(tmp_path: Path) -> None:
    for ending in ("mp4", "mkv"):
        path = tmp_path / f"clip.{ending}"
        long = ("-f", "lavfi", "-i", "color=black:size=32x32:rate=1:duration=50")
        clock(path, *AAC, "-map", "0:v", "-map", "1:a", "-map", "2:v",
              inputs=(*tone_input(), *long))  # fmt: skip
        assert probe(path).duration_seconds == pytest.approx(4.0, abs=0.03)


@pytest.mark.parametrize("muxer", ["webm", "matroska", "mpegts"])
def test_download_and_extract_agree(muxer: str, tmp_path: Path) -> None:
    """Of a recording written to a pipe: usable, four frames and four seconds of sound."""
    path = tmp_path / "clip.mp4"
    _, video, audio = WRITTEN_TO_A_PIPE[muxer]
    piped = clock(tmp_path / "seekable", *audio, "-f", muxer, video=video)
    path.write_bytes(ffmpeg("-i", piped, "-c", "copy", "-f", muxer, "pipe:1"))
    clip = Clip(clip_id="x", source="vggsound", split="train", label="", youtube_id="abcdefghijk")
    outcome = inspect(clip, StoredFile(path=path, size=path.stat().st_size), None)
    assert (outcome.status, outcome.has_audio) == ("ok", True)
    assert outcome.duration_s == pytest.approx(4.0, abs=0.05)
    job = ClipShard(path=tmp_path / "train-000000.tar", split="train", clips=(outcome,))
    done = extract_shard(extract_config(), front_end_for_tests().mel, 60.0, job)
    assert not done.left_out
    assert len(done.rows[0]["frame_offsets"]) == 4
    assert done.rows[0]["sound_s"] == pytest.approx(4.0, abs=0.05)


def footage_of(path: Path) -> Footage:
    video = VideoFile(path=path, frames=path.with_suffix(".rgb"))
    return footage_module._decode(32, front_end_for_tests().mel, LIMITS, video)


def test_the_index_tells_gaps_and_keeps_the_video(transport: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.ts"
    path.write_bytes(without(transport, packet_offsets(transport, SOUND)[20:24]))
    footage = footage_of(path)
    assert footage.moments == 4
    assert footage.mel is not None
    assert "packets of its sound may be incomplete" in footage.problem


def test_the_index_shows_a_turned_video_upright(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    ffmpeg("-display_rotation", 90, "-i", four_colours(tmp_path / "plain.mp4"), "-c", "copy", path)
    footage = footage_of(path)
    assert footage.aspect == pytest.approx(0.5)
    assert [corners(frame) for frame in footage.frames()] == ["gwrb"]
    assert footage.problem == ""


def test_pictures_too_short_for_a_frame_are_named(tmp_path: Path) -> None:
    path = four_colours(tmp_path / "clip.mp4", pictures=4)
    with pytest.raises(MediaError, match=r"corrupt: 0\.40 s of pictures hold no frame"):
        frames_of(path, 8, 8)
