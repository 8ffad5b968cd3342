"""Which tracks of a media file are used, and what their packets say: length, picture times, gaps.

Nothing is decoded here. "Picture" is any picture of the video track, H.264's word.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from trimodal.media.container import (
    Deadline,
    DecodingLimits,
    LimitError,
    MediaError,
    media_errors,
    open_media,
)
from trimodal.media.orientation import OrientationMessages, Packet, Turn

AnyStream = TypeVar("AnyStream", AudioStream, VideoStream)

_COVER = Disposition.attached_pic | Disposition.timed_thumbnails
_IMPAIRED = Disposition.hearing_impaired | Disposition.visual_impaired
# Transport streams are made to lose packets and to be cut and joined anywhere, and ffmpeg plays
# what arrived. Elsewhere an incomplete packet means that the file has been cut off.
_LOSSY = "mpegts"
_JOINABLE = ("mpegts", "mpeg")
# The silence with which an audio codec begins. Where a container does not state it, the sound seems
# to start that much before the pictures.
_LONGEST_PRIMING_SECONDS = 0.1
_JUMP_BACK_SECONDS, _JUMP_AHEAD_SECONDS = 0.1, 10.0  # ffmpeg's, for joined parts
# The one container whose length is that of its tables of packets. Elsewhere it is an estimate, a
# header that a copy of a part has kept, or what a writer to a pipe made up.
_STATES_LENGTH = "mov,mp4,m4a,3gp,3g2,mj2"
_STILL_SECONDS = 1.0
MOST_DAMAGED = 0.5  # share of a track's packets or pictures beyond which it is corrupt
_MEASURING = DecodingLimits(clip_seconds=1e9, frame_pixels=1, timeout_seconds=120.0)


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """What is known of a file before anything is decoded."""

    duration_seconds: float
    has_audio: bool


@dataclass(frozen=True, kw_only=True)
class PacketTimes:
    """What the packets of the two tracks say. The pictures are of ``codec``, their pixels
    ``pixel_aspect`` times as wide as high. ``stamps`` are those of the pictures, ascending, in
    ticks of ``tick_seconds`` from stamp ``zero``, the start of the file; not ``settled``: some
    picture has none. Pictures and sound end at ``picture_seconds`` and ``sound_seconds`` (0 without
    sound). ``standing`` says that the last picture stands until the sound ends. ``turns`` are the
    orientation messages of an H.264 track. ``incomplete`` counts packets that may lack a part, and
    ``packets`` all, by type of track.
    """

    codec: str
    pixel_aspect: float
    zero: int
    tick_seconds: float
    stamps: npt.NDArray[np.int64]
    settled: bool
    picture_seconds: float
    sound_seconds: float
    standing: bool
    turns: Sequence[Turn]
    packets: Counter[str]
    incomplete: Counter[str]

    @property
    def shown_seconds(self) -> float:
        """How long there is a picture on screen."""
        if self.standing:
            return max(self.picture_seconds, self.sound_seconds)
        return self.picture_seconds

    @property
    def gaps(self) -> str:
        """The packets that may lack a part, in words; empty if none."""
        if not self.incomplete:
            return ""
        counts = [
            f"{self.incomplete[kind]} of {self.packets[kind]} packets of its {name}"
            for kind, name in (("video", "pictures"), ("audio", "sound"))
            if self.incomplete[kind]
        ]
        return f"parts were lost or joined: {' and '.join(counts)} may be incomplete"


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The video track that players show: the first of the default ones, else the first; cover
    images and tracks of unknown codecs do not count. Raises MediaError if there is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & _COVER]
    if not streams:
        raise MediaError(path, "no_video", "has no video stream")
    if stream := _preferred(streams):
        return stream
    raise MediaError(path, "corrupt", "its video stream is of an unknown codec")


def audio_stream(path: Path, container: InputContainer) -> AudioStream:
    """The audio track that players play, chosen like the video track. Raises MediaError if there is
    none of a known codec.
    """
    if stream := _preferred(container.streams.audio):
        return stream
    if container.streams.audio:
        raise MediaError(path, "corrupt", "its audio stream is of an unknown codec")
    raise MediaError(path, "no_audio", "has no audio stream")


def _preferred(streams: Sequence[AnyStream]) -> AnyStream | None:
    """The first stream of those that FFmpeg's av_find_best_stream ranks highest by disposition.
    PyAV gives a stream of an unknown codec no codec context.
    """

    def rank(stream: AnyStream) -> int:
        default = bool(stream.disposition & Disposition.default)
        return default + (not stream.disposition & _IMPAIRED)

    return max((s for s in streams if s.codec_context is not None), key=rank, default=None)


def packets_of(
    path: Path, container: InputContainer, *streams: VideoStream | AudioStream
) -> Iterator[Packet]:
    """The packets of these streams, or of all. A transport stream's clocks are put right where
    parts are joined; in other containers a packet that lacks a part raises MediaError.
    """
    name = container.format.name
    packets: Iterator[Packet] = container.demux(*streams)
    if name in _JOINABLE:
        # Of all streams, so that every caller sees the same joints.
        indexes = {s.index for s in streams} or set(range(len(container.streams)))
        packets = (
            packet for packet in _on_one_clock(container.demux()) if packet.stream_index in indexes
        )
    for packet in packets:
        if packet.is_corrupt and name != _LOSSY:
            raise MediaError(path, "corrupt", "it ends in the middle of a packet")
        yield packet


def _on_one_clock(packets: Iterator[Packet]) -> Iterator[Packet]:
    """Moves the packets of parts whose clock begins anew behind the part before, as ffmpeg does.
    The first stream to arrive in a part says by how much.
    """
    shifts = [0.0]  # of each part, in seconds
    part: Counter[int] = Counter()  # of each stream
    ends: dict[int, float] = {}  # of each stream's last packet
    for packet in packets:
        index = packet.stream_index
        stamp = packet.dts if packet.dts is not None else packet.pts
        timed = packet.stream.type in ("video", "audio")
        if timed and stamp is not None and packet.time_base is not None:
            tick = float(packet.time_base)
            end = ends.get(index, stamp * tick)
            now = stamp * tick + shifts[part[index]]
            # A gap in one stream, which the others have filled, is no joint.
            ahead = now - max(ends.values(), default=now)
            if now < end - _JUMP_BACK_SECONDS or ahead > _JUMP_AHEAD_SECONDS:
                part[index] += 1
                if part[index] == len(shifts):
                    shifts.append(end - stamp * tick)
            shift = round(shifts[part[index]] / tick)
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
            ends[index] = (stamp + shift + (packet.duration or 0)) * tick
        yield packet


def start_seconds(container: InputContainer) -> float:
    """Second 0 of the clip on the container's clock: where the first track starts, or the pictures
    if the sound seems to start just before them.
    """
    start = (container.start_time or 0) / 1e6
    for stream in container.streams.video[:1]:
        if stream.start_time is not None and stream.time_base is not None:
            first = float(stream.start_time * stream.time_base)
            if 0 < first - start <= _LONGEST_PRIMING_SECONDS:
                return first
    return start


def read_packet_times(
    path: Path,
    deadline: Deadline,
    pictures: Callable[[Path, InputContainer], VideoStream] = video_stream,
) -> PacketTimes:
    """Reads all packets of a file, whose video track is found by ``pictures``. Raises what that
    raises, MediaError for a file without usable pictures or that is cut off, LimitError once the
    time is over, and PyAV's errors.
    """
    with open_media(path) as container:
        video = pictures(path, container)
        audio = _preferred(container.streams.audio)
        if not video.time_base:
            raise MediaError(path, "corrupt", "states no time base")
        tick = float(video.time_base)
        start = start_seconds(container)
        zero = round(start / tick)
        stamps, end, sound_end, settled = array("q"), 0, 0, True
        messages = OrientationMessages(video, zero)
        packets: Counter[str] = Counter()
        incomplete: Counter[str] = Counter()
        for packet in packets_of(path, container):  # a file may be cut off in any stream
            deadline.check()
            if not packet.size or packet.is_discard:
                continue
            used = packet.stream_index == video.index
            if used or (audio and packet.stream_index == audio.index):
                kind = "video" if used else "audio"
                packets[kind] += 1
                if packet.is_corrupt:
                    incomplete[kind] += 1
                if packet.pts is None:
                    settled &= not used
                elif used:
                    stamps.append(packet.pts - zero)
                    end = max(end, packet.pts - zero + (packet.duration or 0))
                else:
                    sound_end = max(sound_end, packet.pts + (packet.duration or 0))
                if used:
                    messages.read(packet)
        sound_seconds = 0.0
        if audio and audio.time_base:
            sound_seconds = max(0.0, float(sound_end * audio.time_base) - start)
        codec, aspect = video.codec_context.name, float(video.sample_aspect_ratio or 1)
    ordered = np.sort(np.frombuffer(stamps, np.int64)) if stamps else np.empty(0, np.int64)
    standing = len(ordered) > 0 and _stands(ordered, end, tick)
    if settled and len(ordered) and end == ordered[-1]:
        end += int(ordered[-1] - ordered[-2]) if len(ordered) > 1 else round(1 / tick)
    return PacketTimes(
        codec=codec,
        pixel_aspect=aspect,
        zero=zero,
        tick_seconds=tick,
        stamps=ordered,
        settled=settled,
        picture_seconds=end * tick,
        sound_seconds=sound_seconds,
        standing=standing,
        turns=messages.in_order(),
        packets=packets,
        incomplete=incomplete,
    )


def _stands(stamps: npt.NDArray[np.int64], end: int, tick: float) -> bool:
    """Whether the last picture is on screen until something replaces it, as in a screen recording
    or a still with sound: there is a single picture, it states no duration, or pictures do not come
    at a constant rate. At a constant rate the last one ends the pictures.
    """
    stated = end - int(stamps[-1])
    if len(stamps) == 1 or stated == 0:
        return True
    gaps = np.diff(stamps)
    longest, shortest = int(gaps.max()), int(gaps.min())
    uneven = longest - shortest > max(0.2 * shortest, 2)  # 2 ticks: stamps are rounded
    return uneven or longest > 2 * stated or longest * tick >= _STILL_SECONDS


def probe(path: Path) -> MediaInfo:
    """The length and the streams of a video file, from its header; where that states no length or
    states it for other streams, from its packets. Raises MediaError if it is not a video.
    """
    with media_errors(path):
        with open_media(path) as container:
            video = video_stream(path, container)
            audio = _preferred(container.streams.audio)
            has_audio = bool(container.streams.audio)
            length = container.duration if container.format.name == _STATES_LENGTH else None
            for stream in container.streams:
                cover = stream.type == "video" and stream.disposition & _COVER
                if not cover and stream.index not in (video.index, audio.index if audio else None):
                    length = None  # may be that of another track, such as subtitles
        if length is not None:
            return MediaInfo(duration_seconds=length / 1e6, has_audio=has_audio)
        try:
            times = read_packet_times(path, Deadline(path, "packets", _MEASURING))
        except LimitError as error:
            detail = f"its length is not stated; {error.detail}"
            raise MediaError(path, "corrupt", detail) from error
    if not times.packets:
        raise MediaError(path, "corrupt", "states no duration and has no packets")
    seconds = max(times.shown_seconds, times.sound_seconds)
    return MediaInfo(duration_seconds=seconds, has_audio=has_audio)


def has_audio(path: Path) -> bool:
    """Whether a file has an audio track, of whatever codec."""
    with media_errors(path), open_media(path) as container:
        return bool(container.streams.audio)
