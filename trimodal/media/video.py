"""One frame per second of a clip, in process and in bounded memory (docs/method.md, Data).

"Frame N" is the Nth of these; "picture" is any decoded picture of the video stream, H.264's word.
The container's time stamps settle which pictures become frames. Of the others, those that are not a
reference for any picture are not decoded. The frames are exactly those of a full decode.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from trimodal.core.machine_errors import refuse_memory_shortage
from trimodal.core.timing import frame_centre_seconds, frame_count
from trimodal.media.container import (
    Deadline,
    DecodingLimits,
    LimitError,
    MediaError,
    media_errors,
    open_media,
)
from trimodal.media.orientation import Orientation, Packet, Turn, orientation_at, orientation_of
from trimodal.media.tracks import (
    MOST_DAMAGED,
    packets_of,
    read_packet_times,
    video_stream,
)

# Codecs whose "not a reference picture" flag holds for all other pictures. HEVC's holds only within
# a temporal layer; the VP9 and AV1 decoders ignore theirs.
_NONREF_CODECS = frozenset({"h264"})

_DISTRUST_SECONDS = 2.0


def decode_frames(
    path: Path, height: int, width: int, limits: DecodingLimits
) -> Iterator[npt.NDArray[np.uint8]]:
    """:meth:`Video.frames` of a file."""
    return Video(path, limits).frames(height, width)


class Video:
    """A file's frames. Once they have been read, ``aspect`` is the width / height of the first as
    displayed (pixels need not be square, and it may be turned), and ``gaps`` says what a transport
    stream lost, in words; it is empty if nothing, and for other containers.
    """

    def __init__(self, path: Path, limits: DecodingLimits) -> None:
        self._path, self._limits = path, limits
        self.aspect, self.gaps = 0.0, ""

    def frames(self, height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
        """One frame per second, each (height, width, 3) uint8 RGB; the aspect ratio is not kept.

        Frame N (from 1) is the picture on screen at second N - 0.5: the last one at or before it.
        Raises MediaError for a file that cannot be decoded, LimitError for one that exceeds a
        limit.
        """
        path, limits = self._path, self._limits
        scaler = VideoReformatter()
        deadline = Deadline(path, "frames", limits)
        with media_errors(path):
            times = _picture_times(path, limits, deadline)
            self.gaps = times.gaps
            for frame in _selected_pictures(path, times, limits, deadline):
                stamp = times.stamp(frame) or 0
                turned = orientation_of(frame) or orientation_at(times.turns, stamp)
                if not self.aspect:
                    aspect = times.pixel_aspect * frame.width / frame.height
                    self.aspect = 1 / aspect if turned.transposed else aspect
                yield _scaled(scaler, frame, height, width, turned)


@dataclass(frozen=True, kw_only=True)
class _PictureTimes:
    """A stream's time stamps, in ticks. ``selected`` holds the stamp of each frame's picture,
    counted from stamp ``zero``; it is empty where the packets' stamps do not settle them. ``turns``
    are the orientation messages between the pictures; where it is ``lossy``, some are missing, and
    ``gaps`` says so.
    """

    pixel_aspect: float
    zero: int
    seconds_per_tick: float
    frames: int
    selected: tuple[int, ...]
    skippable: bool
    lossy: bool
    gaps: str
    turns: Sequence[Turn]

    def stamp(self, frame: av.VideoFrame) -> int | None:
        """A picture's stamp, counted from ``zero``."""
        stamp = frame.pts if frame.pts is not None else frame.dts
        return None if stamp is None else stamp - self.zero


def _picture_times(path: Path, limits: DecodingLimits, deadline: Deadline) -> _PictureTimes:
    """Reads the packets' time stamps; nothing is decoded."""
    times = read_packet_times(path, deadline, partial(_video_stream, limits=limits))
    tick, stamps = times.tick_seconds, times.stamps
    frames = frame_count(times.shown_seconds)
    if frames > limits.clip_seconds:
        raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of video")
    if times.settled and len(stamps) and not frames:
        detail = f"{times.shown_seconds:.2f} s of pictures hold no frame"
        raise MediaError(path, "corrupt", detail)
    selected: tuple[int, ...] = ()
    if times.settled and len(stamps) and np.diff(stamps).min(initial=1) > 0:
        centres = [frame_centre_seconds(number + 1) / tick for number in range(frames)]
        last = np.searchsorted(stamps, np.array(centres) + 1e-6, side="right") - 1
        selected = tuple(stamps[np.maximum(0, last)].tolist())
    return _PictureTimes(
        pixel_aspect=times.pixel_aspect,
        zero=times.zero,
        seconds_per_tick=tick,
        frames=frames,
        selected=selected,
        skippable=times.codec in _NONREF_CODECS and not times.incomplete["video"],
        lossy=times.incomplete["video"] > 0,
        gaps=times.gaps,
        turns=times.turns,
    )


def _video_stream(path: Path, container: InputContainer, limits: DecodingLimits) -> VideoStream:
    stream = video_stream(path, container)
    if not stream.time_base:
        raise MediaError(path, "corrupt", "states no time base")
    if stream.codec_context.width * stream.codec_context.height > limits.frame_pixels:
        size = f"{stream.codec_context.width} x {stream.codec_context.height}"
        raise LimitError(path, "too_large", f"{size} is over {limits.frame_pixels:,} pixels")
    return stream


def _selected_pictures(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """The frames' pictures; a full decode provides those that skipping could not."""
    yielded = 0
    if times.skippable and times.selected:
        for frame in _skipping_decode(path, times, limits, deadline):
            yield frame
            yielded += 1
    if yielded < times.frames or not times.selected:
        for number, frame in enumerate(_full_decode(path, times, limits, deadline)):
            if number >= yielded:
                yield frame
                yielded += 1
    if not yielded:
        raise MediaError(path, "corrupt", "no frame of it could be decoded")


def _skipping_decode(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """The selected pictures, decoding no other non-reference picture. Stops early where the stream
    is damaged or does not match its time stamps.
    """
    selected, index = set(times.selected), 0
    with open_media(path) as container:
        stream = _decoding_stream(path, container, limits)
        context, skipping = stream.codec_context, False
        # How a damaged picture is concealed depends on those before it, skipped ones included.
        context.options = context.options | {"err_detect": "explode"}
        for packet in packets_of(path, container, stream):
            deadline.check()
            if skipping == (packet.pts is None or packet.pts - times.zero in selected):
                skipping = not skipping
                context.skip_frame = "NONREF" if skipping else "DEFAULT"
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                refuse_memory_shortage(error)
                return
            for frame in frames:
                # One field of an interlaced picture may be a reference and the other not.
                if frame.pts is None or frame.interlaced_frame or frame.is_corrupt:
                    return
                if frame.pts - times.zero > times.selected[index]:
                    return
                while frame.pts - times.zero == times.selected[index]:
                    yield frame
                    index += 1
                    if index == len(times.selected):
                        return


def _full_decode(
    path: Path, times: _PictureTimes, limits: DecodingLimits, deadline: Deadline
) -> Iterator[av.VideoFrame]:
    """Decodes every picture and yields for each second N - 0.5 the last one at or before it."""
    tick_seconds = times.seconds_per_tick
    latest: av.VideoFrame | None = None
    number, end = 1, 0.0
    with open_media(path) as container:
        stream = _decoding_stream(path, container, limits)
        for frame in _all_pictures(path, container, stream, lossy=times.lossy):
            deadline.check()
            stamp = times.stamp(frame)
            start = stamp * tick_seconds if stamp is not None else end
            while latest is not None and start > frame_centre_seconds(number) + 1e-6 * tick_seconds:
                yield latest
                number += 1
            latest = frame
            end = start + (frame.duration or 0) * tick_seconds
            if number > limits.clip_seconds:
                raise LimitError(path, "too_long", f"over {limits.clip_seconds:g} s of video")
    count = times.frames if times.selected else max(times.frames, frame_count(end))
    while latest is not None and number <= count:
        yield latest
        number += 1


def _all_pictures(
    path: Path, container: InputContainer, stream: VideoStream, *, lossy: bool = False
) -> Iterator[av.VideoFrame]:
    packets, damaged, shown = 0, 0, 0
    losses = _Losses() if lossy else None
    if lossy:  # else libavcodec invents what is missing
        stream.codec_context.options = stream.codec_context.options | {"err_detect": "explode"}
    for packet in packets_of(path, container, stream):
        packets += bool(packet.size)
        if losses:
            losses.see(packet)
        try:
            frames = packet.decode()
        except av.FFmpegError as error:  # a damaged picture; the previous one stays on screen
            refuse_memory_shortage(error)
            damaged += 1
            if losses:
                losses.distrust(packet)
            continue
        for frame in frames:
            damaged += frame.is_corrupt
            if losses is None or losses.trusts(frame):
                yield frame
                shown += 1
    if shown and damaged > MOST_DAMAGED * packets:
        detail = f"{damaged} of {packets} packets of its pictures are damaged"
        raise MediaError(path, "corrupt", detail)


class _Losses:
    """Which pictures of a lossy stream to show. Those after a lost one refer to it, up to the next
    key picture; errors fade, so they are shown again after ``_DISTRUST_SECONDS``.
    """

    def __init__(self) -> None:
        self._watched = 0  # packets in which a loss may show
        self._last_dts: int | None = None
        self._until: int | None = None
        self._untrusted: set[int | None] = set()

    def see(self, packet: Packet) -> None:
        """Notes a packet before it is decoded."""
        # FFmpeg's parser flags a packet up to two before the loss.
        self._watched = 4 if packet.is_corrupt else self._watched - 1
        dts, duration = packet.dts, packet.duration or 0
        if dts is None:
            return
        gap = self._last_dts is not None and duration and dts - self._last_dts > 1.5 * duration
        self._last_dts = dts
        if packet.is_keyframe:
            self._until = None
        elif gap and self._watched > 0:
            self.distrust(packet)
        if self._until is not None and dts < self._until:
            self._untrusted.add(packet.pts)

    def distrust(self, packet: Packet) -> None:
        """Notes that a picture is missing, at this packet or just before it."""
        if packet.dts is not None and packet.time_base:
            self._until = packet.dts + round(_DISTRUST_SECONDS / packet.time_base)

    def trusts(self, frame: av.VideoFrame) -> bool:
        """Whether a decoded picture is as it was sent."""
        return frame.pts not in self._untrusted


def _decoding_stream(path: Path, container: InputContainer, limits: DecodingLimits) -> VideoStream:
    """The video stream, on one thread (the workers are parallel), with bounded picture size."""
    stream = _video_stream(path, container, limits)
    stream.codec_context.thread_count = 1
    # Pictures may grow within a stream; libavcodec counts their row padding, too.
    stream.codec_context.options = {"max_pixels": str(2 * limits.frame_pixels)}
    return stream


def _scaled(
    scaler: VideoReformatter, frame: av.VideoFrame, height: int, width: int, turned: Orientation
) -> npt.NDArray[np.uint8]:
    """A picture as displayed, (height, width, 3) uint8."""
    if turned.transposed:
        height, width = width, height
    small = scaler.reformat(
        frame, width, height, "rgb24", interpolation=Interpolation.BICUBIC, threads=1
    )
    return turned.apply(small.to_ndarray().astype(np.uint8, copy=False))
